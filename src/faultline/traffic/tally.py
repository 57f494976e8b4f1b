"""What happened in the current second, and of which kind."""

from __future__ import annotations

import time

from faultline.traffic.histogram import Histogram
from faultline.traffic.model import LATE, Part, Tick


class PartTally:
    """One kind of request."""

    def __init__(self) -> None:
        self.sent = self.ok = self.errors = 0
        self.latency = Histogram()

    def cut(self) -> Part:
        encoded = self.latency.encode() if self.latency.count else ""
        part = Part(self.sent, self.ok, self.errors, encoded)
        self.sent = self.ok = self.errors = 0
        self.latency.clear()
        return part


class Tally:
    """All requests of the second."""

    def __init__(self) -> None:
        self.sent = self.ok = self.lag_max = self.late = 0
        self.errors: dict[str, int] = {}
        self.latency = Histogram()
        self._parts: dict[str, PartTally] = {}
        self._cpu = time.process_time_ns()

    def left(self, lag: int) -> None:
        """A request left so much behind its time."""
        self.sent += 1
        self.lag_max = max(self.lag_max, lag)
        if lag > LATE:
            self.late += 1

    def ended(self, kind: str, took: int) -> None:
        """A request ended; `kind` is '' or why it failed.

        One that timed out counts in the latency with what it waited: without it an outage would
        look fast. Other failures are counted by kind alone.
        """
        if kind in ("", "timeout"):
            self.latency.record(took)
        if kind:
            self.failed(kind)
        else:
            self.ok += 1

    def failed(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def part(self, name: str) -> PartTally:
        found = self._parts.get(name)
        if found is None:
            found = self._parts[name] = PartTally()
        return found

    def part_ended(self, name: str, kind: str, took: int) -> None:
        """The same for the part of that name."""
        part = self.part(name)
        if kind in ("", "timeout"):
            part.latency.record(took)
        if kind:
            part.errors += 1
        else:
            part.ok += 1

    def cut(self, index: int, until: int, waiting: tuple[int, ...]) -> Tick:
        """The second as data; counting starts again from nought."""
        cpu, self._cpu = self._cpu, time.process_time_ns()
        tick = Tick(
            index=index,
            until=until,
            sent=self.sent,
            ok=self.ok,
            errors=self.errors,
            waiting=waiting,
            latency=self.latency.encode() if self.latency.count else "",
            lag_max=self.lag_max,
            late=self.late,
            cpu=(self._cpu - cpu,),
            parts={name: part.cut() for name, part in self._parts.items()},
        )
        self.sent = self.ok = self.lag_max = self.late = 0
        self.errors = {}
        self.latency.clear()
        return tick
