"""What a search is asked for and what it has seen, as plain data.

Values are numbers in one unit (nanoseconds, bytes, bits per second, percent): whoever knows the
unit reads and writes the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

BOLDEST = 0.9
"""The most of a stake that is put on one trial."""


class Outcome(StrEnum):
    """What a trial said. What was not measured, or had no effect, says nothing."""

    HELD = "held"
    BROKE = "broke"
    NO_ANSWER = "no answer"


class Why(StrEnum):
    """Why a search ended."""

    NARROW = "narrow enough"
    ALL_HELD = "everything holds at the end of the range"
    NONE_HELD = "nothing holds at the beginning of the range"
    TRIALS = "the most trials"
    TIME = "the longest time"
    ERRORS = "the error budget"
    NOISE = "too noisy for more"
    CONTRADICTION = "not monotone"
    BLIND = "not measured"


@dataclass(frozen=True, slots=True)
class Settings:
    """What to look for, how surely, and at which cost."""

    low: float
    """The smallest value that may be tried."""
    high: float
    """The largest."""
    tolerance: float
    """The search ends when the interval is as narrow as this: in the unit of the values, or as a
    share of the larger end of the interval if `relative`."""
    relative: bool = False
    scale: Literal["linear", "log"] = "linear"
    step: float = 0.0
    """No value is finer than a multiple of this; nought: as fine as it comes."""
    binary: bool = False
    """Whether round values are powers of two (sizes) and not of ten."""
    larger_is_worse: bool = True
    share: float = 0.5
    """A value is borne when a trial at it holds with at least this probability."""
    confidence: float = 0.9
    """How surely the threshold lies in the interval."""
    least: int = 1
    """Trials with an answer that a value gets at least, once it is tried."""
    most: int = 0
    """And at most; nought: eight times as many as a clear value needs."""
    blind: int = 3
    """So many trials in a row without an answer end the search."""
    trials: int = 100
    """Trials in all, those without an answer too."""
    seconds: float = math.inf
    """The longest time; no trial is begun that would not end within it."""
    broken_trials: int | None = None
    """How many trials may break; no trial is begun whose break would be one too many."""
    broken_seconds: float = math.inf
    """For how long the system may be broken, in all."""
    hold: float = 0.0
    """Seconds that the fault stays in a trial."""
    waits: float = 0.0
    """Seconds of warm-up and cool-down that a trial takes besides."""
    seed: int = 0
    """Decides what is equally good."""

    def __post_init__(self) -> None:
        sound = {
            "low < high": self.low < self.high,
            "low > 0 on a logarithmic scale": self.scale == "linear" or self.low > 0,
            "tolerance > 0": self.tolerance > 0,
            "0 < share < 1": 0 < self.share < 1,
            "0.5 <= confidence < 1": 0.5 <= self.confidence < 1,
            "1 <= least": self.least >= 1,
            "least <= most": self.most == 0 or self.least <= self.most,
            "1 <= blind": self.blind >= 1,
            "1 <= trials": self.trials >= 1,
        }
        if wrong := [rule for rule, kept in sound.items() if not kept]:
            raise ValueError(f"expected {', '.join(wrong)}")

    @property
    def needed(self) -> float:
        """How much evidence refutes a position of the threshold, in nats."""
        return -math.log(1 - self.confidence)

    @property
    def clear(self) -> int:
        """Trials that a value needs which always holds, or always breaks; the worse of the two."""
        hardest = max(self.share, 1 - self.share)
        return math.ceil(self.needed / math.log(1 + BOLDEST * (1 - hardest) / hardest))

    @property
    def repeats(self) -> int:
        """The most trials with an answer at one value."""
        return self.most or max(self.least, 8 * self.clear)


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial that was made."""

    value: float
    outcome: Outcome
    seconds: float = 0.0
    """What it took, with its waits."""
    broken: float | None = None
    """For how many seconds the system was broken; None: as long as the fault stayed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The trial to be made next."""

    value: float
    repeat: int
    """The how-manieth at this value, from 1; trials without an answer count."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was seen at one value."""

    value: float
    held: int
    broke: int
    no_answer: int
    share: float | None
    """How many of those with an answer held."""
    low: float
    """Clopper-Pearson interval of that share, each value by itself."""
    high: float
    fitted: float | None
    """The same share with the trials at all other values taken into account: the nearest curve that
    never rises where things get worse."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found out, so far or in the end."""

    why: Why | None
    """Why it ended; None: it has not."""
    borne: float | None
    """The worst value that is known to be borne; None: none is."""
    not_borne: float | None
    """The least bad value that is known not to be borne; None: none is."""
    estimate: float | None
    """Where the threshold most probably is; None: not within the range."""
    monotone: bool
    """False: the trials contradict that worse values are borne less."""
    text: str
    """What contradicts itself, in words; `{0}` and `{1}` stand for the two values."""
    contradiction: tuple[float, float] | None = None
    curve: tuple[Point, ...] = field(default_factory=tuple[Point, ...])
    trials: int = 0
    broke: int = 0
    no_answer: int = 0
    seconds: float = 0.0
    broken_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """There is nothing more to try."""

    result: Found
