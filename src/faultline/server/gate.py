"""What stands before every route: who calls, how much it sends, and how long it takes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from faultline.errors import FaultlineError
from faultline.server import access
from faultline.server.problems import NotHere, NoToken, Problem, TooLong, TooSlow

MOST = 1 << 20
"""Bytes of a body."""
THROWN_AWAY = 8 << 20
"""Bytes of a longer one that are still taken, so that its sender hears that it is too long."""
PATIENCE = 30.0
"""Seconds in which a body must have arrived."""
OPEN = ("/v1/health",)
"""What can be asked without a token."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Gate:
    """An ASGI application before another. With a `token` it is for loopback, else for a socket of
    which the kernel has told who calls.
    """

    def __init__(self, app: Application, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        try:
            self._check(headers, scope["path"])
            body = await _body(headers, receive)
        except FaultlineError as error:
            await _refuse(error, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _check(self, headers: dict[str, str], path: str) -> None:
        if "origin" in headers or "sec-fetch-mode" in headers:
            raise NotHere("browsers may not call the engine")
        if self._token is None:
            return
        if not access.names_loopback(headers.get("host", "")):
            raise NotHere("the Host header names another host", hint="call 127.0.0.1")
        if path in OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not access.same(given.strip(), self._token):
            raise NoToken(
                "a token is needed, and it must be that of this engine",
                hint="send `Authorization: Bearer TOKEN`; it is in the token file of the engine",
            )


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    """The whole body. Of one that is too long the rest is read and thrown away, within bounds: who
    is still sending does not hear the answer.
    """
    length = headers.get("content-length", "0")
    too_long = TooLong(f"the body is longer than the {MOST} bytes that are read")
    if length.isdigit() and int(length) > THROWN_AWAY:
        raise too_long
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(PATIENCE):
            while more and size <= THROWN_AWAY:
                message = await receive()
                if message["type"] != "http.request":
                    break  # the caller has gone
                part = message.get("body", b"")
                size, more = size + len(part), message.get("more_body", False)
                if size <= MOST:
                    parts.append(part)
    except TimeoutError as error:
        raise TooSlow(f"the body did not arrive within {PATIENCE:.0f} s") from error
    if size > MOST:
        raise too_long
    return b"".join(parts)


async def _refuse(error: FaultlineError, send: Send) -> None:
    problem = Problem(error)
    body = problem.body()
    headers = {
        "content-type": problem.media, "content-length": str(len(body)),
        "connection": "close", **problem.headers,
    }  # fmt: skip
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
