"""A service that costs next to nothing, for measuring what loads it: python -m
benchmarks.traffic_service

`/fast` answers at once; `/slow` after 10 ms, every eighth time after 14 ms and every thirtieth
after 18 ms. So no percentile that is compared lies on an edge, and none is longer than twice the
mean: to those wrk adds requests that it has not sent (its correction for coordinated omission). It
prints its address and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n"


class Service(asyncio.Protocol):
    """HTTP/1.1 as far as a load without bodies needs it."""

    count = 0

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for request in requests:
            if request.startswith(b"GET /slow"):
                Service.count += 1
                asyncio.get_running_loop().call_later(delay(Service.count), self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(ANSWER)


def delay(number: int) -> float:
    """How long answer `number` of `/slow` takes, in seconds."""
    if number % 30 == 0:
        return 0.018
    return 0.014 if number % 8 == 0 else 0.01


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Service, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
