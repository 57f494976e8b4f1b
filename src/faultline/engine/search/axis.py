"""The line on which a search looks: worse is further, distances are those of the scale, and values
are round.
"""

from __future__ import annotations

import math

from faultline.engine.search.settings import Settings

_FINENESS = 4  # values are rounded to so many parts of the tolerance


class Axis:
    """Positions on which a larger one is worse, to and from values."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sign = 1 if settings.larger_is_worse else -1
        ends = sorted((self.at(settings.low), self.at(settings.high)))
        self.first, self.last = ends

    def at(self, value: float) -> float:
        """The position of a value."""
        return self._sign * (math.log(value) if self._settings.scale == "log" else value)

    def value(self, position: float) -> float:
        """The value at a position, not rounded."""
        plain = self._sign * position
        value = math.exp(plain) if self._settings.scale == "log" else plain
        return min(max(value, self._settings.low), self._settings.high)

    def width(self, value: float) -> float:
        """The tolerance at a value, in the unit of values."""
        asked = self._settings
        if not asked.relative:
            return asked.tolerance
        # Nought has no relative tolerance; a thousandth of the range is narrow enough anywhere.
        return asked.tolerance * max(abs(value), (asked.high - asked.low) / 1000)

    def narrow(self, one: float, other: float) -> bool:
        """Whether two values are within the tolerance, or have no value between them."""
        low, high = sorted((one, other))
        apart = high - low
        return apart <= self.width(high) * (1 + 1e-9) or apart <= self._settings.step * (1 + 1e-9)

    def between(self, one: float, other: float, position: float) -> float | None:
        """A round value near the position, truly between two others; None where there is none."""
        low, high = sorted((one, other))
        wanted = self.value(position)
        grain = self._grain(min(self.width(wanted), high - low))
        for rounded in (
            round(wanted / grain),
            math.floor(wanted / grain),
            math.ceil(wanted / grain),
        ):
            if low < rounded * grain < high:
                return _clean(rounded * grain, grain)
        return None

    def safer(self, value: float, margin: float) -> float:
        """A round value that is milder than this one by a share of it, within the range."""
        milder = value - self._sign * margin * abs(value)
        grain = self._grain(max(2 * abs(value - milder), self._settings.step))
        toward = math.floor if self._sign > 0 else math.ceil
        rounded = _clean(toward(milder / grain + self._sign * 1e-9) * grain, grain)
        return min(max(rounded, self._settings.low), self._settings.high)

    def _grain(self, width: float) -> float:
        """The roundest distance that divides a width into enough parts."""
        fine = width / _FINENESS
        if self._settings.binary:
            grain = 2.0 ** math.floor(math.log2(fine))
        else:
            ten = 10.0 ** math.floor(math.log10(fine))
            grain = next(n * ten for n in (5, 2, 1) if n * ten <= fine * (1 + 1e-9))
        least = self._settings.step
        return max(round(grain / least), 1) * least if least else grain


def _clean(value: float, grain: float) -> float:
    """Without the digits that only the arithmetic has made."""
    digits = max(0, 3 - math.floor(math.log10(grain)))
    return round(value, digits)
