"""How much two groups differ, and how sure that is. Pure: no clock, no chance, no I/O.

Pairs are measurements of both groups at the same moment: what hits both (the load of the hour) goes
out of their differences. The interval comes from ranks (Hodges and Lehmann 1963, after Wilcoxon),
so it holds whatever the distribution is, and outliers do not move it. Two groups of one
distribution are called different no more often than 1 - confidence.

Sources: Hollander and Wolfe, Nonparametric Statistical Methods, 3.1 to 3.3 and 4.1 to 4.3; Cliff,
Dominance statistics, Psychological Bulletin 114 (1993); Feng and Cliff, J. Mod. Appl. Stat.
Methods 3 (2004), for the interval of delta.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final, Literal

from faultline.errors import ObserveFailed

Size = Literal["difference", "mean", "percent", "delta"]
"""`difference`: of a typical pair; `mean`: of the means; `percent`: the relative change of a
typical pair, as a share; `delta`: Cliff's delta, from -1 to 1."""

MOST: Final = 250
"""Pairs, or members of a group, that are compared; the latest are taken."""
_EXACT: Final = 50  # up to here the distribution of the ranks is counted, beyond it is normal
_LAGGED: Final = 1.645  # standard errors from which neighbours are taken to be alike


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `hit` is more than `unhit`."""

    effect: float
    low: float
    """The effect lies between these with the confidence that was asked for."""
    high: float
    delta: float
    """Cliff's delta: how much likelier a value of `hit` is above one of `unhit` than below."""
    n: int
    """Pairs; of groups without pairs the members of the smaller."""
    stretch: float = 1.0
    """By how much the interval was widened, since neighbours in time are alike."""

    @property
    def shown(self) -> bool:
        """Whether there is an effect at all, with that confidence."""
        return self.low > 0 or self.high < 0

    @property
    def certain(self) -> float:
        """The least effect that agrees with the data: 0 if none is shown."""
        return max(self.low, 0.0) + min(self.high, 0.0)


def paired(
    hit: Sequence[float],
    unhit: Sequence[float],
    size: Size = "difference",
    confidence: float = 0.95,
    *,
    serial: bool = True,
) -> Comparison:
    """Compare measurements of the same moments, in their order; raises ObserveFailed for too few.

    With `serial` the interval is widened where neighbours in time are alike.
    """
    if len(hit) != len(unhit):
        raise ValueError("pairs are of two sequences of one length")
    hit, unhit = hit[-MOST:], unhit[-MOST:]
    first, second = _scaled(hit, size), _scaled(unhit, size)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if size == "mean":
        found = _mean(differences, confidence)
    elif size == "delta":
        found = _delta(hit, unhit, confidence)
    else:
        found = _walsh(differences, confidence)
    alike = [differences] if size != "delta" else [hit, unhit]
    stretch = max(map(_stretch, alike)) if serial else 1.0
    return _comparison(found, hit, unhit, size, stretch)


def independent(
    hit: Sequence[float],
    unhit: Sequence[float],
    size: Size = "difference",
    confidence: float = 0.95,
) -> Comparison:
    """Compare the members of two groups of one moment; raises ObserveFailed for too few."""
    hit, unhit = hit[-MOST:], unhit[-MOST:]
    first, second = _scaled(hit, size), _scaled(unhit, size)
    if size == "mean":
        found = _means(first, second, confidence)
    elif size == "delta":
        found = _delta(hit, unhit, confidence)
    else:
        found = _shift(first, second, confidence)
    return _comparison(found, hit, unhit, size, 1.0)


_Estimate = tuple[float, float, float]


def _comparison(
    found: _Estimate, hit: Sequence[float], unhit: Sequence[float], size: Size, stretch: float
) -> Comparison:
    effect, low, high = found
    low, high = effect - (effect - low) * stretch, effect + (high - effect) * stretch
    if size == "percent":
        effect, low, high = math.expm1(effect), math.expm1(low), math.expm1(high)
    if size == "delta":
        low, high = max(low, -1.0), min(high, 1.0)
    n = min(len(hit), len(unhit))
    return Comparison(effect, low, high, dominance(hit, unhit), n, stretch)


def _scaled(values: Sequence[float], size: Size) -> Sequence[float]:
    """As they are compared: of a relative change the logarithms."""
    if size != "percent":
        return values
    if any(value <= 0 for value in values):
        raise ObserveFailed("a relative change needs values above 0", hint="compare by difference")
    return [math.log(value) for value in values]


def dominance(hit: Sequence[float], unhit: Sequence[float]) -> float:
    """Cliff's delta: the share of pairs in which `hit` is above, less those where it is below."""
    ordered = sorted(unhit)
    above = sum(bisect.bisect_left(ordered, value) for value in hit)
    below = sum(len(ordered) - bisect.bisect_right(ordered, value) for value in hit)
    return (above - below) / (len(hit) * len(unhit)) if hit and unhit else 0.0


# ---------------------------------------------------------------------- by ranks


def _walsh(differences: Sequence[float], confidence: float) -> _Estimate:
    """Of one sample: the median of the means of all its pairs."""
    n = len(differences)
    rank = _signed_rank(n, confidence)
    if rank is None:
        raise ObserveFailed(f"{n} pairs are too few for an interval")
    means = sorted((differences[i] + differences[j]) / 2 for i in range(n) for j in range(i, n))
    return statistics.median(means), means[rank], means[-1 - rank]


def _shift(hit: Sequence[float], unhit: Sequence[float], confidence: float) -> _Estimate:
    """Of two samples: the median of all differences."""
    rank = _rank_sum(*sorted((len(hit), len(unhit))), confidence) if hit and unhit else None
    if rank is None:
        raise ObserveFailed(f"groups of {len(hit)} and {len(unhit)} are too small for an interval")
    differences = sorted(a - b for a in hit for b in unhit)
    return statistics.median(differences), differences[rank], differences[-1 - rank]


@lru_cache(maxsize=512)
def _signed_rank(n: int, confidence: float) -> int | None:
    """How many of the means lie outside on each side; None if n is too small to say."""
    if n > _EXACT:
        return _normal_rank(n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24, confidence)
    ways = [1]
    for value in range(1, n + 1):
        longer = ways + [0] * value
        for total, count in enumerate(ways):
            longer[total + value] += count
        ways = longer
    return _counted_rank(ways, confidence)


@lru_cache(maxsize=512)
def _rank_sum(small: int, large: int, confidence: float) -> int | None:
    """The same of two samples: how many of the differences lie outside on each side."""
    if large > _EXACT:
        product = small * large
        return _normal_rank(product / 2, product * (small + large + 1) / 12, confidence)
    ways = [1] + [0] * (small * large)
    for value in range(1, small + 1):  # the Gaussian binomial coefficient, factor by factor
        for total in range(len(ways) - 1, large + value - 1, -1):
            ways[total] -= ways[total - large - value]
        for total in range(value, len(ways)):
            ways[total] += ways[total - value]
    return _counted_rank(ways, confidence)


def _counted_rank(ways: list[int], confidence: float) -> int | None:
    allowed = (1 - confidence) / 2 * sum(ways) * (1 + 1e-12)
    rank = bisect.bisect_right(list(accumulate(ways)), allowed) - 1
    return rank if rank >= 0 else None


def _normal_rank(mean: float, variance: float, confidence: float) -> int | None:
    quantile = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    rank = math.floor(mean - quantile * math.sqrt(variance) - 0.5)
    return rank if rank >= 0 else None


# ---------------------------------------------------------------------- by means


def _mean(differences: Sequence[float], confidence: float) -> _Estimate:
    n = len(differences)
    if n < 2:
        raise ObserveFailed(f"{n} pairs are too few for an interval")
    mean = math.fsum(differences) / n
    half = student(n - 1.0, confidence) * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def _means(hit: Sequence[float], unhit: Sequence[float], confidence: float) -> _Estimate:
    """Of groups that vary by different amounts (Welch 1947)."""
    if min(len(hit), len(unhit)) < 2:
        raise ObserveFailed(f"groups of {len(hit)} and {len(unhit)} are too small for an interval")
    shares = [statistics.variance(group) / len(group) for group in (hit, unhit)]
    effect = statistics.fmean(hit) - statistics.fmean(unhit)
    if not any(shares):
        return effect, effect, effect
    below = shares[0] ** 2 / (len(hit) - 1) + shares[1] ** 2 / (len(unhit) - 1)
    freedom = math.floor(10 * sum(shares) ** 2 / below) / 10  # a little wider, and often known
    half = student(max(freedom, 1.0), confidence) * math.sqrt(sum(shares))
    return effect, effect - half, effect + half


@lru_cache(maxsize=1024)
def student(freedom: float, confidence: float) -> float:
    """The two-sided quantile of Student's distribution, by integrating its density over angles."""
    power = freedom - 1
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def inside(angle: float) -> float:
        """The probability of |t| below sqrt(freedom) * tan(angle), by Simpson's rule."""
        return 2 * scale * _simpson(lambda x: math.cos(x) ** power, angle)

    low, high = 0.0, math.pi / 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _simpson(density: Callable[[float], float], until: float, steps: int = 200) -> float:
    width = until / steps
    inner = math.fsum((4 if k % 2 else 2) * density(k * width) for k in range(1, steps))
    return (density(0.0) + inner + density(until)) * width / 3


# ---------------------------------------------------------------------- delta


def _delta(hit: Sequence[float], unhit: Sequence[float], confidence: float) -> _Estimate:
    m, n = len(hit), len(unhit)
    if min(m, n) < 4:
        raise ObserveFailed(f"groups of {m} and {n} are too small for an interval")
    delta = dominance(hit, unhit)
    of_hit = [dominance([value], unhit) for value in hit]
    of_unhit = [dominance(hit, [value]) for value in unhit]
    squares = sum((dominance([a], [b]) - delta) ** 2 for a in hit for b in unhit)
    rows = n * n * sum((each - delta) ** 2 for each in of_hit)
    columns = m * m * sum((each - delta) ** 2 for each in of_unhit)
    variance = (rows + columns - squares) / (m * n * (m - 1) * (n - 1))
    variance = max(variance, (1 - delta * delta) / (m * n - 1))
    spread = student(float(m + n - 2), confidence) * math.sqrt(variance)
    if abs(delta) == 1:
        edge = (n - spread**2) / (n + student(float(m + n - 2), confidence) ** 2)
        return (delta, edge, 1.0) if delta > 0 else (delta, -1.0, -edge)
    middle = delta - delta**3
    half = spread * math.sqrt((1 - delta**2) ** 2 + spread**2)
    below = 1 - delta**2 + spread**2
    return delta, max((middle - half) / below, -1.0), min((middle + half) / below, 1.0)


# ---------------------------------------------------------------------- neighbours


def _stretch(values: Sequence[float]) -> float:
    """By how much an interval is too narrow that takes neighbours in time for independent.

    Of values that follow each other by a first-order process (Bartlett 1935); chance alone makes
    neighbours a little alike, so only what is beyond that counts.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    total = math.fsum((value - mean) ** 2 for value in values)
    if n < 3 or not total:
        return 1.0
    lagged = math.fsum((a - mean) * (b - mean) for a, b in pairwise(values)) / total
    if lagged <= _LAGGED / math.sqrt(n):
        return 1.0
    likeness = min(lagged + (1 + 3 * lagged) / n, 0.95)  # it is estimated too low by about that
    return math.sqrt((1 + likeness) / (1 - likeness))
