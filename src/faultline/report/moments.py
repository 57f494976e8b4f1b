"""Seconds since 1970 as seconds from the start of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Counts from the start of a run."""

    start: float

    def at(self, stamp: float) -> float:
        return round(stamp - self.start, 6)

    def maybe(self, stamp: float | None) -> float | None:
        return None if stamp is None else self.at(stamp)
