"""The growing record of a load: each second is merged and summed up once, when it is complete."""

from __future__ import annotations

from dataclasses import replace

from faultline.api.traffic import TrafficFigures, TrafficSecond
from faultline.traffic import limits, summary
from faultline.traffic.histogram import Histogram
from faultline.traffic.model import SECOND, Part, Tick


class Series:
    """All complete seconds so far. Not safe for several threads at once."""

    def __init__(self, warmup: int, *, closed: bool = False) -> None:
        self._warmup = warmup  # ns; earlier seconds are on the curve but not in the total
        self._closed = closed
        self._parts: dict[str, tuple[Part, Histogram]] = {}
        self._ticks: list[Tick] = []
        self._latency = Histogram()
        self.seconds: list[TrafficSecond] = []

    @property
    def unanswered(self) -> int:
        """Requests that waited at the end of the last second."""
        return len(self._ticks[-1].waiting) if self._ticks else 0

    def extend(self, said: list[list[Tick]], complete: int, started: float) -> None:
        """Take over what the generators said of the seconds up to number `complete`."""
        last = self._ticks[-1].index if self._ticks else -1
        parts: dict[int, list[Tick]] = {}
        for ticks in said:
            for tick in reversed(ticks):
                if tick.index <= last:
                    break
                if tick.index <= complete:
                    parts.setdefault(tick.index, []).append(tick)
        for index in sorted(parts):
            tick = summary.merge(parts[index])
            self._ticks.append(replace(tick, parts={}))
            self.seconds.append(summary.second(tick, started))
            if self._counts(tick):
                self._latency.add(tick.latency)
                for name, part in tick.parts.items():
                    self._add(name, part)

    def _add(self, name: str, part: Part) -> None:
        before, latency = self._parts.get(name) or (Part(0, 0, 0, ""), Histogram())
        latency.add(part.latency)
        sums = (before.sent + part.sent, before.ok + part.ok, before.errors + part.errors)
        self._parts[name] = (Part(*sums, ""), latency)

    def _counts(self, tick: Tick) -> bool:
        return tick.index * SECOND >= self._warmup

    def live(self, newest: int, seconds: int) -> TrafficFigures:
        """The last `seconds`, warm-up or not, of which number `newest` has just ended.

        What is unanswered counts with what it has waited. A second that is a little late may lack.
        """
        last = self._ticks[-1].index if self._ticks else -1
        first = max(last, newest - 1) - seconds + 1
        return summary.live([tick for tick in self._ticks[-seconds:] if tick.index >= first])

    def totals(self) -> TrafficFigures:
        """All of it after warm-up."""
        ticks = [tick for tick in self._ticks if self._counts(tick)]
        warmed = [tick for tick in self._ticks if not self._counts(tick)]
        found = summary.totals(ticks, self._latency, self._latency.encode())
        # What left in the warm-up and is answered later would be an answer to nothing.
        under_way = len(warmed[-1].waiting) if warmed and ticks else 0
        parts = [summary.part(name, *of) for name, of in sorted(self._parts.items())]
        text = limits.told(ticks, closed=self._closed)
        more = {"sent": found.sent + under_way, "parts": parts, "text": text}
        return found.model_copy(update=more)
