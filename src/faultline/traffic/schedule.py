"""How much load there is when: a curve of straight pieces, and the instant of every request on it.

Pure. Request number n of the open model is due when the area under the curve is n: at a constant
rate that is n / rate, and on a ramp the requests draw evenly closer. Several generators share one
curve by taking every n-th number, so what they send together is the schedule of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from faultline.traffic.model import SECOND


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int  # ns from the beginning
    length: int  # ns; 0: for ever
    first: float
    last: float
    before: float  # the area under all pieces before this one

    @property
    def area(self) -> float:
        if not self.length:
            return math.inf if self.first else 0.0
        return (self.first + self.last) / 2 * self.length / SECOND

    def value(self, at: int) -> float:
        if not self.length:
            return self.first
        return self.first + (self.last - self.first) * (at - self.start) / self.length

    def reach(self, area: float) -> int:
        """The instant at which the area within this piece is so much."""
        if self.first == self.last:
            return self.start + round(area * SECOND / self.first)
        slope = (self.last - self.first) * SECOND / self.length
        root = math.sqrt(max(self.first**2 + 2 * slope * area, 0.0))
        at = self.start + round(2 * area / (self.first + root) * SECOND) if area else self.start
        return min(at, self.start + self.length)


class Curve:
    """Starts at `first`; each stage goes on evenly to its value; the last value stays."""

    def __init__(self, first: float, stages: Sequence[tuple[int, float]] = ()) -> None:
        """`stages`: how long each takes in ns (0: a jump), and its value at the end."""
        self._pieces: list[_Piece] = []
        start, value, area = 0, first, 0.0
        for length, last in stages:
            if length:
                piece = _Piece(start, length, value, last, area)
                self._pieces.append(piece)
                start, area = start + length, area + piece.area
            value = last
        self._pieces.append(_Piece(start, 0, value, value, area))
        self._at = 0  # the piece of the last question: numbers are asked for in order

    @property
    def constant(self) -> bool:
        return len(self._pieces) == 1

    def value(self, at: int) -> float:
        """The height at an instant, ns from the beginning."""
        piece = next(p for p in self._pieces if not p.length or at < p.start + p.length)
        return piece.value(max(at, 0))

    def when(self, number: int) -> int | None:
        """When request `number` (from 0) is due, ns from the beginning; None: never."""
        if number < self._pieces[self._at].before:
            self._at = 0
        while True:
            piece = self._pieces[self._at]
            within = number - piece.before
            if within < piece.area:
                return piece.reach(within)
            if not piece.length:
                return None
            self._at += 1
