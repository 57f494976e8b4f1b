"""HTTP/2 over h2: many requests at once on one connection, a new one where that is full."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from aiohttp import CookieJar
from h2.exceptions import H2Error
from multidict import CIMultiDict
from yarl import URL

from faultline.traffic.drivers import tls
from faultline.traffic.drivers.http2_wire import Http2Error, Wire
from faultline.traffic.drivers.http_steps import Answer, Request
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import Load

_REDIRECTS = (301, 302, 303, 307, 308)
_PRIVATE = ("authorization", "cookie")
_NOT_IN_HTTP2 = ("connection", "host", "keep-alive", "transfer-encoding", "upgrade")


class _Session:
    def __init__(self, client: Client, jar: CookieJar | None) -> None:
        self._client, self._jar = client, jar

    async def exchange(self, request: Request) -> Answer:
        url, method, body = URL(request.url), request.method, request.body
        headers = dict(request.headers)
        for _ in range(self._client.redirects + 1):
            answer = await self._one(method, url, headers, body, wanted=request.wanted)
            target = answer.headers.get("location")
            if not self._client.redirects or answer.status not in _REDIRECTS or not target:
                return answer
            there = URL(urljoin(str(url), target))
            if there.origin() != url.origin():
                headers = {n: v for n, v in headers.items() if n.lower() not in _PRIVATE}
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method, body = "HEAD" if method == "HEAD" else "GET", b""
            url = there
        raise Http2Error("too many redirects")

    async def _one(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes, *, wanted: bool
    ) -> Answer:
        sent = [
            (":method", method),
            (":scheme", url.scheme),
            (":authority", url.host_port_subcomponent or ""),
            (":path", url.raw_path_qs),
            *(
                (name.lower(), value)
                for name, value in headers.items()
                if name.lower() not in _NOT_IN_HTTP2
            ),
        ]
        if self._jar is not None and (cookies := self._jar.filter_cookies(url)):
            sent.append(("cookie", cookies.output(attrs=[], header="", sep=";").strip()))
        if body:
            sent.append(("content-length", str(len(body))))
        wire = await self._client.wire(url)
        status, found, data = await wire.exchange(sent, body, wanted=wanted)
        answer = Answer(status, CIMultiDict(found), data)
        if self._jar is not None:
            self._jar.update_cookies_from_headers(
                [value for name, value in found if name == "set-cookie"], url
            )
        return answer

    def close(self) -> None:
        return


class Client:
    """The connections of all users, by where they lead."""

    errors: tuple[type[Exception], ...] = (Http2Error, H2Error, ValueError)

    def __init__(self, load: Load) -> None:
        self._options, self._most = load.options, load.connections
        self.redirects: int = load.options["redirects"]
        self._tls: ssl.SSLContext | None = None
        self._wires: dict[tuple[str, int], list[Wire]] = {}
        self._opening: dict[tuple[str, int], asyncio.Lock] = {}

    async def open(self) -> None:
        self._tls = tls.context(self._options)
        self._tls.set_alpn_protocols(["h2", "http/1.1"])

    def session(self, *, cookies: bool) -> _Session:
        return _Session(self, CookieJar(unsafe=True) if cookies else None)

    async def wire(self, url: URL) -> Wire:
        """A connection that can take a request now, or else the one with the fewest that wait."""
        where = (url.host or "", url.port or 0)
        if (found := self._free(where)) is not None:
            return found
        async with self._opening.setdefault(where, asyncio.Lock()):
            if (found := self._free(where)) is not None:
                return found
            wires = self._wires.setdefault(where, [])
            if wires and self._most and len(wires) >= self._most:
                return min(wires, key=lambda each: each.load)
            wire = await self._connect(url)
            wires.append(wire)
            return wire

    def _free(self, where: tuple[str, int]) -> Wire | None:
        wires = self._wires.get(where, [])
        if any(not wire.usable for wire in wires):
            wires[:] = [wire for wire in wires if wire.usable]
        return next((wire for wire in wires if wire.has_room), None)

    async def _connect(self, url: URL) -> Wire:
        given: dict[str, Any] = {}
        if url.scheme == "https":
            name = self._options["server_name"] or url.host
            given = {"ssl": self._tls, "server_hostname": name}
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, url.host or "", url.port or 0, **given)
        if url.scheme == "https" and wire.protocol != "h2":
            wire.close()
            raise Http2Error("no http/2")
        try:
            await wire.ready
        except asyncio.CancelledError:
            wire.close()
            raise
        return wire

    def kind(self, error: Exception) -> str:
        if isinstance(error, Http2Error):
            return str(error)
        if isinstance(error, H2Error):
            return "bad answer"
        ours = isinstance(error, ValueError) and not isinstance(error, OSError)  # of TLS are both
        return "bad request" if ours else error_kind(error)

    async def close(self) -> None:
        for wires in self._wires.values():
            for wire in wires:
                wire.close()
