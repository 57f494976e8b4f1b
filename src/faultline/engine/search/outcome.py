"""What a search found out: the interval, the curve, and words for what went wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from faultline.engine.search.budget import broken_seconds
from faultline.engine.search.evidence import Evidence, Ledger, Seen
from faultline.engine.search.settings import Found, Point, Why


def conclude(ledger: Ledger, evidence: Evidence, why: Why | None) -> Found:
    """The result of a ledger, also of one that has not come to its end."""
    settings, history = ledger.settings, ledger.history
    borne, not_borne = evidence.interval()
    pair = evidence.contradiction()
    return Found(
        why=why,
        borne=borne,
        not_borne=not_borne,
        estimate=_estimate(ledger, evidence),
        monotone=not evidence.contradictory,
        text=_trouble(evidence),
        contradiction=None if pair is None else (pair[0].value, pair[1].value),
        curve=curve(evidence.seen, settings.confidence),
        trials=len(history),
        broke=sum(each.broke for each in evidence.seen),
        no_answer=sum(each.no_answer for each in evidence.seen),
        seconds=sum(entry.seconds for entry in history),
        broken_seconds=broken_seconds(settings, history),
    )


def _estimate(ledger: Ledger, evidence: Evidence) -> float | None:
    """The middle of where it probably is, within what is proven."""
    if evidence.contradictory or not evidence.seen:
        return None
    axis, middle = ledger.axis, ledger.belief.quantile(0.5)
    borne, not_borne = evidence.interval()
    if borne is not None:
        middle = max(middle, axis.at(borne))
    if not_borne is not None:
        middle = min(middle, axis.at(not_borne))
    return axis.value(middle) if axis.first < middle < axis.last else None


def _trouble(evidence: Evidence) -> str:
    """A contradiction in words; `{0}` and `{1}` stand for the two values."""
    found = evidence.contradiction()
    if found is None:
        return ""
    mild, worse = found
    return (
        f"at {{0}} {mild.broke} of {mild.answers} trials broke, at {{1}}, which should be worse, "
        f"{worse.held} of {worse.answers} held: the target changes with time, or is not yet "
        "itself again when the next trial begins, or bears the worse value for a reason"
    )


# ---------------------------------------------------------------------- the curve


def curve(seen: Sequence[Seen], confidence: float) -> tuple[Point, ...]:
    """Every value that was tried, the mildest first."""
    known = [each for each in seen if each.answers]
    shares = isotonic([(each.held, each.answers) for each in known])
    fitted = dict(zip((each.value for each in known), shares, strict=True))
    points: list[Point] = []
    for each in seen:
        low, high = clopper_pearson(each.held, each.answers, confidence)
        share = each.held / each.answers if each.answers else None
        points.append(
            Point(
                each.value,
                each.held,
                each.broke,
                each.no_answer,
                share,
                low,
                high,
                fitted.get(each.value),
            )
        )
    return tuple(points)


def isotonic(counts: Sequence[tuple[float, float]]) -> list[float]:
    """Shares that never rise, nearest to those of (held, answers): pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # held, answers, how many values
    for held, answers in counts:
        pool = (held, answers, 1)
        while pools and pools[-1][0] * pool[1] < pool[0] * pools[-1][1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    return [held / answers for held, answers, values in pools for _ in range(values)]


def clopper_pearson(good: int, total: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a probability, by bisection of the binomial distribution."""
    if not total:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = _solve(lambda p: 1 - _cumulative(good - 1, total, p) < tail) if good else 0.0
    high = _solve(lambda p: _cumulative(good, total, p) > tail) if good < total else 1.0
    return low, high


def _solve(below: Callable[[float], bool]) -> float:
    left, right = 0.0, 1.0
    for _ in range(50):
        middle = (left + right) / 2
        left, right = (middle, right) if below(middle) else (left, middle)
    return left


def _cumulative(good: int, total: int, p: float) -> float:
    """The probability of at most `good` successes."""
    return sum(math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(good + 1))
