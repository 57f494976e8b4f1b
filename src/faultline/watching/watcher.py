"""Looks at all targets of a run once a second, in one thread.

A reading costs some short files of the kernel. What is found is kept until it is asked for, and no
more of it than `KEPT` seconds. A target that goes away is looked for again, less and less often: a
container that is started again goes on with the same curve.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from faultline.api.watching import TargetSecond, TargetStatus
from faultline.errors import FaultlineError
from faultline.kernel import clock
from faultline.places.find import Target, find
from faultline.watching.counters import Counters, between
from faultline.watching.files import Growth
from faultline.watching.sources import Gone, Source, source

KEPT = 4000
SECOND = 1.0
_PAUSES = (1.0, 1.0, 2.0, 5.0, 10.0)  # seconds before a target that is gone is looked for again


@dataclass(slots=True)
class _Watched:
    """One target."""

    name: str
    target: Target
    status: TargetStatus
    seconds: deque[TargetSecond] = field(default_factory=lambda: deque[TargetSecond](maxlen=KEPT))
    source: Source | None = None
    before: Counters | None = None
    life: int = 0
    looked: int = 0  # in vain, in a row
    again: float = 0.0  # time.monotonic() of the next look
    used: float = 0.0  # seconds of processor time that looking at it took
    since: float = field(default_factory=time.monotonic)


class Watcher:
    """The targets of one run, by name. `start` may be called from any thread, and twice."""

    def __init__(self, every: float = SECOND) -> None:
        self._every = every
        # Curves go on by the boot clock, whatever is done to the wall clock meanwhile.
        self._start = time.time() - clock.now() / 1e9
        self._watched: dict[str, _Watched] = {}
        self._growth: dict[str, Growth] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str, target: dict[str, Any]) -> None:
        """Begin to look at a target as a document names it; {} is this host.

        One that is not there is looked for later; its status says so.
        """
        with self._lock:
            if name not in self._watched:
                one = _Watched(name, Target(**target), TargetStatus(name=name, started=time.time()))
                self._watched[name] = one
        self._run()

    def follow(self, path: str) -> None:
        """Note from now on how far a file has grown at which second."""
        with self._lock:
            self._growth.setdefault(path, Growth(path))
        self._run()

    def growth(self, path: str) -> Growth | None:
        """What was noted of a file; None if nobody asked for it."""
        with self._lock:
            return self._growth.get(path)

    def seconds(self, name: str, after: float = 0.0) -> list[TargetSecond]:
        """Its seconds that began later than `after` (unix time), oldest first."""
        with self._lock:
            one = self._watched.get(name)
            return [each for each in one.seconds if each.at > after] if one else []

    def status(self, name: str) -> TargetStatus | None:
        """What is known of it, without its seconds; None if it was never started."""
        with self._lock:
            one = self._watched.get(name)
            if one is None:
                return None
            took = time.monotonic() - one.since
            cost = float(f"{one.used / took:.3g}") if took > 0 else None
            return one.status.model_copy(update={"cost": cost})

    def stop(self) -> None:
        """Look no more. What was found can still be asked for. Idempotent."""
        self._ending.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        with self._lock:
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._loop, name="watcher", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            self.look()
            # After a pause of the machine it goes on from now and does not catch up.
            due = max(due + self._every, time.monotonic())
            self._ending.wait(due - time.monotonic())

    def look(self) -> None:
        """Read everything once."""
        with self._lock:
            watched, growth = list(self._watched.values()), list(self._growth.values())
        for one in watched:
            begun = time.thread_time()
            self._one(one)
            one.used += time.thread_time() - begun
        for each in growth:
            each.look()

    def _one(self, one: _Watched) -> None:
        try:
            if one.source is None and not self._find(one):
                return
            assert one.source is not None
            found = one.source.read()
        except Gone as gone:
            self._lose(one, str(gone))
            return
        except (ProcessLookupError, FileNotFoundError):
            self._lose(one, "it has ended")
            return
        except OSError as error:  # one file that cannot be read must not end the other curves
            self._lose(one, f"it cannot be read: {error}")
            return
        ns = clock.now()
        after = Counters(self._start + ns / 1e9, ns, one.life, **found)
        if one.before is not None:
            second = between(one.before, after)
            with self._lock:
                one.seconds.append(second)
        one.before = after

    def _find(self, one: _Watched) -> bool:
        """Look for it where it is named; False until it is time, or while it is not there."""
        now = time.monotonic()
        if now < one.again:
            return False
        try:
            place = find(one.target)
            one.source = source(place)
            cores, limit = one.source.room()
        except (FaultlineError, OSError, Gone) as error:
            one.source = None
            one.again = now + _PAUSES[min(one.looked, len(_PAUSES) - 1)]
            one.looked += 1
            if not one.status.kind:  # never found yet
                one.status.end = getattr(error, "message", "") or str(error)
            return False
        if one.status.kind:
            one.life += 1
        status = one.status
        status.kind, status.words, status.missing = place.kind, place.words, one.source.missing
        status.cores, status.memory_limit = cores, limit
        status.ended, status.end = None, ""
        one.looked = 0
        return True

    def _lose(self, one: _Watched, why: str) -> None:
        one.source = None
        one.status.ended = one.status.ended or time.time()
        one.status.end = one.status.end or why
        # A number is given to other processes in time; only names are looked for again.
        one.again = float("inf") if one.target.pid else time.monotonic() + _PAUSES[0]
        one.looked = 1
