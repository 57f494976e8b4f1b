"""Traffic over a protocol of one's own: a line there, a line back."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from pydantic import Field

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.traffic.driver import Turn
from faultline.traffic.plugin import TrafficPlugin


class LinesParams(Params):
    """What is said, and to whom."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Name or address."""
    port: Annotated[int, Between(1, 65535)]
    """Port."""
    word: Annotated[str, Field(min_length=1, max_length=1000)] = "hello"
    """What is said."""


class Lines(TrafficPlugin[LinesParams]):
    """Each turn says a word and waits for the answer."""

    summary = "A line there, a line back"
    errors = (asyncio.IncompleteReadError,)
    example: ClassVar[dict[str, Any]] = {"word": "hello"}

    async def turn(self, turn: Turn) -> None:
        await turn.ask("line", self._exchange)

    async def _exchange(self) -> str:
        """Empty if the answer is good, else why it is not."""
        reader, writer = await asyncio.open_connection(self.params.host, self.params.port)
        try:
            writer.write(f"{self.params.word}\n".encode())
            answer = await reader.readuntil(b"\n")
        finally:
            writer.close()
        return "" if answer == b"yes\n" else "said no"

    @classmethod
    @contextmanager
    def target(cls) -> Iterator[Mapping[str, Any]]:
        """A server that says yes to everything."""

        class Answer(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                if self.rfile.readline():
                    self.wfile.write(b"yes\n")

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield {"port": server.server_address[1]}
            server.shutdown()
