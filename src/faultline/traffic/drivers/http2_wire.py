"""One connection of HTTP/2: frames and flow control are h2's, bytes are the event loop's."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from faultline.traffic.drivers.http_steps import MOST_BODY

_WINDOW = 1 << 24  # bytes that the server may send before we say that we have read them
_HIGHEST_STREAM = (1 << 31) - 1

Headers = list[tuple[str, str]]


class Http2Error(Exception):
    """An exchange that ended otherwise than by an answer; its text is its kind."""


@dataclass(slots=True)
class _Stream:
    done: asyncio.Future[None]
    wanted: bool
    left: bytes
    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytearray = field(default_factory=bytearray)


class Wire(asyncio.Protocol):
    """A connection; `exchange` may be called many times at once."""

    def __init__(self) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._queue: deque[asyncio.Future[None]] = deque()  # for a stream
        self._transport: asyncio.Transport | None = None
        self._ended = ""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server has said how many streams it takes, or has hung up."""
        self.protocol = ""
        """What was agreed upon within TLS."""

    @property
    def usable(self) -> bool:
        return not self._ended

    @property
    def load(self) -> int:
        """How many requests it has."""
        return len(self._streams) + len(self._queue)

    @property
    def has_room(self) -> bool:
        return self.usable and not self._queue and len(self._streams) < self._most

    @property
    def _most(self) -> int:
        return self._h2.remote_settings.max_concurrent_streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        self.protocol = (tls.selected_alpn_protocol() or "") if tls else ""
        self._h2.initiate_connection()
        self._h2.update_settings(
            {SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW, SettingCodes.ENABLE_PUSH: 0}
        )
        self._h2.increment_flow_control_window(_WINDOW)
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport:
            self._transport.write(data)

    async def exchange(
        self, headers: Headers, body: bytes, *, wanted: bool
    ) -> tuple[int, Headers, bytes]:
        """Send one request and read all of its answer; raises Http2Error and OSError."""
        if not self.has_room:
            await self._room()
        while len(self._streams) >= self._most and not self._ended:
            await self._room()  # somebody else was quicker
        if self._ended:
            raise Http2Error(self._ended)
        number = self._h2.get_next_available_stream_id()
        stream = _Stream(asyncio.get_running_loop().create_future(), wanted, body)
        self._streams[number] = stream
        try:
            self._h2.send_headers(number, headers, end_stream=not body)
            self._send_body(number, stream)
            self._flush()
            await stream.done
        except asyncio.CancelledError:
            self._give_up(number)
            raise
        finally:
            self._streams.pop(number, None)
            self._next()
        return stream.status, stream.headers, bytes(stream.body)

    async def _room(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._queue.remove(turn)
            else:
                self._next()  # it was its turn just now: the next one's, then
            raise

    def _next(self) -> None:
        """Let those who wait have the streams that are free."""
        free = self._most - len(self._streams)
        while self._queue and (free > 0 or self._ended):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def _send_body(self, number: int, stream: _Stream) -> None:
        while stream.left:
            room = self._h2.local_flow_control_window(number)
            size = min(room, self._h2.max_outbound_frame_size, len(stream.left))
            if size <= 0:
                return  # more when the server makes room
            chunk, stream.left = stream.left[:size], stream.left[size:]
            self._h2.send_data(number, chunk, end_stream=not stream.left)

    def _give_up(self, number: int) -> None:
        if not self._ended and number in self._streams:
            self._h2.reset_stream(number, ErrorCodes.CANCEL)
            self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(data):
                self._happened(event)
        except H2Error:
            self._ended = "bad answer"
            for stream in self._streams.values():
                _end(stream, Http2Error("bad answer"))
        self._flush()
        if self._ended == "bad answer":
            self.close()

    def _happened(self, event: Event) -> None:
        number = cast("int", getattr(event, "stream_id", 0) or 0)
        stream = self._streams.get(number)
        if isinstance(event, DataReceived):
            size = event.flow_controlled_length or 0
            if size:
                self._h2.acknowledge_received_data(size, number)
            if stream and stream.wanted and len(stream.body) < MOST_BODY:
                stream.body += event.data or b""
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            self._more_room(event)
        elif isinstance(event, ConnectionTerminated):
            self._terminated(event)
        elif stream is None:
            return
        elif isinstance(event, ResponseReceived):
            self._begun(stream, event)
        elif isinstance(event, StreamEnded):
            _end(stream, None)
        elif isinstance(event, StreamReset):
            _end(stream, Http2Error("stream reset"))

    @staticmethod
    def _begun(stream: _Stream, event: ResponseReceived) -> None:
        for name, value in cast("Headers", event.headers or []):
            if name == ":status":
                stream.status = int(value)
            else:
                stream.headers.append((name, value))

    def _more_room(self, event: WindowUpdated | RemoteSettingsChanged) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._is_ready()
            if SettingCodes.MAX_CONCURRENT_STREAMS in event.changed_settings:
                self._next()
        for number, stream in list(self._streams.items()):
            if stream.left:
                self._send_body(number, stream)

    def _is_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _terminated(self, event: ConnectionTerminated) -> None:
        """The server takes no more requests; those up to its last stream are still answered."""
        self._ended = "going away"
        last = event.last_stream_id if event.last_stream_id is not None else _HIGHEST_STREAM
        for number, stream in self._streams.items():
            if number > last or event.error_code:
                _end(stream, Http2Error("going away"))
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._ended or "disconnected"
        self._is_ready()
        for stream in self._streams.values():
            _end(stream, exc if isinstance(exc, OSError) else Http2Error("disconnected"))
        self._next()

    def close(self) -> None:
        self._ended = self._ended or "closed"
        if self._transport:
            self._transport.abort()


def _end(stream: _Stream, error: Exception | None) -> None:
    if stream.done.done():
        return
    if error:
        stream.done.set_exception(error)
    else:
        stream.done.set_result(None)
