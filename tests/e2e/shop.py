"""A service with a standard of its own: `python shop.py PORT CORE [TIRED]`.

Each request costs 6 ms of processor time, one after the other; one that takes longer than 100 ms is
slow, and one whose client has gone is not worked on. `/metrics` counts all and the slow ones. With
TIRED it stays slow for so many seconds after a slow request: a service that does not get well by
itself at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

COST, SLOW = 0.006, 0.1


class Shop:
    def __init__(self, tired: float) -> None:
        self.tired, self.until = tired, 0.0
        self.ok = self.slow = 0
        self.queue: asyncio.Queue[tuple[float, asyncio.Future[int], asyncio.StreamReader]] = (
            asyncio.Queue()
        )

    async def work(self) -> None:
        while True:
            came, answer, client = await self.queue.get()
            if client.at_eof():
                answer.set_result(499)
                self.slow += 1
                continue
            if time.monotonic() < self.until:
                await asyncio.sleep(0.15)
            end = time.thread_time() + COST
            while time.thread_time() < end:
                pass
            if time.monotonic() - came > SLOW:
                self.slow += 1
                self.until = time.monotonic() + self.tired
            self.ok += 1
            if not answer.done():
                answer.set_result(200)
            await asyncio.sleep(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1]
                code, body = 200, b"ok\n"
                if path == b"/metrics":
                    text = f"shop_ok_total {self.ok}\nshop_slow_total {self.slow}\n"
                    body = text.encode()
                else:
                    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                    self.queue.put_nowait((time.monotonic(), answer, reader))
                    code = await answer
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s"
                    % (code, len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


async def main() -> None:
    port, core = int(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, {core})
    shop = Shop(float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
    server = await asyncio.start_server(shop.serve, "127.0.0.1", port)
    print("ready", flush=True)
    async with server, asyncio.TaskGroup() as group:
        group.create_task(shop.work())
        group.create_task(server.serve_forever())


asyncio.run(main())
