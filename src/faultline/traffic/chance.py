"""What a load chooses at random: drawn from its seed and the number of the turn alone.

So turn 17 chooses the same in every run with the seed, in whichever order answers come. The numbers
are those of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
2014): setting up one of the standard library's generators would cost more than many a request.
Standard library only: the generator loads it.
"""

from __future__ import annotations

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15


def _mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Chance:
    """The draws of one turn, or of one user."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, number: int, what: int = 0) -> None:
        """`what` tells draws apart that must not follow each other."""
        begin = _mixed((seed + _STEP * (what + 1)) & _MASK)
        self._state = (begin + _mixed((number * _STEP) & _MASK)) & _MASK

    def random(self) -> float:
        """From 0 to below 1."""
        self._state = (self._state + _STEP) & _MASK
        return (_mixed(self._state) >> 11) / 2**53

    def below(self, count: int) -> int:
        """A whole number from 0 to below `count`."""
        return int(self.random() * count)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()
