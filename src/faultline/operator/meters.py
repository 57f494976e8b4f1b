"""What the operator counts of itself and of what hosts tell. None of it decides anything.

A target is counted by whoever leads when its Host tells of it, so one operator counts it, once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Final

from faultline.api.host import Actual, Desired
from faultline.operator.hosts import HostObject
from faultline.operator.tally import Entry

SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds of work of our own and of the API server."""
LONG: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0)
"""Seconds until a fault shows at its target, and until nothing of it is found any more."""
NO_ANSWER: Final = "none"
ENDS: Final = ("recovered", "nothing to undo", "target gone", "needs a person")


class Spread:
    """How values are spread over classes with these upper bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """One more. A clock that was set back must not make a negative one."""
        value = max(0.0, value)
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """How many are at most so large, by the bound as text."""
        total, made = 0, list[tuple[str, float]]()
        for bound, count in zip((*self.bounds, None), self._counts, strict=True):
            total += count
            made.append(("+Inf" if bound is None else f"{bound:g}", float(total)))
        return made


class Meters:
    """The counts of one operator. Safe in threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: Counter[tuple[str, str]] = Counter()  # verb and code
        self.answers: dict[str, Spread] = {}  # seconds, by verb
        self.waited = 0.0
        self.reconciles = Spread(SHORT)
        self.failures = 0
        self.effects: dict[str, Spread] = {}  # seconds, by fault
        self.absences: dict[str, Spread] = {}
        self.ends: Counter[str] = Counter(dict.fromkeys(ENDS, 0))
        self.refused = 0

    # ------------------------------------------------------------------ of the API server

    def waits(self, seconds: float) -> None:
        """For its turn, by our own limit."""
        with self.lock:
            self.waited += seconds

    @contextmanager
    def request(self, verb: str) -> Generator[list[int]]:
        """Count one request; the block puts the code of the answer into the list."""
        begun, codes = monotonic(), list[int]()
        try:
            yield codes
        finally:
            passed = monotonic() - begun
            with self.lock:
                self.requests[verb, str(codes[0]) if codes and codes[0] else NO_ANSWER] += 1
                if verb != "watch":
                    self.answers.setdefault(verb, Spread(SHORT)).add(passed)

    # ------------------------------------------------------------------ of our own work

    def looked(self, seconds: float) -> None:
        with self.lock:
            self.reconciles.add(seconds)

    def failed(self) -> None:
        with self.lock:
            self.failures += 1

    # ------------------------------------------------------------------ of targets

    def host(
        self, old: HostObject | None, new: HostObject | None, undone: Mapping[str, float]
    ) -> None:
        """What a Host tells that it has not told before.

        Where nothing was known of it, all that it tells is old. `undone` says when which fault was
        to be undone, by the uid of its object.
        """
        if old is None or new is None or old.uid != new.uid:
            return
        before = {
            entry.desired.uid: entry.actual
            for part in old.view.parts.values()
            for entry in part.entries
        }
        with self.lock:
            for owner, part in new.view.parts.items():
                for entry in part.entries:
                    if entry.actual is not None:
                        self._entry(entry, entry.actual, before.get(entry.desired.uid),
                                    undone.get(owner))  # fmt: skip

    def _entry(
        self, entry: Entry, now: Actual, before: Actual | None, undone: float | None
    ) -> None:
        fault = entry.desired.fault
        was = before.stage if before is not None else ""
        new = before is None or before.effective_at is None
        if now.effective_at is not None and new:
            passed = now.effective_at - entry.desired.asked_at
            self.effects.setdefault(fault, Spread(LONG)).add(passed)
        if now.stage == "refused" != was:
            self.refused += 1
        if now.stage == "ended" and (was != "ended" or before is None or before.end != now.end):
            self.ends[now.end or "needs a person"] += 1
            since = meant_to_end(entry.desired, now, undone)
            if now.end == "recovered" and now.ended_at is not None and since is not None:
                self.absences.setdefault(fault, Spread(LONG)).add(now.ended_at - since)


def meant_to_end(asked: Desired, actual: Actual, undone: float | None) -> float | None:
    """When nothing of it should have been there any more: at its deadline or when it was to be
    undone, whatever came first. None if it never began.
    """
    if actual.injected_at is None:
        return None
    deadline = actual.injected_at + asked.duration.seconds
    return deadline if undone is None else min(deadline, undone)
