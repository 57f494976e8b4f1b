"""When lines are due, and which latencies they tell of: pure arithmetic, for the worker that writes
and for whoever counts what was written.
"""

from __future__ import annotations

import math

SHAPES = ("exponential", "uniform", "pareto", "constant")


def due(n: int, interval: int, ramp: int) -> int:
    """Nanoseconds after the start at which line number `n`, from 0, is due.

    Over `ramp` the rate grows evenly from nothing to one line per `interval`.
    """
    whole = ramp // (2 * interval)  # lines that fit into the ramp
    if n < whole:
        return math.isqrt(2 * ramp * n * interval)
    return ramp + (n - whole) * interval if ramp else n * interval


def lines_by(elapsed: int, interval: int, ramp: int) -> int:
    """How many lines are due within `elapsed` nanoseconds of the start."""
    if elapsed < 0:
        return 0
    whole = ramp // (2 * interval)
    if ramp and elapsed < ramp:
        return min(whole, elapsed * elapsed // (2 * ramp * interval)) + 1
    return whole + (elapsed - ramp) // interval + 1


def chosen(n: int, share: float) -> bool:
    """Whether line `n` is one of a share (0..1) of the lines, which are spread evenly."""
    return math.floor((n + 1) * share + 1e-9) > math.floor(n * share + 1e-9)


def latency(shape: str, low: int, mean: int, random: float) -> int:
    """A latency of a distribution from `low` on with this mean; `random` is from 0 to below 1.

    `pareto` is the one with the long tail; it needs a `low` above 0.
    """
    if shape == "constant" or mean <= low:
        return mean
    if shape == "uniform":
        return low + round(2 * random * (mean - low))
    if shape == "pareto":
        return round(low * (1 - random) ** -((mean - low) / mean))
    return low - round(math.log(1 - random) * (mean - low))
