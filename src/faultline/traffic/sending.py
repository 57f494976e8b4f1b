"""One HTTP request after the other or side by side, and how each ended.

aiohttp without a connection limit: a pool's ceiling would quietly become that of the load.
"""

from __future__ import annotations

import asyncio
import errno
import random
import ssl
from collections.abc import Callable, Coroutine
from typing import Self

import aiohttp

from faultline.kernel.clock import now
from faultline.traffic.histogram import Histogram
from faultline.traffic.model import SECOND, Load, Tick

NOT_SENT = "not sent"  # the generator's own bound, not an answer of the target
_BY_ERRNO = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.EADDRNOTAVAIL: "no local port",
    errno.EMFILE: "no descriptors",
    errno.ENFILE: "no descriptors",
    errno.EPERM: "not permitted",
}
_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "name not found"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "tls"),
    (aiohttp.ServerDisconnectedError, "disconnected"),
    (aiohttp.ClientPayloadError, "cut off"),
)


def error_kind(error: Exception) -> str:
    """A short stable name for how a request failed."""
    for classes, name in _BY_CLASS:
        if isinstance(error, classes):
            return name
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    return type(error).__name__


class Tally:
    """What happened in the current second."""

    def __init__(self) -> None:
        self.sent = self.ok = self.lag_max = 0
        self.errors: dict[str, int] = {}
        self.latency = Histogram()

    def failed(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def cut(self, index: int, until: int, waiting: tuple[int, ...]) -> Tick:
        """The second as data; counting starts again from nought."""
        tick = Tick(
            index=index,
            until=until,
            sent=self.sent,
            ok=self.ok,
            errors=self.errors,
            waiting=waiting,
            latency=self.latency.encode() if self.latency.count else "",
            lag_max=self.lag_max,
        )
        self.sent = self.ok = self.lag_max = 0
        self.errors = {}
        self.latency.clear()
        return tick


class Sender:
    """Sends requests and tallies them; `async with` opens and closes its connections."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.tally = Tally()
        self._due: dict[object, int] = {}  # of each request that is not answered
        self._tasks: set[asyncio.Task[object]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what is no answer of the network but a fault of ours."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self.load.verify)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.load.timeout / SECOND),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Give up what is not answered yet and close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    def waits(self) -> tuple[int, ...]:
        """How long each unanswered request has waited, from when it was due; nanoseconds."""
        at = now()
        return tuple(at - due for due in self._due.values())

    def fire(self, due: int) -> None:
        """Send one request that was due at `due` without waiting for it."""
        if len(self._tasks) >= self.load.in_flight:
            self.tally.failed(NOT_SENT)
        else:
            self._spawn(self.send(due))

    def repeat(self, end: int, ended: Callable[[], bool]) -> None:
        """Begin one client of the closed model: its next request leaves when the last is answered.

        After a failure it pauses for about 0.1 s: a refused connection costs microseconds, and a
        loop of them would load nothing but this machine.
        """

        async def client() -> None:
            while now() < end and not ended():
                if await self.send(now()):
                    await asyncio.sleep(random.uniform(0.05, 0.15))

        self._spawn(client())

    def _spawn(self, work: Coroutine[object, None, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not self.broken.done():
            self.broken.set_exception(error)

    async def finish(self) -> None:
        """Wait until everything that was begun has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def send(self, due: int) -> str:
        """Send one request and read all of its answer; returns '' or the kind of its failure.

        A request that timed out counts in the latency with what it waited: without it an outage
        would look fast. Other failures are counted by kind alone.
        """
        request = object()
        self._due[request] = due
        self.tally.sent += 1
        self.tally.lag_max = max(self.tally.lag_max, now() - due)
        try:
            kind = await self._exchange()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = error_kind(error)
        finally:
            del self._due[request]
        if kind in ("", "timeout"):
            self.tally.latency.record(now() - due)
        if kind:
            self.tally.failed(kind)
        else:
            self.tally.ok += 1
        return kind

    async def _exchange(self) -> str:
        assert self._session is not None
        load = self.load
        async with self._session.request(
            load.method,
            load.url,
            headers=load.headers,
            data=load.body.encode() or None,
            allow_redirects=False,
        ) as answer:
            async for _ in answer.content.iter_any():
                pass
        return f"status {answer.status}" if answer.status >= 400 else ""
