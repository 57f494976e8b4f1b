"""Where the threshold probably is, by Bayes' rule: for choosing what to try and how to bet.

The model is crude on purpose (milder values hold and worse ones break, but for a share of trials
that is not known), because nothing that is claimed rests on it: with a wrong model a search takes
longer, its interval stays right.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise

from faultline.engine.search.axis import Axis
from faultline.engine.search.settings import Settings

_NOISES = (0.02, 0.1, 0.25, 0.4)  # how often a trial goes against its value
_OUTSIDE = 0.08  # how probable the threshold is on either side of the range, before any trial


class Belief:
    """A distribution over the places between the values that were tried, for each noise.

    Place 0 is before the range, place i between the marks i - 1 and i, the last behind the range.
    """

    def __init__(self, settings: Settings, axis: Axis) -> None:
        share = settings.share
        self._marks = [axis.first, axis.last]
        inside = 1 - 2 * _OUTSIDE
        even = 1 / len(_NOISES)
        self._masses = [[_OUTSIDE * even, inside * even, _OUTSIDE * even] for _ in _NOISES]
        # How probably a trial holds at a value that is milder than the threshold, or worse.
        self._odds = [(1 - 2 * noise * (1 - share), 2 * noise * share) for noise in _NOISES]

    def expect(self, position: float) -> float:
        """How probably a trial there holds."""
        place, part = self._find(position)
        found = 0.0
        for masses, (mild, worse) in zip(self._masses, self._odds, strict=True):
            before = sum(masses[:place]) + masses[place] * part
            found += before * worse + (sum(masses) - before) * mild
        return found

    def learn(self, position: float, held: bool) -> None:
        """Take in one trial."""
        place = self._mark(position)
        for masses, (mild, worse) in zip(self._masses, self._odds, strict=True):
            before, behind = (worse, mild) if held else (1 - worse, 1 - mild)
            masses[:] = [m * (before if i < place else behind) for i, m in enumerate(masses)]
        total = sum(map(sum, self._masses))
        for masses in self._masses:
            masses[:] = [mass / total for mass in masses]

    def quantile(self, share: float) -> float:
        """The position below which the threshold is with this probability."""
        marks = self._marks
        ends = [(marks[0], marks[0]), *pairwise(marks), (marks[-1], marks[-1])]
        left = share
        for (begin, end), masses in zip(ends, zip(*self._masses, strict=True), strict=True):
            mass = sum(masses)
            if left <= mass and mass > 0:
                return begin + (end - begin) * left / mass
            left -= mass
        return marks[-1]

    def _find(self, position: float) -> tuple[int, float]:
        """The place that a position is in, and how much of it lies before."""
        place = bisect_left(self._marks, position)
        if self._marks[place] == position:
            return place + 1, 0.0
        begin, end = self._marks[place - 1], self._marks[place]
        return place, (position - begin) / (end - begin)

    def _mark(self, position: float) -> int:
        """Make a position a mark; the place behind it."""
        place, part = self._find(position)
        if position in self._marks:
            return place
        insort(self._marks, position)
        for masses in self._masses:
            mass = masses[place]
            masses[place : place + 1] = [mass * part, mass * (1 - part)]
        return place + 1
