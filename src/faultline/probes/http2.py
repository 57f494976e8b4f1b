"""One exchange by HTTP/2 (RFC 9113) on a connection that stands; the library h2 knows the frames,
here are the bytes and the time.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from faultline.probes.http1 import Request
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import not_installed

_PER_CONNECTION = frozenset({"connection", "host", "transfer-encoding", "upgrade", "keep-alive"})


@dataclass(slots=True)
class _Answer:
    """What has come so far."""

    keep: int
    code: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    over: bool = False


def load() -> None:
    """Load the library; raises ObserveFailed if it is not there."""
    try:
        import_module("h2.connection")
    except ModuleNotFoundError as error:
        raise not_installed("HTTP/2", "http2") from error


def ask(
    connection: socket.socket, request: Request, limit: Limit
) -> tuple[int, dict[str, str], bytes, int]:
    """Code, headers, the part of the body that is wanted, its size; raises NoAnswer, OSError."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import H2Error
    from h2.settings import SettingCodes

    # The types of the library are open.
    http: Any = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    answer = _Answer(request.keep)
    try:
        http.initiate_connection()
        http.update_settings({SettingCodes.ENABLE_PUSH: 0})
        named = request.named()
        head = [
            (":method", request.method),
            (":scheme", request.scheme),
            (":authority", request.headers.get("Host", request.host)),
            (":path", request.target),
            *((name, value) for name, value in named.items() if name not in _PER_CONNECTION),
        ]
        http.send_headers(1, head, end_stream=not request.body)
        rest = memoryview(request.body)
        while not answer.over:
            rest = _send(http, rest)
            connection.settimeout(limit.left())
            connection.sendall(http.data_to_send())
            connection.settimeout(limit.left())
            data = connection.recv(65536)
            if not data:
                raise NoAnswer("the connection was closed without a complete answer")
            for event in http.receive_data(data):
                _take(http, event, answer)
    except (H2Error, UnicodeDecodeError) as error:
        raise NoAnswer(f"not an answer of HTTP/2: {error}"[:200]) from error
    return answer.code, answer.headers, bytes(answer.body), answer.size


def _send(http: Any, rest: memoryview) -> memoryview:
    """Send as much of the body as the server lets us."""
    while rest:
        room = min(http.local_flow_control_window(1), http.max_outbound_frame_size, len(rest))
        if room <= 0:
            break
        http.send_data(1, bytes(rest[:room]), end_stream=room == len(rest))
        rest = rest[room:]
    return rest


def _take(http: Any, event: Any, answer: _Answer) -> None:
    from h2 import events

    if isinstance(event, events.ResponseReceived):
        for name, value in event.headers or []:
            answer.headers[str(name)] = str(value)
        status = answer.headers.pop(":status", "")
        if not status.isdecimal():
            raise NoAnswer(f"not an answer of HTTP/2: {status!r} is no code")
        answer.code = int(status)
    elif isinstance(event, events.DataReceived):
        data = event.data or b""
        answer.size += len(data)
        answer.body += data[: answer.keep - len(answer.body)]
        http.acknowledge_received_data(event.flow_controlled_length, 1)
    elif isinstance(event, events.StreamEnded):
        answer.over = True
    elif isinstance(event, (events.StreamReset, events.ConnectionTerminated)):
        what = "the stream" if isinstance(event, events.StreamReset) else "the connection"
        raise NoAnswer(f"the server ended {what}: {event.error_code!s}")
