"""Several engines, their hosts and one store in one process, under a scheduler with a seed.

The engines are the real ones: `Manager`, `Runs`, `Driver`, `Renewal`. In place of their threads
stands a queue of events; in place of the host a `World`; between them and the store a `Wire`.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from tests.engine.judge import Judge
from tests.engine.replica import Replica
from tests.engine.shelf import Connection, Shelf
from tests.engine.wire import Killed, Weather
from tests.engine.world import Odds, World, WorldDoer

from faultline.api.run import Environment, Run
from faultline.engine import actions
from faultline.engine.model import SECOND, Done
from faultline.engine.ports import Tools
from faultline.kernel import clock
from faultline.stores import sql
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
        self.connection.execute("PRAGMA synchronous = OFF")

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


def reboot(cluster: Cluster, host: Host) -> None:
    """Every engine of a host ends with it; the keepers' work is done at boot."""
    for replica in cluster.replicas:
        if replica.host is host:
            replica.kill()
    host.reboot()
