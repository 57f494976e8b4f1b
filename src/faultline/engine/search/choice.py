"""The value whose trial tells most.

First the place of the threshold is halved, in probability and not in length, so that one wrong
trial costs some more and misleads nobody. Once it is pinned between two values that are as close
as was asked, these two are repeated until the interval is proven, the one that lacks less first.
Where that would take too long, because the answers there are mixed, values further out are proven
before: an interval that is wide but there is better than none.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right

from faultline.engine.search.budget import breaks_left
from faultline.engine.search.evidence import Evidence, Ledger, Seen, divergence
from faultline.engine.search.outcome import isotonic

_HOPE = 1.0  # how many trials the belief about a value is worth, when its cost is estimated
_PATIENCE = 8  # how many times as many trials as for a clear value are given to any, at first
_FEW = 2  # when so few trials may still break, the milder end of the interval is proven at once


class Choice:
    """The value that tells most now."""

    def __init__(self, ledger: Ledger, evidence: Evidence) -> None:
        self._settings = ledger.settings
        self._axis = ledger.axis
        self._belief = ledger.belief
        self._history = ledger.history
        self._seen = ledger.seen
        self._evidence = evidence
        self._middle = ledger.belief.quantile(0.5)
        self._left = breaks_left(ledger.settings, ledger.history)
        self._curve = self._smoothed()

    def value(self) -> float | None:
        """None where nothing that may still be tried would narrow the interval."""
        last = self._history[-1].value if self._history else None
        if last is not None and self._seen[last].answers < self._settings.least:
            return last
        if self._left <= _FEW and (safe := self._proving(holding=True)) is not None:
            return safe  # what is borne must be known before the last break is spent
        lower, upper = self._around(self._middle)
        if not self._axis.narrow(lower, upper):
            wanted = self._belief.quantile(self._boldness(lower, upper))
            if (found := self._halved(wanted)) is not None:
                return found
        return self._proving()

    def _free(self, value: float) -> bool:
        """Whether a value may be tried once more."""
        return value not in self._seen or self._seen[value].answers < self._settings.repeats

    # ------------------------------------------------------------------ halving

    @property
    def _values(self) -> list[float]:
        """What was tried and the ends of the range, the mildest first."""
        axis = self._axis
        ends = {axis.value(axis.first), axis.value(axis.last)}
        return sorted(ends | self._seen.keys(), key=axis.at)

    def _around(self, position: float) -> tuple[float, float]:
        """The nearest of these on both sides of a position."""
        values = self._values
        if position <= self._axis.first:
            return values[0], values[0]
        index = bisect_right([self._axis.at(value) for value in values], position)
        return values[max(index - 1, 0)], values[min(index, len(values) - 1)]

    def _halved(self, position: float) -> float | None:
        """A new value at a position, or an end of the range where the threshold may be beyond."""
        axis = self._axis
        lower, upper = self._around(position)
        if axis.narrow(lower, upper):
            near = min((lower, upper), key=lambda value: abs(axis.at(value) - position))
            return near if self._free(near) else None
        return axis.between(lower, upper, position)

    def _boldness(self, lower: float, upper: float) -> float:
        """Which quantile to try: the middle, or a milder one where few more trials may break."""
        if self._left == math.inf:
            return 0.5
        axis = self._axis
        parts = max(abs(upper - lower) / axis.width(max(lower, upper)), 2.0)
        return min(0.5, max(0.15, (self._left - self._settings.clear) / math.log2(parts) / 2))

    # ------------------------------------------------------------------ proving

    def _proving(self, *, holding: bool = False) -> float | None:
        """The value whose repetition proves most: on each side the one nearest to the threshold
        that can be decided with patience, and more patience only where none is left. With
        `holding`, only what seems to be borne.
        """
        lower, upper = self._pair(self._middle)
        costs = {
            value: cost
            for value in self._candidates()
            if (cost := self._cost(value, lower, upper)) is not None
            and (not holding or self._holds(value))
        }
        if not costs:
            return None
        patience = _PATIENCE * self._settings.clear
        while not (cheap := {v: cost for v, cost in costs.items() if cost <= patience}):
            patience *= 2
        at = self._axis.at
        mild = max((v for v in cheap if self._holds(v)), key=at, default=None)
        worse = min((v for v in cheap if not self._holds(v)), key=at, default=None)
        if mild is None or worse is None:
            return worse if mild is None else mild
        if self._left < math.inf:
            return mild
        if cheap[mild] != cheap[worse]:
            return mild if cheap[mild] < cheap[worse] else worse
        draw = random.Random(f"{self._settings.seed}:{len(self._history)}").random()
        return mild if draw < 0.5 else worse

    def _pair(self, middle: float) -> tuple[float, float]:
        """Two tried values around the middle: the widest pair within the tolerance, or the nearest;
        closer ones would not have to be proven.
        """
        at, values = self._axis.at, self._values
        if middle <= self._axis.first:
            return values[0], values[0]
        mild = [value for value in values if at(value) <= middle]
        worse = [value for value in values if at(value) > middle]
        pairs = [
            (at(upper) - at(lower), lower, upper)
            for lower in mild
            for upper in worse
            if self._axis.narrow(lower, upper)
        ]
        return max(pairs)[1:] if pairs else self._around(middle)

    def _candidates(self) -> list[float]:
        """What was tried, and new values ever further from the middle."""
        axis, found = self._axis, list(self._values)
        plain = axis.value(self._middle)
        apart = axis.width(plain) / 2
        while apart < self._settings.high - self._settings.low:
            for sign in (-1, 1):
                wanted = min(max(plain + sign * apart, self._settings.low), self._settings.high)
                lower, upper = self._around(axis.at(wanted))
                near = min(abs(wanted - lower), abs(wanted - upper))
                new = axis.between(lower, upper, axis.at(wanted)) if near > apart / 3 else None
                if new is not None:
                    found.append(new)
            apart *= 2
        return found

    def _cost(self, value: float, lower: float, upper: float) -> float | None:
        """How many trials it probably takes to decide a value; None where that would be of no use,
        or never come.
        """
        at, share = self._axis.at, self._fitted(value)
        holding = self._holds(value)
        borne, not_borne = self._evidence.interval()
        if holding:
            useful = at(value) <= at(lower) and (borne is None or at(value) > at(borne))
        else:
            useful = at(value) >= at(upper) and (not_borne is None or at(value) < at(not_borne))
        if not useful or not self._free(value) or share == self._settings.share:
            return None
        lacking = self._evidence.needed - self._evidence.beside(value, holding=holding)
        return max(1.0, lacking / divergence(share, self._settings.share))

    def _holds(self, value: float) -> bool:
        """Whether a value seems to be borne."""
        return self._fitted(value) > self._settings.share

    def _smoothed(self) -> list[tuple[Seen, float]]:
        """Every value with the share that probably holds there: one trial more than there were,
        which came out as is believed.
        """
        known = [each for each in self._evidence.seen if each.answers]
        expected = [self._belief.expect(self._axis.at(each.value)) for each in known]
        pairs = [
            (each.held + _HOPE * one, each.answers + _HOPE)
            for each, one in zip(known, expected, strict=True)
        ]
        return list(zip(known, isotonic(pairs), strict=True))

    def _fitted(self, value: float) -> float:
        """How often a trial there probably holds: the shares seen, smoothed and interpolated."""
        axis, expect = self._axis, self._belief.expect
        if not self._curve:
            return expect(axis.at(value))
        known = [(axis.at(each.value), fitted) for each, fitted in self._curve]
        position = axis.at(value)
        before = [pair for pair in known if pair[0] <= position]
        behind = [pair for pair in known if pair[0] >= position]
        left = before[-1] if before else (axis.first, max(known[0][1], expect(axis.first)))
        right = behind[0] if behind else (axis.last, min(known[-1][1], expect(axis.last)))
        if left[0] == right[0]:
            return left[1]
        part = (position - left[0]) / (right[0] - left[0])
        return left[1] + (right[1] - left[1]) * part
