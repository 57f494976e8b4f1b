"""One turn after the other or side by side, and how each request of them ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Self

from faultline.kernel.clock import now
from faultline.traffic.chance import Chance
from faultline.traffic.driver import Driver
from faultline.traffic.feed import Feeder
from faultline.traffic.kinds import NOT_SENT
from faultline.traffic.model import SECOND, Load
from faultline.traffic.schedule import Curve
from faultline.traffic.tally import Tally
from faultline.traffic.template import Row, Values

_NOBODY = -1
_LOOK = 0.05  # seconds between looks at how many users there should be
_TURN, _USER = 1, 2  # what draws are for


class Turn:
    """One turn under way; see driver.Turn."""

    __slots__ = (
        "_chance", "_due", "_number", "_row", "_sender", "_values", "begun", "failed", "user",
    )  # fmt: skip

    def __init__(self, sender: Sender, due: int, number: int, user: int, row: Row) -> None:
        self._sender, self.begun, self.user = sender, due, user
        self._due, self._number, self._row = due, number, row
        self._values: Values | None = None
        self._chance: Chance | None = None
        self.failed = False

    @property
    def chance(self) -> Chance:
        if self._chance is None:
            self._chance = Chance(self._sender.load.seed, self._number, _TURN)
        return self._chance

    @property
    def values(self) -> Values:
        if self._values is None:
            user = self._number if self.user == _NOBODY else self.user
            self._values = Values(self._row, self._number, user, self.chance)
        return self._values

    @property
    def over(self) -> bool:
        return self._sender.over

    async def ask(self, part: str, work: Callable[[], Awaitable[str]]) -> str:
        due, self._due = self._due or now(), 0
        kind = await self._sender.ask(part, due, work)
        self.failed = self.failed or bool(kind)
        return kind

    async def pause(self, nanoseconds: int) -> None:
        if nanoseconds:
            due = now() + nanoseconds
            await self._sender.sleep(nanoseconds / SECOND)
            self._due = due

    def whole(self, part: str, *, good: bool) -> None:
        tally = self._sender.tally
        tally.part(part).sent += 1
        tally.part_ended(part, "" if good else "failed", now() - self.begun)


class Sender:
    """Sends and tallies; `async with` opens and closes the connections of its driver."""

    def __init__(self, load: Load, driver: Driver) -> None:
        self.load = load
        self.tally = Tally()
        self.drained = False
        """Whether it ended since there are no more rows for turns."""
        self._driver = driver
        self._feeder = Feeder(load.feed, load.seed)
        self._timeout = load.timeout / SECOND
        self._expected = (TimeoutError, OSError, *driver.errors)
        self._waiting: dict[object, int] = {}  # when each request was due that is not answered
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = load.index
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        self.broken: asyncio.Future[None] = loop.create_future()
        """Fails with what is no answer of the network but a fault of ours."""

    async def __aenter__(self) -> Self:
        await self._driver.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Give up what is not answered yet and close."""
        self.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._driver.close()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent."""
        return self._ended.done()

    def end(self) -> None:
        """Send no more; what is under way goes on, pauses end."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until nothing more is to be sent."""
        await asyncio.wait({self._ended}, timeout=seconds)

    def waits(self) -> tuple[int, ...]:
        """How long each unanswered request has waited, from when it was due; nanoseconds."""
        at = now()
        return tuple(at - due for due in self._waiting.values())

    def fire(self, number: int, due: int) -> bool:
        """Begin one turn that was due at `due` without waiting for it; False: there are no more."""
        row = self._feeder.row(number)
        if row is None:
            self.drained = True
        elif len(self._tasks) >= self.load.in_flight:
            self.tally.failed(NOT_SENT)
        else:
            self._spawn(self._driver.turn(Turn(self, due, number, _NOBODY, row)))
        return not self.drained

    async def crowd(self, curve: Curve, start: int, end: int) -> None:
        """Keep as many users of the closed model as the curve says, until the end."""
        load = self.load
        users: dict[int, asyncio.Task[None]] = {}
        while now() < end and not self.over:
            wanted = round(curve.value(now() - start))
            for user in range(load.index, wanted, load.workers):
                if user not in users or users[user].done():
                    users[user] = self._spawn(self._user(user, curve, start, end))
            if curve.constant:
                break
            await self.sleep(_LOOK)

    async def _user(self, user: int, curve: Curve, start: int, end: int) -> None:
        """Turn after turn, as long as there should be so many users.

        After a failure there is a pause of about 0.1 s: a refused connection costs microseconds,
        and a loop of them would load nothing but this machine.
        """
        chance = Chance(self.load.seed, user, _USER)
        if self.load.think:  # not all at the same instant, then and ever after
            await self.sleep(chance.between(0, self.load.think / SECOND))
        while not self.over and (at := now()) < end and user < round(curve.value(at - start)):
            number, self._turns = self._turns, self._turns + self.load.workers
            row = self._feeder.row(number)
            if row is None:
                self.drained = True
                self.end()
                return
            turn = Turn(self, now(), number, user, row)
            await self._driver.turn(turn)
            if turn.failed:
                await self.sleep(chance.between(0.05, 0.15))
            await self._think(chance)

    async def _think(self, chance: Chance) -> None:
        load = self.load
        if load.think or load.think_most:
            most = max(load.think, load.think_most)
            await self.sleep(chance.between(load.think, most) / SECOND)

    def _spawn(self, work: Coroutine[object, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not self.broken.done():
            self.broken.set_exception(error)

    async def finish(self) -> None:
        """Wait until everything that was begun has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def ask(self, part: str, due: int, work: Callable[[], Awaitable[str]]) -> str:
        """Do one request and count it; returns '' or the kind of its failure."""
        request, tally = object(), self.tally
        self._waiting[request] = due
        tally.left(now() - due)
        if part:
            tally.part(part).sent += 1
        try:
            async with asyncio.timeout(self._timeout):
                kind = await work()
        except self._expected as error:
            kind = self._driver.kind(error)
        finally:
            del self._waiting[request]
        took = now() - due
        tally.ended(kind, took)
        if part:
            tally.part_ended(part, kind, took)
        return kind
