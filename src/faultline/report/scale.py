"""From values to places on a picture: linear and logarithmic scales with readable ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)
_TINY = 1e-290  # smaller numbers have too few digits left to make round ones of


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `at` gives a place between 0 (low) and 1 (high)."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where `value` lies, limited to the axis: what is outside is drawn at its edge."""
        if self.log:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)

    def place(self, share: float) -> float:
        """The value that lies at `share`: the inverse of `at`."""
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + share * (self.high - self.low)

    def ticks(self, count: int = 4) -> list[float]:
        """Round values inside the axis, about `count` of them."""
        return (
            _log_ticks(self.low, self.high, count)
            if self.log
            else ticks(self.low, self.high, count)
        )


def ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, both included."""
    raw = (high - low) / max(count, 1)
    if not math.isfinite(raw) or raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * s for s in _STEPS if power * s >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [_round(i * step) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [_round(10.0**p * s) for p in range(first, last + 1) for s in _STEPS[:3]]
    coarse = [10.0**p for p in range(first, last + 1)]
    inside = [v for v in fine if low * 0.999 <= v <= high * 1.001]
    if len(inside) <= count + 2:
        return inside
    decades = [v for v in coarse if low * 0.999 <= v <= high * 1.001]
    every = max(1, math.ceil(len(decades) / (count + 2)))
    return decades[::every]


def fit(values: Iterable[float], *, log: bool = False, zero: bool = True) -> Scale:
    """The axis that holds `values` with a little air; a linear one begins at nought if `zero`."""
    known = [v for v in values if math.isfinite(v)]
    if log:
        known = [v for v in known if v > _TINY]
        high = max(known, default=10.0)
        low = max(min(known, default=1.0), high * 1e-9)  # nine decades are more than can be read
        return Scale(low / 1.3, max(high * 1.3, low * 10.0 / 1.3), log=True)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if zero and low >= 0:
        low = 0.0
    air = (high - low) * 0.08 or abs(high) * 0.5 or 1.0
    below = air if low else (high + air) * 0.03  # a curve that lies at nought is seen whole
    return Scale(low - below, high + air)


def wants_log(values: Iterable[float]) -> bool:
    """Whether a linear axis would flatten the small values: the spread is more than thirtyfold."""
    known = sorted(v for v in values if math.isfinite(v) and v > 0)
    if len(known) < 8:
        return False
    return known[-1] > 30 * known[len(known) // 20]


def _round(value: float) -> float:
    return float(f"{value:.12g}")
