"""Whether the generator or the target was the limit. Pure.

What was measured is the target's only as long as the generator kept its own schedule: a request
that left late waited for us, and a generator whose core is full measures itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from faultline.traffic.kinds import NOT_SENT, OURS
from faultline.traffic.model import LATE, SECOND, Tick, sum_errors
from faultline.units import Duration

_FULL = 0.9
"""The share of a core from which a generator has no more to give."""
_SHARE = 0.01
"""The share of late requests from which the figures are not the target's alone."""


def told(ticks: Sequence[Tick], *, closed: bool) -> str:
    """What a reader of the totals must know, '' if the generator was not the limit."""
    sent, late = sum(tick.sent for tick in ticks), sum(tick.late for tick in ticks)
    kinds = sum_errors(tick.errors for tick in ticks)
    busy = [tick for tick in ticks if _full(tick)]
    found: list[str] = []
    if sent and late > _SHARE * sent and not (closed and not busy):
        worst = Duration(round(max(tick.lag_max for tick in ticks), -6))
        found.append(
            f"{late / sent:.0%} of the requests left more than {Duration(LATE)} late, by up to "
            f"{worst}"
        )
    if busy and (found or len(busy) * 2 >= len(ticks)):
        seconds = "1 second" if len(ticks) == 1 else f"{len(ticks)} seconds"
        found.append(f"a generator used all of its core in {len(busy)} of {seconds}")
    elif found:
        found.append("its processor was busy with something else")
    ours = [f"{kinds[kind]} times {kind}" for kind in OURS if kind in kinds]
    found += ours
    out = [f"The generator, not the target, was the limit: {', '.join(found)}."] if found else []
    if found and busy:
        out.append("More workers or a lower rate give figures of the target.")
    if NOT_SENT in kinds:
        out.append(
            f"{kinds[NOT_SENT]} requests were not sent, since too many were unanswered already."
        )
    return " ".join(out)


def _full(tick: Tick) -> bool:
    length = tick.until - tick.index * SECOND
    return length > SECOND // 2 and max(tick.cpu, default=0) >= _FULL * length
