"""From the ticks of the generators to what the clients saw.

A guard must see an outage while it lasts, when nothing is answered and the finished requests are
all good. So a live reading also counts requests that are still waiting: how long each will take is
not known yet, but it is more than it has waited already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faultline.api.traffic import TrafficFigures, TrafficPart, TrafficSecond
from faultline.traffic.histogram import Histogram
from faultline.traffic.model import SECOND, Part, Tick, sum_errors

_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
_FLOOR = 0.1  # seconds; a request that has waited less may still turn out fast


def merge(ticks: Sequence[Tick]) -> Tick:
    """The same second of several generators as one."""
    if len(ticks) == 1:
        return ticks[0]
    return Tick(
        index=ticks[0].index,
        until=max(tick.until for tick in ticks),
        sent=sum(tick.sent for tick in ticks),
        ok=sum(tick.ok for tick in ticks),
        errors=sum_errors(tick.errors for tick in ticks),
        waiting=tuple(age for tick in ticks for age in tick.waiting),
        latency=Histogram.merged(tick.latency for tick in ticks).encode(),
        lag_max=max(tick.lag_max for tick in ticks),
        late=sum(tick.late for tick in ticks),
        cpu=tuple(each for tick in ticks for each in tick.cpu),
        parts=_merged_parts(ticks),
    )


def _merged_parts(ticks: Sequence[Tick]) -> dict[str, Part]:
    names = dict.fromkeys(name for tick in ticks for name in tick.parts)
    return {name: _merged([t.parts[name] for t in ticks if name in t.parts]) for name in names}


def _merged(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    return Part(
        sent=sum(part.sent for part in parts),
        ok=sum(part.ok for part in parts),
        errors=sum(part.errors for part in parts),
        latency=Histogram.merged(part.latency for part in parts).encode(),
    )


def second(tick: Tick, started: float) -> TrafficSecond:
    """One second for the curve; `started` is the unix time of the first."""
    return TrafficSecond(
        at=started + tick.index,
        sent=tick.sent,
        ok=tick.ok,
        errors=sum(tick.errors.values()),
        lag=tick.lag_max / SECOND,
        **_spread(Histogram().add(tick.latency)),
    )


def live(ticks: Sequence[Tick]) -> TrafficFigures:
    """The last seconds as they stand: what still waits counts with what it has waited so far.

    Ages up to 0.1 s or the median of the finished requests are left out.
    """
    latency = Histogram.merged(tick.latency for tick in ticks)
    floor = max(latency.percentiles([50.0]).get(50.0, 0.0), _FLOOR) * SECOND
    for age in ticks[-1].waiting if ticks else ():
        if age > floor:
            latency.record(age)
    return totals(ticks, latency, "")


def totals(ticks: Sequence[Tick], latency: Histogram, encoded: str) -> TrafficFigures:
    """The sum of consecutive seconds, whose latencies are already added up."""
    kinds = sum_errors(tick.errors for tick in ticks)
    return TrafficFigures(
        sent=sum(tick.sent for tick in ticks),
        ok=sum(tick.ok for tick in ticks),
        errors=sum(kinds.values()),
        seconds=max(ticks[-1].until / SECOND - ticks[0].index, 0.0) if ticks else 0.0,
        lag=max((tick.lag_max for tick in ticks), default=0) / SECOND,
        late=sum(tick.late for tick in ticks),
        kinds=kinds,
        histogram=encoded,
        **_spread(latency),
    )


def part(name: str, counts: Part, latency: Histogram) -> TrafficPart:
    """One kind of request, over all of it."""
    return TrafficPart(
        name=name,
        sent=counts.sent,
        ok=counts.ok,
        errors=counts.errors,
        histogram=latency.encode() if latency.count else "",
        **_spread(latency),
    )


def over_hosts(all_figures: Sequence[TrafficFigures]) -> TrafficFigures:
    """What generators on several hosts saw at the same time as one: counts are added, percentiles
    are of all requests together (not means of percentiles).
    """
    latency = Histogram.merged(each.histogram for each in all_figures)
    names = dict.fromkeys(part.name for each in all_figures for part in each.parts)
    kinds = sum_errors(each.kinds for each in all_figures)
    texts = dict.fromkeys(each.text for each in all_figures if each.text)
    return TrafficFigures(
        sent=sum(each.sent for each in all_figures),
        ok=sum(each.ok for each in all_figures),
        errors=sum(each.errors for each in all_figures),
        seconds=max((each.seconds for each in all_figures), default=0.0),
        lag=max((each.lag for each in all_figures), default=0.0),
        late=sum(each.late for each in all_figures),
        kinds=kinds,
        histogram=latency.encode() if latency.count else "",
        parts=[_part_over(name, all_figures) for name in names],
        text="; ".join(texts),
        **_spread(latency),
    )


def _part_over(name: str, all_figures: Sequence[TrafficFigures]) -> TrafficPart:
    found = [part for each in all_figures for part in each.parts if part.name == name]
    counts = Part(
        sum(each.sent for each in found),
        sum(each.ok for each in found),
        sum(each.errors for each in found),
        "",
    )
    return part(name, counts, Histogram.merged(each.histogram for each in found))


def _spread(latency: Histogram) -> dict[str, Any]:
    found = latency.percentiles(list(_PERCENTILES.values()))
    named = {name: found.get(percent) for name, percent in _PERCENTILES.items()}
    return {**named, "max": latency.largest, "mean": latency.mean}
