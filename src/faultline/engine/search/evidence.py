"""What the trials say about where the threshold is.

The threshold is the worst value at which a trial holds with the asked probability. For every
position at which it could be, a bet runs against it: on breaking at milder values, on holding at
worse ones. Under the true position no bet can win on average, whatever is tried next and whenever
one stops, so a position whose bets have multiplied the stake by 1 / (1 - confidence) is refuted
with that confidence (Ville's inequality). Positions that are not refuted are the interval. All
that is assumed is that a worse value is not borne more often; no shape of the curve is.

The size of a bet on a trial follows from the trials before it: what is believed about the value,
and what was seen there. A belief that is wrong makes bets that win less, and no wrong interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from faultline.engine.search.axis import Axis
from faultline.engine.search.belief import Belief
from faultline.engine.search.settings import BOLDEST, Entry, Outcome, Settings

_WEIGHT = 4.0  # how many trials at a value the belief about it is worth
_SURE = math.log(100)  # what it takes to say that the trials contradict each other


@dataclass(slots=True)
class Seen:
    """All trials at one value."""

    value: float
    held: int = 0
    broke: int = 0
    no_answer: int = 0
    for_holding: float = 0.0
    """What the bet has won that this value is borne, in nats."""
    for_breaking: float = 0.0
    """And that it is not."""

    @property
    def answers(self) -> int:
        return self.held + self.broke

    def add(self, held: bool, expected: float, share: float) -> None:
        """Settle the bets on one more trial, with odds made from those before."""
        believed = (self.held + _WEIGHT * expected) / (self.answers + _WEIGHT)
        believed = min(max(believed, share * (1 - BOLDEST)), share + (1 - share) * BOLDEST)
        self.for_holding += _won(max(believed, share), share, held)
        self.for_breaking += _won(min(believed, share), share, held)
        if held:
            self.held += 1
        else:
            self.broke += 1


def divergence(believed: float, share: float) -> float:
    """What a bet wins on average when trials hold with another probability than the asked one."""
    bold = min(max(believed, share * (1 - BOLDEST)), share + (1 - share) * BOLDEST)
    return bold * math.log(bold / share) + (1 - bold) * math.log((1 - bold) / (1 - share))


def _won(believed: float, share: float, good: bool) -> float:
    return math.log(believed / share if good else (1 - believed) / (1 - share))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was tried, the mildest first, and what follows."""

    seen: tuple[Seen, ...]
    against: tuple[float, ...]
    """Against each place of the threshold, in nats: before the first value, at it, between it and
    the second, and so on: 2 n + 1 places."""
    settings: Settings

    @property
    def needed(self) -> float:
        return self.settings.needed

    @property
    def contradictory(self) -> bool:
        """Whether no place at all is left."""
        return min(self.against) >= _SURE

    def interval(self) -> tuple[float | None, float | None]:
        """The worst value known to be borne, the mildest known not to be."""
        if min(self.against) >= self.needed:
            return self._cautious()
        left = [place for place, nats in enumerate(self.against) if nats < self.needed]
        first, last = left[0], left[-1]
        if first == last and first % 2:  # exactly at a value that was tried: it is on neither side
            first, last = first - 1, last + 1
        borne = self.seen[(first - 1) // 2].value if first else None
        not_borne = self.seen[last // 2].value if last < 2 * len(self.seen) else None
        return borne, not_borne

    def beside(self, value: float, *, holding: bool) -> float:
        """Against the threshold being just milder than a value, or just worse (`holding` false)."""
        values = [each.value for each in self.seen]
        if value in values:
            return self.against[2 * values.index(value) + (0 if holding else 2)]
        worse = self.settings.larger_is_worse
        index = sum(1 for each in values if (each < value) == worse)
        return self.against[2 * index]

    def _cautious(self) -> tuple[float | None, float | None]:
        """Where the trials contradict each other: what holds and is followed by nothing that breaks
        before it, and the same from the other end.
        """
        breaks = [i for i, each in enumerate(self.seen) if each.for_breaking >= self.needed / 2]
        holds = [i for i, each in enumerate(self.seen) if each.for_holding >= self.needed / 2]
        first = min(breaks, default=len(self.seen))
        last = max(holds, default=-1)
        borne = [i for i in holds if i < first]
        not_borne = [i for i in breaks if i > last]
        return (
            self.seen[max(borne)].value if borne else None,
            self.seen[min(not_borne)].value if not_borne else None,
        )

    def contradiction(self) -> tuple[Seen, Seen] | None:
        """A value that breaks and a worse one that holds, if the trials say so."""
        if not self.contradictory:
            return None
        pairs = [
            (mild.for_breaking + worse.for_holding, -index, -other)
            for index, mild in enumerate(self.seen)
            for other, worse in enumerate(self.seen[index + 1 :], index + 1)
        ]
        if not pairs:
            return None
        _, index, other = max(pairs)
        return self.seen[-index], self.seen[-other]


class Ledger:
    """The trials so far, the bets on them, and what is believed meanwhile."""

    def __init__(self, settings: Settings, history: Iterable[Entry] = ()) -> None:
        self.settings = settings
        self.axis = Axis(settings)
        self.belief = Belief(settings, self.axis)
        self.history: list[Entry] = []
        self.seen: dict[float, Seen] = {}
        for entry in history:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Settle the bets on one more trial, then learn from it."""
        self.history.append(entry)
        seen = self.seen.setdefault(entry.value, Seen(entry.value))
        if entry.outcome is Outcome.NO_ANSWER:
            seen.no_answer += 1
            return
        held = entry.outcome is Outcome.HELD
        position = self.axis.at(entry.value)
        seen.add(held, self.belief.expect(position), self.settings.share)
        self.belief.learn(position, held)

    def evidence(self) -> Evidence:
        """What follows from them."""
        seen = tuple(sorted(self.seen.values(), key=lambda each: self.axis.at(each.value)))
        nats = sum(each.for_holding for each in seen)
        against = [nats]
        for each in seen:
            nats -= each.for_holding
            against.append(nats)
            nats += each.for_breaking
            against.append(nats)
        return Evidence(seen, tuple(against), self.settings)
