"""From what a tool says to seconds: stretches of any length and single requests become one series.

A stretch longer than a second is spread evenly over its seconds, with its times in each of them.
Shorter ones are added up. Seconds are counted from the beginning of the first stretch, so that a
tool that reports each second has its seconds as it reported them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from faultline.api.traffic import TrafficFigures, TrafficSecond
from faultline.traffic.external.pieces import (
    PERCENTILES,
    Period,
    Piece,
    Report,
    Sample,
    Times,
    fold,
)
from faultline.traffic.histogram import Histogram

_NEAR = 0.05  # seconds: tools are late by a little; a sliver of a second is not one
_SLACK = 1.0  # seconds: how late a single request may be told, against those told before
_WIDEST = 3600.0  # seconds: a longer stretch is a clock that was set, not a measurement


@dataclass(slots=True)
class _Second:
    """One second while it is being filled."""

    ok: float = 0.0
    errors: float = 0.0
    kinds: dict[str, float] = field(default_factory=dict[str, float])
    parts: list[tuple[float, Times]] = field(default_factory=list[tuple[float, Times]])
    latency: Histogram | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a complete second beside its figures."""

    index: int
    kinds: dict[str, float]
    latency: str


class Course:
    """The growing record of a tool's load. Not safe for several threads at once."""

    def __init__(self, started: float, warmup: float) -> None:
        """`started`: unix time; `warmup`: seconds that are on the curve but not in the totals."""
        self.seconds: list[TrafficSecond] = []
        self._started = started
        self._warmup = warmup
        self._zero: float | None = None  # seconds from the start to the first second
        self._open: dict[int, _Second] = {}
        self._next = 0  # the number of the first second that is not complete
        self._end = 0.0  # how far it is known, in seconds since the first second
        self._kept: list[_Kept] = []
        self._total = [0.0, 0.0]  # ok and errors of complete seconds, before they were rounded
        self._told = [0, 0]
        self._counted = Histogram()
        self._sampled = False

    def add(self, piece: Piece) -> None:
        """Take over one piece; what comes too late counts in the first second still open."""
        if isinstance(piece, Sample):
            self._add_sample(piece)
        elif not self._sampled and 0.0 < piece.end - piece.begin <= _WIDEST:
            self._add_period(piece)

    def _add_sample(self, sample: Sample) -> None:
        self._sampled = True
        at = self._since_first(sample.at, sample.took or 0.0)
        if at - self._end > _WIDEST:  # somebody has set the clock
            at = self._end
        second = self._at(math.floor(at))
        if sample.kind:
            second.errors += 1
            second.kinds[sample.kind] = second.kinds.get(sample.kind, 0.0) + 1
        else:
            second.ok += 1
        if sample.took is not None:
            second.latency = second.latency or Histogram()
            second.latency.record(round(sample.took * 1e9))
        self._end = max(self._end, at)
        self._complete(math.floor(self._end - _SLACK))

    def _add_period(self, period: Period) -> None:
        begin = _snapped(self._since_first(period.begin))
        end = max(_snapped(self._since_first(period.end)), begin + _NEAR)
        first, last = math.floor(begin), math.ceil(end)
        for index in range(first, last):
            share = (min(end, index + 1) - max(begin, index)) / (end - begin)
            second = self._at(index)
            second.ok += period.ok * share
            second.errors += period.errors * share
            second.parts.append(((period.ok + period.errors) * share, period.times))
            for kind, count in period.kinds.items():
                second.kinds[kind] = second.kinds.get(kind, 0.0) + count * share
        self._end = max(self._end, end)
        self._complete(math.floor(self._end))

    def _since_first(self, at: float, took: float = 0.0) -> float:
        if self._zero is None:
            self._zero = max(0.0, at - took)
        return max(0.0, at - self._zero)

    def _at(self, index: int) -> _Second:
        return self._open.setdefault(max(index, self._next), _Second())

    def _complete(self, until: int) -> None:
        for index in range(self._next, until):
            self._finish(index, self._open.pop(index, _Second()))
            self._next = index + 1

    def _finish(self, index: int, second: _Second) -> None:
        at = self._started + (self._zero or 0.0) + index
        times = _spread(second.latency) if self._sampled else fold(second.parts)
        for which, count in enumerate((second.ok, second.errors)):
            self._total[which] += count
        # Rounded in sum, so that no answer is lost or made up over the whole.
        whole = [math.floor(total + 0.5) for total in self._total]
        ok, errors = whole[0] - self._told[0], whole[1] - self._told[1]
        self._told = whole
        self.seconds.append(
            TrafficSecond(at=at, sent=ok + errors, ok=ok, errors=errors, **times.as_dict())
        )
        encoded = second.latency.encode() if second.latency else ""
        self._kept.append(_Kept(index, second.kinds, encoded))
        if self._counts(index):
            self._counted.add(encoded)

    def _counts(self, index: int) -> bool:
        return index + (self._zero or 0.0) + _NEAR >= self._warmup

    def close(self) -> None:
        """The tool has ended: what is open is complete."""
        if self._zero is not None:
            self._complete(max([self._next, *(index + 1 for index in self._open)]))

    def live(self, now: float, seconds: int) -> TrafficFigures:
        """The last `seconds` before `now` (unix time), of those that are complete.

        A tool tells of a second after its end, some of the one before it: if the newest that is
        known is older than that, the window lacks seconds, and if all lack there are no figures.
        """
        newest = self.seconds[-1].at if self.seconds else 0.0
        since = max(newest, now - 2.0 - _SLACK) - seconds + 1.0 - _NEAR
        first = len(self.seconds)
        while first and self.seconds[first - 1].at >= since:
            first -= 1
        return self._sum(first, encode=False)

    def totals(self, report: Report | None) -> TrafficFigures:
        """All of it after warm-up: the tool's own report where that speaks of the same time."""
        if report is None or self._sampled or (self._warmup and self.seconds):
            first = next((n for n, k in enumerate(self._kept) if self._counts(k.index)), None)
            return self._sum(len(self._kept) if first is None else first, encode=True)
        return TrafficFigures(
            sent=report.ok + report.errors,
            ok=report.ok,
            errors=report.errors,
            seconds=report.seconds or float(len(self.seconds)),
            kinds=_by_count(report.kinds),
            text="its warm-up is in the figures" if self._warmup else "",
            **self._lacking(report.times).as_dict(),
        )

    def _lacking(self, times: Times) -> Times:
        """The report's times; what it does not say is taken from the seconds."""
        weighed = [(each.sent, _times(each)) for each in self.seconds]
        own = fold([(float(weight), each) for weight, each in weighed])
        said = times.as_dict()
        return Times(
            **{name: v if v is not None else getattr(own, name) for name, v in said.items()}
        )

    def _length(self, seconds: list[TrafficSecond], kept: list[_Kept]) -> float:
        """How long these seconds were; the last of all may have been cut short."""
        lacking = max(0.0, kept[-1].index + 1 - self._end) if kept else 0.0
        return max(0.0, len(seconds) - lacking)

    def _sum(self, first: int, *, encode: bool) -> TrafficFigures:
        seconds, kept = self.seconds[first:], self._kept[first:]
        kinds: dict[str, float] = {}
        for each in kept:
            for kind, count in each.kinds.items():
                kinds[kind] = kinds.get(kind, 0.0) + count
        if self._sampled:
            latency = self._counted if encode else Histogram.merged(k.latency for k in kept)
            times = _spread(latency)
        else:
            latency = None
            times = fold([(float(each.sent), _times(each)) for each in seconds])
        return TrafficFigures(
            sent=sum(each.sent for each in seconds),
            ok=sum(each.ok for each in seconds),
            errors=sum(each.errors for each in seconds),
            seconds=self._length(seconds, kept),
            kinds=_by_count({kind: round(count) for kind, count in kinds.items()}),
            histogram=latency.encode() if latency and encode else "",
            **times.as_dict(),
        )


def _by_count(kinds: dict[str, int]) -> dict[str, int]:
    present = {kind: count for kind, count in kinds.items() if count}
    return dict(sorted(present.items(), key=lambda item: (-item[1], item[0])))


def _snapped(at: float) -> float:
    return float(round(at)) if abs(at - round(at)) <= _NEAR else at


def _times(each: TrafficSecond) -> Times:
    return Times(each.p50, each.p90, each.p95, each.p99, each.max, each.mean)


def _spread(latency: Histogram | None) -> Times:
    if latency is None:
        return Times()
    found = latency.percentiles([float(name[1:]) for name in PERCENTILES])
    named = {name: found.get(float(name[1:])) for name in PERCENTILES}
    return Times(**named, max=latency.largest, mean=latency.mean)
