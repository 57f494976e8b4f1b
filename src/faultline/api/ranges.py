"""Values from one to another, in the unit in which a person wrote them."""

from __future__ import annotations

import math
from fractions import Fraction

from faultline import units
from faultline.errors import InvalidParameter

MOST = 1000
"""Values that one range may have."""

_QUANTITIES = (units.Duration, units.ByteRate, units.Size, units.Rate, units.Percent)
Bound = int | float | str


def spread(start: Bound, stop: Bound, step: Bound) -> list[Bound]:
    """`start`, `start + step` ... up to `stop`, which may be the last; raises InvalidParameter.

    All three are plain numbers or quantities of one kind. A negative step counts down.
    """
    bounds = (start, stop, step)
    if any(isinstance(each, bool) for each in bounds):
        raise InvalidParameter("range", bounds, "numbers or quantities")
    if not any(isinstance(each, str) for each in bounds):
        return _numbers(start, stop, step)  # pyright: ignore[reportArgumentType]
    sign = -1 if str(step).startswith("-") else 1
    texts = [str(each).removeprefix("-") if each is step else str(each) for each in bounds]
    for kind in _QUANTITIES:
        try:
            first, last, width = (kind.parse(each, "range") for each in texts)
        except InvalidParameter:
            continue
        return [str(kind(each)) for each in _numbers(first, last, sign * width)]
    raise InvalidParameter("range", bounds, "three quantities of one kind, each with its unit")


def _numbers(start: float, stop: float, step: float) -> list[Bound]:
    if not all(math.isfinite(each) for each in (start, stop, step)):
        raise InvalidParameter("range", step, "finite numbers")
    first, last, width = (Fraction(str(each + 0)) for each in (start, stop, step))
    if width == 0 or (last - first) * width < 0:
        raise InvalidParameter("range", step, "a step that leads from start to stop")
    count = math.floor((last - first) / width) + 1
    if count > MOST:
        raise InvalidParameter("range", count, f"at most {MOST} values")
    whole = all(isinstance(each, int) for each in (start, stop, step))
    found = [first + index * width for index in range(count)]
    return [int(each) if whole else float(each) for each in found]
