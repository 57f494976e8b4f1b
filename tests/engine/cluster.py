"""Several engines, their hosts and one store in one process, under a scheduler with a seed.

The engines are the real ones: `Manager`, `Runs`, `Driver`, `Renewal`. In place of their threads
stands a queue of events; in place of the host a `World`; between them and the store a `Wire`.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from tests.engine.judge import Judge
from tests.engine.shelf import Connection, Shelf
from tests.engine.wire import Killed, Weather, Wire
from tests.engine.world import Odds, World, WorldDoer

from faultline.api.run import Environment, Point, Run
from faultline.engine import actions, unattended
from faultline.engine.driver import Driver
from faultline.engine.model import SECOND, Action, Do, Done, Result
from faultline.engine.ports import Tools
from faultline.engine.runs import Runs
from faultline.engine.unattended import Manager
from faultline.kernel import clock
from faultline.stores import renewal, sql
from faultline.stores.sql import SqlStore
from faultline.stores.sqlite import SqliteDatabase

T = TypeVar("T")
DEEPEST = 6
"""Calls that wait within each other; deeper ones return at once."""


class Doer(WorldDoer):
    """What was done is noted with its run."""

    def do(self, run: Run, node: str, number: int) -> Done:
        return super().do(run, f"{run.metadata.name}:{node}", number)


class Host(World):
    """One machine: its journal and keepers outlive every engine on it."""

    def tools(self) -> Tools:
        return replace(super().tools(), doer=Doer(self), environment=self._environment)

    def _environment(self) -> Environment:
        return Environment(hostname=f"host-{self.boot // 1000}", boot_id=self.now().boot_id)


class Database(SqliteDatabase):
    """The real database in the place of a server: several engines, and a clock of its own."""

    shared = True
    cluster: Cluster

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._db.execute("PRAGMA synchronous = OFF")

    def clock(self) -> tuple[str, float]:
        return "server", self.cluster.ns / SECOND


class Shared(SqlStore):
    """One connection of several to the same database."""

    def close(self) -> None:
        """The others go on with it."""


@dataclass(order=True)
class Event:
    at: int
    number: int
    act: Callable[[], None] = field(compare=False)
    replica: Replica | None = field(compare=False, default=None)
    life: int = field(compare=False, default=0)


class Cluster:
    """The scheduler: one thing at a time, in an order that follows from the seed alone."""

    def __init__(
        self, source: random.Random, hosts: int, monkeypatch: pytest.MonkeyPatch, folder: Path,
        odds: Odds | None = None,
    ) -> None:  # fmt: skip
        self.random = source
        self.folder = folder
        self.ns = 0
        self.calm = False
        self.depth = 0
        self.events: list[Event] = []
        self.numbers = 0
        self.hosts = [
            Host(source, odds or Odds(), (1000 + 500 * n) * SECOND, boot=1000 * n + 1)
            for n in range(hosts)
        ]
        self.here = self.hosts[0]
        self.shelf = Shelf(lambda: self.ns / SECOND, lambda: 1e9 + self.ns / SECOND)
        self.database: Database | None = None
        self.replicas: list[Replica] = []
        self.hang = self.late = self.twice = 0.0
        self.judge = Judge(self)
        monkeypatch.setattr(actions, "instant", lambda: self.here.now())  # noqa: PLW0108 (another host each time)
        monkeypatch.setattr(clock, "now", lambda: self.here.ns)
        monkeypatch.setattr(clock, "boot_id", lambda: self.here.now().boot_id)

    def add(self, host: int, weather: Weather) -> Replica:
        made = Replica(self, f"engine-{len(self.replicas)}", self.hosts[host], weather)
        self.replicas.append(made)
        made.start()
        return made

    def close(self) -> None:
        """Nothing of it goes on."""
        for replica in self.replicas:
            replica.kill()
        self.events.clear()
        if self.database is not None:
            self.database.close()

    # ------------------------------------------------------------------ chance

    def chance(self, odds: float) -> bool:
        return odds > 0 and not self.calm and self.random.random() < odds

    def choice(self, items: list[T]) -> T:
        return self.random.choice(items)

    # ------------------------------------------------------------------ time

    def after(self, seconds: float, act: Callable[[], None], of: Replica | None = None) -> None:
        self.numbers += 1
        at = self.ns + int(seconds * SECOND)
        heapq.heappush(self.events, Event(at, self.numbers, act, of, of.life if of else 0))

    def go(self, until: Callable[[], bool], longest: float) -> None:
        """Let things happen until something is so; at most so many seconds."""
        last = self.ns + int(longest * SECOND)
        while not until():
            look = self.ns + SECOND // 2  # looking costs more than what happens
            while self.ns < look:
                assert self.events, "nobody does anything any more"
                assert self.events[0].at <= last, "this does not come to an end"
                self._next()

    def meanwhile(self, seconds: float, going: Callable[[], bool]) -> None:
        """Others act while one waits: the same loop, within its call."""
        if self.depth >= DEEPEST:
            return
        until, here = self.ns + int(seconds * SECOND), self.here
        self.depth += 1
        while going() and self.events and self.events[0].at <= until:
            self._next()
        self.depth -= 1
        self.here = here
        if going():
            self.pass_to(until)

    def pass_to(self, ns: int) -> None:
        """Time passes on all hosts."""
        if ns > self.ns:
            for host in self.hosts:
                host.pass_time(ns - self.ns)
            self.ns = ns

    def _next(self) -> None:
        event = heapq.heappop(self.events)
        self.pass_to(event.at)
        of = event.replica
        if of is not None:
            if of.life != event.life:
                return
            if of.frozen_for > 0:
                self.after(of.frozen_for, event.act, of)
                return
            self.here = of.host
        with suppress(Killed):
            event.act()

    def fence(self, run: str) -> int:
        """The number of whoever holds a run, as the store has it."""
        if self.database is not None:
            return int(self.database.rows("SELECT fence FROM leases WHERE name = ?", run)[0][0])
        return self.shelf.taken["Run", run].fence

    def connect(self) -> Any:
        """The store, as each engine has it."""
        return Connection(self.shelf) if self.database is None else Shared(self.database)

    def on_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Use the real store instead of the one in memory; its time is that of the scheduler."""
        self.database = Database(self.folder / "resources.db")
        self.database.cluster = self
        wall = SimpleNamespace(time=self.shelf.wall, monotonic=lambda: self.ns / SECOND)
        monkeypatch.setattr(sql, "time", wall)
        ids = SimpleNamespace(uuid4=lambda: uuid.UUID(int=self.random.getrandbits(128)))
        monkeypatch.setattr(sql, "uuid", ids)

    # ------------------------------------------------------------------ what is written

    def created(self, resource: T) -> T:
        return self.judge.created(resource)

    def wrote(self, resource: T) -> T:
        return self.judge.wrote(resource)


@dataclass
class Task:
    """What would be a thread: the manager's, or that of one run."""

    steps: Generator[Driver | None]
    driver: Driver | None = None
    busy: bool = False


class Held(Runs):
    """The real Runs of an engine; only what it stands on is made up."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.store = Wire(replica.cluster.connect(), replica)  # type: ignore[assignment]
        self._renewal = renewal.Renewal(self.store)
        self._renewal.holder = f"{replica.name}/{replica.life}/{replica.cluster.numbers}"
        self._renewal.begin = lambda: replica.keep(self._renewal)
        self._locks = replica.cluster.folder / f"host-{replica.host.boot // 1000}"
        self._tools = replica.host.tools
        self.check_fault = lambda fault, params: []

    def halted(self) -> str:
        return self.replica.halted

    def check_halt(self) -> None:
        """Nobody makes a run here while everything is halted."""

    def driver(self, name: str, listener: Any = None) -> Driver:
        made = super().driver(name, listener)
        made.begin = Beginning(self.replica, self._renewal, name).begin
        return made


@dataclass
class Beginning:
    """How actions are begun in place of threads: later, slowly, and told twice or never."""

    replica: Replica
    renewal: renewal.Renewal
    run: str

    def begin(
        self, action: Action, work: Callable[[], Result | None], tell: Callable[[Any], None]
    ) -> None:
        cluster, replica = self.replica.cluster, self.replica
        took = cluster.choice([0.0, 0.001, 0.1, 2.0])
        begins = took if cluster.chance(cluster.late) else cluster.choice([0.0, 0.0, 0.002])
        bound = action.do not in (Do.TASK, Do.CANCEL)
        hangs = bound and cluster.chance(cluster.hang)

        def deliver(result: Result | None) -> None:
            tell(result)

        def act() -> None:
            result = work()
            if result is not None:
                cluster.judge.acted(self.run, action, self.renewal.lease(Run, self.run))
            if hangs:
                return
            cluster.after(max(0.0, took - begins), lambda: deliver(result), replica)
            if cluster.chance(cluster.twice):
                cluster.after(took + 0.5, lambda: deliver(result), replica)

        cluster.after(begins, act, replica)


class Replica:
    """One engine: a process that can be killed, frozen and cut off from its store."""

    def __init__(self, cluster: Cluster, name: str, host: Host, weather: Weather) -> None:
        self.cluster, self.name, self.host, self.weather = cluster, name, host, weather
        self.life = 0
        self.tasks: list[Task] = []
        self.halted = ""
        self._frozen = self._cut = 0

    def start(self) -> None:
        self.manager = Manager(lambda: Held(self), self._listen)
        self.manager.begun = lambda name: self._spawn(self.manager.carry(name))
        self.manager.ready = self._ready
        self._spawn(self.manager.looks())

    def _ready(self, driver: Driver) -> None:
        driver.wake = self.wake

    def _listen(self, run: Run, point: Point) -> None:
        self.cluster.judge.told(run, point)

    # ------------------------------------------------------------------ its threads

    def _spawn(self, steps: Generator[Any]) -> None:
        task = Task(steps)
        self.tasks.append(task)
        self.cluster.after(0, lambda: self._step(task), self)

    def _step(self, task: Task) -> None:
        driver = task.driver
        if task.busy or task not in self.tasks:
            return
        if driver is not None:
            if not driver.called and driver.wake_ns > self.host.ns:
                return  # it was woken before, and sleeps again
            driver.rest()
        task.busy, life = True, self.life
        try:
            task.driver = next(task.steps)
        except StopIteration:
            self.tasks.remove(task)
            return
        finally:
            task.busy = False
        if self.life == life:
            self._rest(task)

    def _rest(self, task: Task) -> None:
        seconds = unattended.LOOK
        if task.driver is not None:
            left = (task.driver.wake_ns - self.host.ns) / SECOND
            seconds = 0.0 if task.driver.called else max(0.0, left)
        self.cluster.after(seconds, lambda: self._step(task), self)

    def wake(self) -> None:
        for task in self.tasks:
            if task.driver is not None and task.driver.called:
                self.cluster.after(0, lambda task=task: self._step(task), self)

    def keep(self, leases: renewal.Renewal) -> None:
        """In place of the thread that renews leases."""

        def renew() -> None:
            leases.renew()
            self.keep(leases)

        self.cluster.after(leases.ttl / 3, renew, self)

    # ------------------------------------------------------------------ what happens to it

    @property
    def frozen_for(self) -> float:
        return max(0, self._frozen - self.cluster.ns) / SECOND

    @property
    def is_cut(self) -> bool:
        return self._cut > self.cluster.ns

    def freeze(self, seconds: float) -> None:
        self._frozen = max(self._frozen, self.cluster.ns + int(seconds * SECOND))

    def cut_off(self, seconds: float) -> None:
        self._cut = self.cluster.ns + int(seconds * SECOND)

    def kill(self) -> None:
        """Its threads are gone at once; another engine is started in its place."""
        self.life += 1
        self._frozen = 0
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            if not task.busy:  # one that waits in a call ends when it comes back
                with self._at_home(), suppress(Killed):
                    task.steps.close()
        self.cluster.after(self.cluster.choice([0.1, 2.0, 20.0]), self.start, self)

    def stop(self) -> None:
        """It is told to end: it leaves its runs to the others, and is started again."""
        life = self.life
        with self._at_home(), suppress(Killed):
            for task in [each for each in self.tasks if each.driver is not None]:
                self._end(task)
            self.manager.stop()
            for task in list(self.tasks):
                self._end(task)
        if self.life == life:
            self.kill()

    def _end(self, task: Task) -> None:
        if not task.busy and task in self.tasks:
            task.busy = True
            self.tasks.remove(task)
            task.steps.close()

    @contextmanager
    def _at_home(self) -> Iterator[None]:
        here, self.cluster.here = self.cluster.here, self.host
        try:
            yield
        finally:
            self.cluster.here = here


def reboot(cluster: Cluster, host: Host) -> None:
    """Every engine of a host ends with it; the keepers' work is done at boot."""
    for replica in cluster.replicas:
        if replica.host is host:
            replica.kill()
    host.reboot()
