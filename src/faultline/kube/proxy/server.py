"""The proxy: takes the requests of one client, asks the API server, and answers as faults want it.

Whoever knows the path that it listens below may ask everything that the credentials allow with
which the proxy was started, so the path is a secret, and the server listens on loopback unless it
has a certificate.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from faultline.kube.proxy import answers
from faultline.kube.proxy.active import Active, Faults
from faultline.kube.proxy.asked import Asked, asked
from faultline.kube.proxy.faults import Disconnect, Error, Latency, Stale
from faultline.kube.proxy.streaming import Cut, Watch
from faultline.kube.proxy.timeline import EVERY, Timeline

if TYPE_CHECKING:
    from aiohttp import web

    from faultline.kubeapi.kubeconfig import Asynchronous

STATUS = ".faultline"
BODY = 64 << 20  # bytes of one request
_HOPS = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade", "content-length", "content-encoding", "date", "server",
})  # fmt: skip
_OURS = frozenset({"host", "authorization", "accept-encoding", "accept"})
_log = logging.getLogger(__name__)


class Proxy:
    """One proxy."""

    def __init__(self, upstream: Asynchronous, faults: Faults, secret: str) -> None:
        self.faults, self.secret = faults, secret
        self.timeline = Timeline(faults.clock)
        self._upstream = upstream
        self.requests = 0

    def app(self) -> web.Application:
        """What answers, for an AppRunner."""
        from aiohttp import web

        made = web.Application(client_max_size=BODY)
        made.router.add_route("*", f"/{self.secret}/{STATUS}", self._status)
        made.router.add_route("*", f"/{self.secret}/{{path:.*}}", self._handle)
        return made

    async def keep(self) -> None:
        """Watch over deadlines, and over the version of the cluster while that matters."""
        while True:
            self.faults.tick()
            if self.faults.on(Stale):
                with suppress(*self._upstream.failures):
                    query = {"limit": "1"}
                    found = await self._upstream.client.get("/api/v1/namespaces", params=query)
                    if found.status_code == 200:
                        self.timeline.note(answers.version_of(found.content))
                        self.faults.again()
                    else:
                        _log.warning("the version cannot be seen: HTTP %s", found.status_code)
            await asyncio.sleep(EVERY)

    async def _status(self, request: web.Request) -> web.Response:
        from aiohttp import web

        told = {"requests": self.requests, "faults": self.faults.to_json()}
        return web.json_response(told)

    # ------------------------------------------------------------------ one request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        path = request.rel_url.raw_path.removeprefix(f"/{self.secret}")
        what = asked(request.method, path, request.query)
        agent = request.headers.get("User-Agent", "")
        if "upgrade" in request.headers.get("Connection", "").lower():
            return _answer(501, answers.status(501, "exec and port-forward do not pass the proxy"))
        await self._wait(what, agent)
        ends = [
            *self.faults.hitting(Disconnect, what, agent),
            *self.faults.hitting(Error, what, agent),
        ]
        early = [(active, params) for active, params in ends if params.when == "before"]
        if early:
            return _ended(request, *early[0])
        try:
            if what.verb == "watch":
                return await self._watch(request, path, what, agent)
            if ends:
                await self._done(request, path)
                return _ended(request, *ends[0])
            stale = await self._stale(request, path, what, agent)
            return stale if stale is not None else await self._forward(request, path)
        except self._upstream.failures as error:
            told = f"the API server does not answer: {error or type(error).__name__}"
            return _answer(503, answers.status(503, told))

    async def _wait(self, what: Asked, agent: str) -> None:
        for active, params in self.faults.hitting(Latency, what, agent):
            begun, jitter = self.faults.clock(), params.jitter.seconds
            wanted = max(0.0, params.delay.seconds + random.uniform(-jitter, jitter))
            await asyncio.sleep(max(0.0, min(wanted, active.until - begun)))
            active.note(self.faults.clock() - begun)

    # ------------------------------------------------------------------ asking the server

    def _sent(self, request: web.Request, path: str, query: str, accept: str, body: bytes) -> Any:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _HOPS | _OURS
        }
        # Compressed answers would have to be taken apart and put together again.
        headers |= {"Accept-Encoding": "identity", "Accept": accept or "*/*"}
        url = f"{path}?{query}" if query else path
        client = self._upstream.client
        return client.build_request(request.method, url, headers=headers, content=body or None)

    async def _forward(self, request: web.Request, path: str) -> web.StreamResponse:
        """As it is, and as it comes: a log that is followed has no end."""
        from aiohttp import web

        accept = request.headers.get("Accept", "")
        sent = self._sent(request, path, request.rel_url.raw_query_string, accept,
                          await request.read())  # fmt: skip
        async with AsyncExitStack() as stack:
            found = await self._upstream.client.send(sent, stream=True)
            stack.push_async_callback(found.aclose)
            if request.query.get("follow") not in ("1", "true"):
                return _answer(found.status_code, await found.aread(), _passed(found.headers))
            made = web.StreamResponse(status=found.status_code, headers=_passed(found.headers))
            await made.prepare(request)
            async for part in found.aiter_raw():
                await made.write(part)
            return made

    async def _done(self, request: web.Request, path: str) -> None:
        """Have it done, whatever becomes of the answer."""
        sent = self._sent(request, path, request.rel_url.raw_query_string, "", await request.read())
        found = await self._upstream.client.send(sent)
        await found.aclose()

    async def _watch(
        self, request: web.Request, path: str, what: Asked, agent: str
    ) -> web.StreamResponse:
        from aiohttp import web

        accept = answers.readable(request.headers.get("Accept", ""))
        sent = self._sent(request, path, request.rel_url.raw_query_string, accept, b"")
        async with AsyncExitStack() as stack:
            found = await self._upstream.client.send(sent, stream=True)
            stack.push_async_callback(found.aclose)
            if found.status_code != 200:
                return _answer(found.status_code, await found.aread(), _passed(found.headers))
            made = web.StreamResponse(status=200, headers=_passed(found.headers))
            await made.prepare(request)
            watch = Watch(what, agent, self.faults, self.timeline)
            try:
                await watch.pass_on(self._lines(found), made.write)
            except Cut:
                _break(request)
            except ConnectionError:  # the client has gone
                _log.debug("a watch was left by its client")
            return made

    async def _lines(self, found: Any) -> AsyncIterator[bytes]:
        with suppress(*self._upstream.failures):
            async for line in found.aiter_lines():
                if line:
                    yield line.encode()

    # ------------------------------------------------------------------ the past

    async def _stale(
        self, request: web.Request, path: str, what: Asked, agent: str
    ) -> web.Response | None:
        """The answer of a server that lags behind; None if it is to be answered as it is."""
        readable = what.verb == "list" or (what.verb == "get" and not what.part)
        if not readable or "continue" in request.query:
            return None
        for active, params in self.faults.hitting(Stale, what, agent):
            seen = self.timeline.view(active, params)
            if seen is None:
                active.missed += 1
                continue
            version, age = seen
            made = await self._past(request, path, what, version)
            if made is None:
                active.missed += 1
                continue
            active.note(age, "past")
            return made
        return None

    async def _past(
        self, request: web.Request, path: str, what: Asked, version: int
    ) -> web.Response | None:
        query = {**request.query, "resourceVersion": str(version),
                 "resourceVersionMatch": "Exact"}  # fmt: skip
        accept = answers.readable(request.headers.get("Accept", ""))
        if what.verb == "get":
            path = path.rstrip("/").rpartition("/")[0]
            query["fieldSelector"] = f"metadata.name={what.name}"
            accept = answers.JSON
        sent = self._sent(request, path, "", accept, b"")
        sent = self._upstream.client.build_request("GET", path, params=query, headers=sent.headers)
        found = await self._upstream.client.send(sent)
        if found.status_code != 200:
            return None
        if what.verb == "list":
            return _answer(200, found.content, _passed(found.headers))
        one = answers.alone(found.content)
        if one is None:
            text = f'{what.names[-1]} "{what.name}" not found'
            return _answer(404, answers.status(404, text))
        return _answer(200, one)


# ---------------------------------------------------------------------- answers


def _answer(code: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    from aiohttp import web

    return web.Response(status=code, body=body, headers=headers or {"Content-Type": answers.JSON})


def _ended(request: web.Request, active: Active, params: Disconnect | Error) -> web.Response:
    """What the client gets instead of an answer."""
    if isinstance(params, Disconnect):
        active.note(code="broken")
        _break(request)
        return _answer(503, b"")
    active.note(code=str(params.status))
    body = answers.status(params.status, params.message, "", params.retry_after)
    headers = {"Content-Type": answers.JSON}
    if params.retry_after:
        headers["Retry-After"] = str(params.retry_after)
    return _answer(params.status, body, headers)


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _passed(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOPS}
