"""A small HTTP service that does real work: `python -m faultline.demo.service --port 8080`.

`/health` says that it is alive. `/work` reads one file of this Python's library, hashes it and
answers with what it found; requests go through the files one after the other, `/work/NAME` asks for
one. Standard library only; what it serves is listed at its start: no path of a request is opened.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import signal
import sys
import sysconfig
import time
from pathlib import Path

_LIMIT = 64 * 1024  # of a request's head and of its body
_IDLE = 75.0  # seconds a connection may stay open without a request
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class Answer(Exception):
    """An answer that ends the handling of a request."""

    def __init__(self, code: int, **body: object) -> None:
        super().__init__(code)
        self.code, self.body = code, body


def library() -> dict[str, Path]:
    """The modules of this Python's standard library that are single files, by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


class Service:
    """Answers requests on any number of connections."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        self._turn = itertools.cycle(files.values())
        self._began = time.monotonic()
        self._served = 0

    def _answer(self, method: str, target: str) -> Answer:
        path = target.partition("?")[0]
        if method not in ("GET", "HEAD"):
            return Answer(405, error=f"{method} is not possible here; GET is")
        if path == "/health":
            age = round(time.monotonic() - self._began, 3)
            return Answer(200, status="ok", seconds=age, served=self._served)
        if path == "/":
            return Answer(200, pages=["/health", "/work", "/work/NAME"], files=len(self._files))
        if path == "/work":
            return self._work(next(self._turn))
        name = path.removeprefix("/work/")
        if name != path and name in self._files:
            return self._work(self._files[name])
        return Answer(404, error=f"no page {path}")

    def _work(self, path: Path) -> Answer:
        data = path.read_bytes()
        return Answer(
            200,
            file=path.name,
            bytes=len(data),
            lines=data.count(b"\n"),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it (RFC 9112, persistent connections)."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            return  # the client is gone: nobody is left to answer
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        keep, head = False, False
        try:
            async with asyncio.timeout(_IDLE):
                method, target, keep = await _request(reader)
            head = method == "HEAD"
            self._served += 1
            answer = self._answer(method, target)
        except Answer as refusal:
            answer = refusal
        body = json.dumps(answer.body).encode() + b"\n"
        lines = (
            f"HTTP/1.1 {answer.code} {_REASONS[answer.code]}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"Connection: {'keep-alive' if keep else 'close'}",
        )
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else body))
        await writer.drain()
        return keep


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, bool]:
    """The method, the target and whether the connection stays open; raises Answer 400."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise Answer(400, error="the head is too long") from error
    first, *rest = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Answer(400, error="not a request of HTTP/1")
    pairs = [line.partition(":") for line in rest if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > _LIMIT or "transfer-encoding" in headers:
        raise Answer(400, error="this body is not accepted")
    await reader.readexactly(int(length))
    wish = headers.get("connection", "").lower()
    keep = wish != "close" and (words[2] == "HTTP/1.1" or wish == "keep-alive")
    return words[0], words[1], keep


async def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; says where on standard output (port 0: a free one)."""
    service = Service(library())
    server = await asyncio.start_server(service.connection, host, port, limit=_LIMIT, backlog=1024)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    where = server.sockets[0].getsockname()
    sys.stdout.write(f"listening on http://{where[0]}:{where[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faultline.demo.service", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: a free one")
    chosen = parser.parse_args(arguments)
    asyncio.run(serve(chosen.host, chosen.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
