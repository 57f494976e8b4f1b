"""Datagrams and their answers. Every request under way has a socket of its own, so that an answer
is known to be its.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

from faultline.traffic.driver import Turn
from faultline.traffic.drivers.payload import Payload
from faultline.traffic.drivers.pool import Pool
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import Load


class _Socket(asyncio.DatagramProtocol):
    """One socket that speaks to the target alone, and what it has heard."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self.heard: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self.heard and not self.heard.done():
            self.heard.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if self.heard and not self.heard.done():
            self.heard.set_exception(exc)

    def send(self, data: bytes) -> asyncio.Future[bytes]:
        """Send and give what will be heard."""
        assert self.transport is not None
        self.heard = asyncio.get_running_loop().create_future()
        self.transport.sendto(data)
        return self.heard

    def close(self) -> None:
        if self.transport:
            self.transport.abort()


class Driver:
    """A request is a datagram, until a fitting answer comes."""

    errors: tuple[type[Exception], ...] = ()

    def __init__(self, load: Load) -> None:
        options = load.options
        self._host, self._port = options["host"], options["port"]
        self._payload = Payload(options)
        self._length: int | None = options["length"]
        self._pattern = re.compile(options["pattern"].encode()) if options["pattern"] else None
        self._answer: bool = options["answer"]
        self._pool = Pool(self._open, _Socket.close, load.connections)

    async def _open(self) -> _Socket:
        loop = asyncio.get_running_loop()
        where = (self._host, self._port)
        return (await loop.create_datagram_endpoint(_Socket, remote_addr=where))[1]

    async def open(self) -> None:
        return

    async def turn(self, turn: Turn) -> None:
        data = self._payload.fill(turn)
        await turn.ask("", lambda: self._exchange(data))

    async def _exchange(self, data: bytes) -> str:
        async with self._pool.connection() as wire:
            heard = wire.send(data)
            if not self._answer:
                heard.cancel()
                return ""
            answer = await heard
        if self._pattern and not self._pattern.search(answer):
            return "other answer"
        return "other length" if self._length not in (None, len(answer)) else ""

    def kind(self, error: Exception) -> str:
        return error_kind(error)

    async def close(self) -> None:
        self._pool.close()
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop
