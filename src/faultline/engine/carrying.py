"""Carries out one run, a step at a time: asks the reconciler, writes down what it decides, begins
what it wants.

No thread, no sleep and no clock of its own, so a simulation can stop it anywhere. Written first,
done second: an action is in the store before it is begun, so the next engine finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from faultline.api.run import Phase, Point, Run, RunStatus, Stage
from faultline.api.traffic import TrafficSecond
from faultline.api.watching import TargetSecond
from faultline.engine import actions, watching
from faultline.engine.model import SECOND, Action, Facts, Now, Result
from faultline.engine.ports import Tools
from faultline.engine.reconcile import reconcile
from faultline.stores.model import Filter, Stale, Store, StoreFailed

_log = logging.getLogger(__name__)

Listener = Callable[[Run, Point], None]
"""Called for everything that happens, as it happens, in the thread of the driver."""
Start = Callable[[Run, Action], None]
"""Begins an action and returns at once; its result comes back by `learn`."""

LONGEST = SECOND
"""Nanoseconds after which wishes of others and traffic are looked for, whatever happens."""

AWAY = 60 * SECOND
"""Nanoseconds for which a store that cannot be reached is waited for, beyond what faults last."""


class Carrying:
    """One run that is being carried out. Used by one thread."""

    def __init__(
        self, store: Store, name: str, tools: Tools, start: Start, listener: Listener | None = None
    ) -> None:
        self.store = store
        self.name = name
        self.tools = tools
        self.listener = listener
        self.sure: Callable[[], bool] = lambda: True
        """Whether nobody else can be carrying out the run by now; raises Conflict if somebody
        does."""
        self.halted: Callable[[], str] = str  # why everything on this host is to stop
        self.interrupt = ""
        self.patience = LONGEST
        """Nanoseconds after which it looks for the wishes of others if nothing else is to be done.
        Who calls `nudge` when there are any may set it higher."""
        self._start = start
        self._pending: list[Result] = []
        self._flying: set[str] = set()
        self._told = 0
        self._looked: int | None = None
        self._away: int | None = None  # since when the store is out of reach
        self._anew = True  # nothing was written here yet
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The run as it was after the latest step."""
        if self._run is None:
            self._run = self.store.get(Run, self.name)
            self._told = len(self._run.status.timeline)
        return self._run

    @property
    def ended(self) -> bool:
        return self.run.status.phase is Phase.ENDED

    @property
    def version(self) -> int:
        """That of the run as it is known here; 0 before it is."""
        return 0 if self._run is None else self._run.metadata.resource_version

    def learn(self, results: Iterable[Result]) -> None:
        """What came of actions; it counts from the next step on."""
        self._pending += results

    def forget(self, action: Action) -> None:
        """It was not begun after all: a step may want it again. Safe in threads."""
        self._flying.discard(action.id)

    def nudge(self) -> None:
        """Read the run anew at the next step: something was written, or halted."""
        self._looked = None

    def step(self) -> int:
        """Decide once and begin what is wanted; when to step again at the latest, by
        CLOCK_BOOTTIME.

        While the store cannot be reached nothing is begun. Raises StoreFailed when that lasts, and
        Conflict or Fenced if another engine has taken the run over.
        """
        apart = 0 if self.tools.instant is None else self._apart()
        try:
            wake_ns = self._step()
        except StoreFailed as error:
            return self._bear(error) - apart
        self._away = None
        return wake_ns - apart

    def _apart(self) -> int:
        """By how much the clock that the run is kept by is ahead of that of this machine."""
        return actions.now(self.tools).boot_ns - actions.instant().boot_ns

    def _step(self) -> int:
        now, run = actions.now(self.tools), self.run
        facts = Facts(
            tuple(self._pending), self._traffic(run), self.interrupt,
            targets=self._targets(run), halted=self.halted(),
        )  # fmt: skip
        run, wanted, wake_ns = self._decide(self._fresh(run, now), facts, now)
        self._run, self._pending = run, []
        if self.tools.heard is not None:
            self.tools.heard.put(run.spec.signals)
        self._tell(run)
        self._flying.intersection_update([action.id for action in wanted])
        begun = [action for action in wanted if action.id not in self._flying]
        if begun and not self.sure():
            return now.boot_ns + LONGEST  # its lease may be renewed by then
        for action in begun:
            self._flying.add(action.id)
            self._start(run, action)
        longest = now.boot_ns + (LONGEST if _grows(run) else self.patience)
        return longest if wake_ns is None else min(longest, wake_ns)

    def _bear(self, error: StoreFailed) -> int:
        """The store is away: wait for it as long as a fault may act, and a little longer."""
        now, self._looked = actions.now(self.tools).boot_ns, None
        if self._away is None:
            self._away = now
            _log.warning("run %s: nothing is begun meanwhile: %s", self.name, error.message)
        faults = self._run.status.faults if self._run is not None else []
        acting = [f.deadline_ns or 0 for f in faults if f.stage is not Stage.ENDED]
        if now >= max([self._away + AWAY, *(deadline + AWAY for deadline in acting)]):
            raise error
        return now + LONGEST

    def close(self) -> None:
        """Measure no more."""
        self.tools.prober.close()
        self.tools.traffic.close()
        if self.tools.watching is not None:
            self.tools.watching.stop()
        if self.tools.members is not None:
            self.tools.members.close()

    # ------------------------------------------------------------------ one step

    def _decide(
        self, run: Run, facts: Facts, now: Now
    ) -> tuple[Run, tuple[Action, ...], int | None]:
        """Decide and write it down; if somebody else wrote the run meanwhile, decide again."""
        while True:
            resumed = self._anew and run.status.started is not None
            decision = reconcile(run, replace(facts, resumed=resumed), now)
            if not _differ(decision.status, run.status):
                return run, decision.actions, decision.wake_ns
            try:
                written = self.store.write_status(
                    run.model_copy(update={"status": decision.status})
                )
            except Stale:
                run = self._newer(run)
                continue
            self._anew = False
            return written, decision.actions, decision.wake_ns

    def _fresh(self, run: Run, now: Now) -> Run:
        """The run as it is in the store, which is looked at after a while, or when nudged."""
        looked = self._looked  # whoever nudges may take it away meanwhile
        if looked is not None and now.boot_ns - looked < self.patience:
            return run
        self._looked = now.boot_ns
        found = self.store.summaries(Run, Filter(names=(self.name,)), 1)
        if found and found[0].version == run.metadata.resource_version:
            return run
        read = self.store.get(Run, self.name)
        return read if read.metadata.resource_version > run.metadata.resource_version else run

    def _newer(self, run: Run) -> Run:
        """The run after somebody else wrote it. What was begun here must not be forgotten because
        of a reader that lags behind.
        """
        read = self.store.get(Run, self.name)
        if read.metadata.resource_version <= run.metadata.resource_version:
            raise StoreFailed(f"run {self.name}: the store has not read its latest version yet")
        return read

    def _traffic(self, run: Run) -> dict[str, tuple[TrafficSecond, ...]]:
        found: dict[str, tuple[TrafficSecond, ...]] = {}
        for one in run.status.traffic:
            if one.started is not None:
                last = one.seconds[-1].at if one.seconds else 0.0
                found[one.name] = tuple(self.tools.traffic.seconds(one.name, last))
        return found

    def _targets(self, run: Run) -> dict[str, tuple[TargetSecond, ...]]:
        return {} if self.tools.watching is None else watching.news(run, self.tools.watching)

    def _tell(self, run: Run) -> None:
        for point in run.status.timeline[self._told :]:
            if self.listener is not None:
                self.listener(run, point)
        self._told = len(run.status.timeline)


def _differ(new: RunStatus, old: RunStatus) -> bool:
    """Whether more has changed than the hour: that alone is not worth a write."""
    return new != old and new.model_copy(update={"clock_ns": old.clock_ns}) != old


def _grows(run: Run) -> bool:
    """Whether seconds of traffic or of targets come in by themselves."""
    series = (*run.status.traffic, *run.status.targets)
    return any(one.started is not None and one.ended is None for one in series)
