"""One engine of a cluster: the real manager, runs and drivers, with events in place of threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.engine.wire import Killed, Weather, Wire

from faultline.api.run import Point, Run
from faultline.engine import unattended
from faultline.engine.driver import Driver
from faultline.engine.model import SECOND, Action, Do, Result
from faultline.engine.runs import Runs
from faultline.engine.unattended import Manager
from faultline.stores import renewal

if TYPE_CHECKING:
    from tests.engine.cluster import Cluster, Host


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
