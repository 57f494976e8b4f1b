"""The unattended engine of one store: keeps its schedules, and carries out its runs.

It keeps nothing in memory that counts: killed and started again, it finds in the store what is to
be done. A run is carried out by whoever holds its lock, so several engines and a person at a
terminal never carry out the same one.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, suppress

from faultline.api.run import ENGINE, OPERATOR
from faultline.engine import actions
from faultline.engine.crew import Crew
from faultline.engine.driver import Driver, Listener
from faultline.engine.model import SECOND
from faultline.engine.runs import Runs
from faultline.engine.schedules import Schedules
from faultline.errors import Bug, Conflict, FaultlineError, Halted, UnknownName
from faultline.stores.model import Filter, StoreFailed, Summary

LOOK = 1.0
"""Seconds between two looks at the store."""
GRACE = 5.0
"""Seconds in which whoever made a run may begin it himself."""
PATIENCE = 30 * SECOND
"""Nanoseconds after which a run is looked at even if nothing happened."""
AGAIN = 5.0
"""Seconds before a run that somebody else carries out, or that could not be, is tried again."""

_log = logging.getLogger(__name__)


def takes_of_host(run: Summary) -> bool | None:
    """An engine of a host leaves the runs of an operator alone."""
    return False if run.labels.get(ENGINE) == OPERATOR else None


class Manager:
    """Carries out what is in one store until it is stopped."""

    def __init__(
        self,
        open_runs: Callable[[], AbstractContextManager[Runs]],
        listener: Listener | None = None,
        at_once: int = 1000,
        takes: Callable[[Summary], bool | None] | None = None,
    ) -> None:
        """`at_once` is how many runs are carried out at the same time; others wait. `takes` says of
        a run that it is to be begun at once, or that it is none of ours; else whoever made it may
        begin it himself first.
        """
        self._takes = takes or takes_of_host
        self._open = open_runs
        self._listener = listener
        self._at_once = at_once
        self._ending = False
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # may be put to in a handler
        self._ours: set[str] = set()
        self._lock = threading.Lock()
        self._driving: dict[str, Driver] = {}
        self._carried: set[str] = set()
        self._later: dict[str, int] = {}  # not before then, by CLOCK_BOOTTIME
        self._halted = ""
        self._waiting = True  # some run may be begun later, or was asked for
        self._kept: Runs | None = None
        self.begun: Callable[[str], None]
        """How a run is carried out beside the others: who goes through `carry`."""
        self.ready: Callable[[Driver], None] | None = None
        """Is given each driver before its first step, to say how its actions are begun."""

    def stop(self) -> None:
        """Begin nothing more and leave what is under way to the next engine. Safe in signal
        handlers: faults go on to their deadlines, and the next engine takes their runs up.
        """
        self._ending = True
        self._wakes.put(None)

    def begin(self, name: str) -> None:
        """Begin a run at the next look, which is now: whoever made it will not. For any thread."""
        self._ours.add(name)
        self._waiting = True
        self._wakes.put(None)

    def keep(self) -> None:
        """Look after the store until `stop`."""
        with closing(self.looks()) as looks, closing(Crew()) as crew:
            self.ready = crew.prepare
            self.begun = lambda name: crew.add(name, self.carry(name))
            for _ in looks:
                with suppress(queue.Empty):
                    self._wakes.get(timeout=LOOK)

    def looks(self) -> Generator[None]:
        """The same, a look at a time; the next one is due after LOOK, or when something was begun
        or stopped.
        """
        with self._open() as kept:
            self._kept = kept
            schedules, due, seen = Schedules(kept.store, kept.check_fault), 0.0, -1
            away = False
            while not self._ending:
                try:
                    now, version = actions.instant().at, kept.store.version()
                    if now >= due or version != seen:
                        due = self._schedules(schedules, kept.halted(), now)
                    self._begin(kept)
                    seen, away = version, False
                except StoreFailed as error:  # the next look may find it well
                    if not away:
                        _log.warning("nothing is begun meanwhile: %s", error.message)
                    away = True
                yield

    def _schedules(self, schedules: Schedules, halted: str, now: float) -> float:
        try:
            return schedules.step(now, halted)
        except FaultlineError as error:  # of the store: the next look may find it well
            _log.warning("schedules: %s", error.message)
            return now + AGAIN

    # ------------------------------------------------------------------ runs

    def running(self) -> list[str]:
        """The names of the runs that are being carried out here."""
        with self._lock:
            return sorted(self._carried)

    def _begin(self, kept: Runs) -> None:
        self._waiting = False  # before it is looked who waits
        waiting = kept.summaries(Filter(ended=False))
        names = {each.name for each in waiting}
        self._nudge({each.name: each.version for each in waiting}, kept.halted())
        for each in waiting:
            with self._lock:
                full = len(self._carried) >= self._at_once
                busy = each.name in self._carried
            if busy:
                continue
            if full or not self._may(each, names):
                self._waiting = True
            else:
                with self._lock:
                    self._carried.add(each.name)
                self._ours.discard(each.name)
                self.begun(each.name)

    def _nudge(self, versions: dict[str, int], halted: str) -> None:
        """Tell those whose run was written by somebody else, and all when everything is halted."""
        with self._lock:
            driving = dict(self._driving)
        for name, driver in driving.items():
            if driver.carrying.version < versions.get(name, 0) or halted != self._halted:
                driver.nudge()
        self._halted = halted
        for gone in self._later.keys() - versions.keys():
            self._later.pop(gone, None)

    def _may(self, run: Summary, unfinished: set[str]) -> bool:
        if run.labels.get("parent") in unfinished:
            return False  # whoever carries out its parent carries it out
        takes = self._takes(run)
        if takes is False:
            return False
        ours = takes or run.name in self._ours or run.creator.startswith("schedule ")
        now = actions.instant()
        if abs(now.at - run.created) < GRACE and not ours:  # made long ahead: a clock was set
            return False
        return now.boot_ns >= self._later.get(run.name, 0)

    def carry(self, name: str) -> Generator[Driver]:
        """Carry out one run, a step at a time; between two of them its driver is to rest."""
        # Whatever keeps it from its end, also what nobody foresaw: it is not tried again at once.
        self._later[name] = actions.instant().boot_ns + int(AGAIN * SECOND)
        kept = self._kept
        if kept is None:
            raise Bug("nobody looks after the store")
        try:
            driver = kept.driver(name, self._listener)
            driver.carrying.patience = PATIENCE
            if self.ready is not None:
                self.ready(driver)
            with self._lock:
                self._driving[name] = driver
            for _ in driver.steps():
                yield driver
            done = driver.carrying.run
            self._later.pop(name, None)
            _log.info("%s: %s: %s", name, done.status.verdict, done.status.reason)
        except (Conflict, Halted, UnknownName) as error:
            _log.debug("%s: %s", name, error.message)
        except FaultlineError as error:
            _log.warning("%s: %s", name, error.message)
        finally:
            with self._lock:
                self._driving.pop(name, None)
                self._carried.discard(name)
            self._waiting = True  # another has room, or this one is tried again
            self._leave(kept, name)

    def _leave(self, kept: Runs, name: str) -> None:
        try:
            kept.leave(name)
        except FaultlineError as error:  # the lease ends by itself
            _log.warning("%s: %s", name, error.message)
