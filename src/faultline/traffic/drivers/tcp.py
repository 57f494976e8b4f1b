"""Bytes over TCP, and an answer that is complete by its length or by a pattern."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from faultline.traffic.driver import Turn
from faultline.traffic.drivers import tls
from faultline.traffic.drivers.payload import Payload
from faultline.traffic.drivers.pool import Pool
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import Load

_MOST = 64 << 20  # bytes of an answer that are looked at for a pattern
_CHUNK = 1 << 18

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Driver:
    """A request is the payload until its answer is complete; without a payload, a connection."""

    errors: tuple[type[Exception], ...] = (asyncio.IncompleteReadError,)

    def __init__(self, load: Load) -> None:
        options = load.options
        self._host, self._port = options["host"], options["port"]
        self._payload = Payload(options)
        self._length: int | None = options["length"]
        self._pattern = re.compile(options["pattern"].encode()) if options["pattern"] else None
        self._keep = bool(options["keep_alive"] and self._payload)
        self._tls: dict[str, Any] = {}
        if options["tls"]:
            name = options["server_name"] or self._host
            self._tls = {"ssl": tls.context(options), "server_hostname": name}
        self._pool = Pool(self._open, _close, load.connections, _alive)

    async def _open(self) -> Wire:
        return await asyncio.open_connection(self._host, self._port, **self._tls)

    async def open(self) -> None:
        return

    async def turn(self, turn: Turn) -> None:
        data = self._payload.fill(turn)
        await turn.ask("", lambda: self._exchange(data))

    async def _exchange(self, data: bytes) -> str:
        async with self._pool.connection(keep=self._keep) as (reader, writer):
            if data:
                writer.write(data)
                await writer.drain()
            if self._length is not None:
                await reader.readexactly(self._length)
            elif self._pattern:
                await self._until(reader, self._pattern)
        return ""

    @staticmethod
    async def _until(reader: asyncio.StreamReader, pattern: re.Pattern[bytes]) -> None:
        seen = bytearray()
        while not pattern.search(seen):
            chunk = await reader.read(_CHUNK)
            if not chunk or len(seen) > _MOST:
                raise asyncio.IncompleteReadError(bytes(seen), None)
            seen += chunk

    def kind(self, error: Exception) -> str:
        return error_kind(error)

    async def close(self) -> None:
        self._pool.close()
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop


def _alive(wire: Wire) -> bool:
    return not wire[0].at_eof() and not wire[1].is_closing()


def _close(wire: Wire) -> None:
    wire[1].transport.abort()
