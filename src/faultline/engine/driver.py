"""Drives runs: asks the reconciler, writes down what it decides, carries it out, and sleeps until
it matters.

Written first, done second: an action is in the store before it is started, so the next engine finds
it. One engine per run, by a lock that the kernel releases when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from faultline.api.run import Phase, Point, Run, RunStatus
from faultline.api.traffic import TrafficSecond
from faultline.api.watching import TargetSecond
from faultline.engine import actions, watching
from faultline.engine.interrupt import stopping
from faultline.engine.model import SECOND, Action, Facts, Now, Result
from faultline.engine.ports import Tools
from faultline.engine.reconcile import reconcile
from faultline.errors import Conflict
from faultline.stores.model import Filter, Stale, Store

Listener = Callable[[Run, Point], None]
"""Called for everything that happens, as it happens, in the thread of the driver."""

LONGEST_SLEEP = 1.0
"""Seconds after which the driver looks for wishes of others and for traffic, whatever happens."""


class Driver:
    """Carries out one run. `drive` returns when the run has ended."""

    def __init__(
        self, store: Store, name: str, tools: Tools, locks: Path, listener: Listener | None = None
    ) -> None:
        self.store = store
        self.name = name
        self.tools = tools
        self.locks = locks
        self.listener = listener
        self.sure: Callable[[], bool] = lambda: True
        """Whether nobody else can be carrying out the run by now."""
        self.halted: Callable[[], str] = str  # why everything on this host is to stop
        self.interrupt = ""
        self._results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        self._pending: list[Result] = []
        self._flying: set[str] = set()
        self._told = 0
        self._looked = 0.0
        self.patience = LONGEST_SLEEP
        """Seconds after which it looks for the wishes of others if nothing else is to be done. Who
        calls `nudge` when there are any may set it higher."""

    def nudge(self) -> None:
        """Look at once: something was written, or halted. Safe in threads."""
        self._looked = 0.0
        self._results.put(None)

    def stop(self, why: str) -> None:
        """Abort: undo everything, then return from `drive`. Safe in signal handlers and threads."""
        self.interrupt = self.interrupt or why
        self._results.put(None)

    def drive(self) -> Run:
        """Go on with the run until it has ended."""
        with self._only_one(), stopping(self.stop):
            run = self.store.get(Run, self.name)
            self._told = len(run.status.timeline)
            resumed = run.status.started is not None
            try:
                while run.status.phase is not Phase.ENDED:
                    run = self._once(run, resumed)
                    resumed = False
            finally:
                self.tools.prober.close()
                self.tools.traffic.close()
                if self.tools.watching is not None:
                    self.tools.watching.stop()
            return run

    # ------------------------------------------------------------------ one look

    def _once(self, run: Run, resumed: bool) -> Run:
        facts = Facts(
            tuple(self._pending), self._traffic(run), self.interrupt, resumed, self._targets(run),
            self.halted(),
        )  # fmt: skip
        now = actions.instant()
        run, wanted, wake_ns = self._decide(self._fresh(run), facts, now)
        self._pending = []
        if self.tools.heard is not None:
            self.tools.heard.put(run.spec.signals)
        self._tell(run)
        begun = [action for action in wanted if action.id not in self._flying]
        if begun and not self.sure():
            raise Conflict(
                f"run {self.name} may have been taken over by another engine",
                holder=self.name,
                hint="the store was not reached in time; the other engine goes on with the run",
            )
        for action in begun:
            self._start(run, action)
        self._flying &= {action.id for action in wanted}
        if run.status.phase is not Phase.ENDED:
            self._sleep(run, wake_ns)
        return run

    def _decide(
        self, run: Run, facts: Facts, now: Now
    ) -> tuple[Run, tuple[Action, ...], int | None]:
        """Decide and write it down; if somebody else wrote the run meanwhile, decide again."""
        while True:
            decision = reconcile(run, facts, now)
            if not _differ(decision.status, run.status):
                return run, decision.actions, decision.wake_ns
            try:
                written = self.store.write_status(
                    run.model_copy(update={"status": decision.status})
                )
            except Stale:
                run = self.store.get(Run, self.name)
                continue
            return written, decision.actions, decision.wake_ns

    def _fresh(self, run: Run) -> Run:
        """The run as it is in the store, which is looked at once a second, or when nudged."""
        if time.monotonic() - self._looked < LONGEST_SLEEP:
            return run
        self._looked = time.monotonic()
        found = self.store.summaries(Run, Filter(names=(self.name,)), 1)
        if found and found[0].version == run.metadata.resource_version:
            return run
        return self.store.get(Run, self.name)

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

    def _start(self, run: Run, action: Action) -> None:
        """In a thread of its own: an action that hangs must not hold up an undo."""
        self._flying.add(action.id)

        def work() -> None:
            self._results.put(actions.carry_out(run, action, self.tools))

        threading.Thread(target=work, name=f"faultline {action.id}", daemon=True).start()

    def _sleep(self, run: Run, wake_ns: int | None) -> None:
        left = LONGEST_SLEEP if _grows(run) else self.patience
        if wake_ns is not None:
            left = min(left, max(0.0, (wake_ns - actions.instant().boot_ns) / SECOND))
        deadline = time.monotonic() + left
        while True:
            try:
                result = self._results.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            if result is not None:
                self._pending.append(result)
            deadline = 0.0  # take what is there, then go on

    # ------------------------------------------------------------------ one engine

    @contextmanager
    def _only_one(self) -> Generator[None]:
        self.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.locks / f"{self.name}.run"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise Conflict(
                f"run {self.name} is being carried out by process {holder}",
                holder=self.name,
                hint=f"follow it with `faultline watch`, or abort it: faultline abort {self.name}",
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            yield
        finally:
            os.close(descriptor)


def _differ(new: RunStatus, old: RunStatus) -> bool:
    """Whether more has changed than the hour: that alone is not worth a write."""
    return new != old and new.model_copy(update={"clock_ns": old.clock_ns}) != old


def _grows(run: Run) -> bool:
    """Whether seconds of traffic or of targets come in by themselves."""
    series = (*run.status.traffic, *run.status.targets)
    return any(one.started is not None and one.ended is None for one in series)
