"""The engine's HTTP server: in a thread of its own, at a socket that is made here."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from faultline.errors import Bug, Unsupported
from faultline.server import access

if TYPE_CHECKING:
    from uvicorn import Server

    from faultline.server.host import Host

START = 20.0
"""Seconds in which it must have begun."""
FAREWELL = 2
"""Seconds that callers have to take their answers when the engine ends."""
AT_ONCE = 256
"""Connections at the same time; who comes then is answered 503."""
HEAD = 32 << 10
"""Bytes that the head of a request may have."""


@contextmanager
def served(host: Callable[[], Host], listen: str, token_file: Callable[[], Path]) -> Generator[str]:
    """Serve while the block runs; yields where it listens.

    Raises InvalidParameter for an address that others could reach, Refused where another engine
    listens, Unsupported where the packages for it are missing.
    """
    where = access.address(listen)
    with ExitStack() as stack:
        if where.file is not None:
            made, token = stack.enter_context(access.unix_socket(where.file)), None
        else:
            token = access.token(token_file())
            made = stack.enter_context(access.loopback_socket(where.host, where.port))
            where = access.Address(None, where.host, made.getsockname()[1])
        server, let_go = _server(host, token)
        stack.enter_context(_running(server, made))
        stack.callback(let_go)
        yield str(where) if token is None else f"{where} (token: {token_file()})"


def _server(host: Callable[[], Host], token: str | None) -> tuple[Server, Callable[[], None]]:
    """The server, and what lets those go who would stay for ever."""
    try:
        import uvicorn

        from faultline.server import app, gate, protocol
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"--listen needs the package {error.name}",
            hint="install it: pip install 'faultline[engine]'",
        ) from error
    of = host()
    config = uvicorn.Config(
        gate.Gate(app.application(of), token),
        loop="asyncio", http=protocol.Protocol, ws="none", lifespan="off", interface="asgi3",
        log_config=None, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False,
        limit_concurrency=AT_ONCE, timeout_graceful_shutdown=FAREWELL,
        h11_max_incomplete_event_size=HEAD,
    )  # fmt: skip
    return uvicorn.Server(config), of.ending.set


@contextmanager
def _running(server: Server, made: socket.socket) -> Generator[None]:
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [made]}, name="faultline http", daemon=True
    )
    thread.start()
    until = time.monotonic() + START
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise Bug("the HTTP server did not begin")
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(FAREWELL + 5)
