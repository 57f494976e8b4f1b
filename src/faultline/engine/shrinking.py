"""The smallest set of faults that still fails: delta debugging, with answers that may differ.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002). The next
set to try follows from the history alone, so whoever goes on with a history asks for the same sets.
What is found is minimal in the sense that none of its faults can be left out alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What trying a set of faults gave."""

    FAILED = "failed"
    PASSED = "passed"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Settings:
    """How surely a set must fail, and at which cost."""

    repeats: int = 1
    """How often a set is tried at most."""
    failures: int = 1
    """How often of these it must fail to count as failing; the trying ends when it is decided."""
    blind: int = 2
    """After so many trials without an answer a set is given up: it is neither, and not minimal."""
    trials: int = 100
    """How many trials in all."""

    def __post_init__(self) -> None:
        if not 1 <= self.failures <= self.repeats:
            raise ValueError("expected 1 <= failures <= repeats")
        if self.blind < 1 or self.trials < 1:
            raise ValueError("expected blind and trials from 1")


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial that was made."""

    faults: tuple[str, ...]
    answer: Answer


@dataclass(frozen=True, slots=True)
class Ask:
    """The set to be tried next."""

    faults: tuple[str, ...]
    repeat: int
    """The how-manieth trial of it, from 1."""


@dataclass(frozen=True, slots=True)
class Done:
    """There is nothing more to try."""

    faults: tuple[str, ...]
    """The smallest set that fails; of no use if `fails` is false."""
    fails: bool
    """Whether the whole set failed again."""
    minimal: bool
    """Whether it is proven that none of these faults can be left out alone."""
    why: str


class _Needed(Exception):
    """A set of which it is not yet known whether it fails."""

    def __init__(self, faults: tuple[str, ...], repeat: int) -> None:
        super().__init__(faults)
        self.ask = Ask(faults, repeat)


def next_subset(
    faults: Sequence[str], history: Sequence[Entry], settings: Settings | None = None
) -> Ask | Done:
    """The next set to try, in the order of `faults`, or the result."""
    settings = settings or Settings()
    if not faults or len(set(faults)) < len(faults):
        raise ValueError("expected at least one fault, and none twice")
    work = _Work(settings, tuple(faults), history)
    try:
        return work.reduce()
    except _Needed as needed:
        if len(history) < settings.trials:
            return needed.ask
        return Done(work.smallest, work.fails, minimal=False, why="the most trials")


class _Work:
    """The algorithm over what is known."""

    def __init__(
        self, settings: Settings, faults: tuple[str, ...], history: Sequence[Entry]
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._answers: dict[frozenset[str], list[Answer]] = {}
        for entry in history:
            self._answers.setdefault(frozenset(entry.faults), []).append(entry.answer)
        self.smallest: tuple[str, ...] = faults
        self.fails = False
        self._blind = False

    def reduce(self) -> Done:
        """Raises _Needed for the first set that has to be tried."""
        if not self._failing(self._faults):
            why = "it could not be measured again" if self._blind else "it did not fail again"
            return Done(self._faults, fails=False, minimal=False, why=why)
        self.fails = True
        parts = 2
        while len(self.smallest) > 1:
            chunks = _split(self.smallest, parts)
            rests = [self._without(chunk) for chunk in chunks] if parts > 2 else []
            found = next((chunk for chunk in chunks if self._failing(chunk)), None)
            if found is not None:
                self.smallest, parts = found, 2
                continue
            found = next((rest for rest in rests if self._failing(rest)), None)
            if found is not None:
                self.smallest, parts = found, max(parts - 1, 2)
            elif parts < len(self.smallest):
                parts = min(2 * parts, len(self.smallest))
            else:
                break
        open_ones = any(self._undecided(self._without((each,))) for each in self.smallest)
        why = "without one of them it could not be measured" if open_ones else "minimal"
        return Done(self.smallest, fails=True, minimal=not open_ones, why=why)

    def _without(self, left_out: Sequence[str]) -> tuple[str, ...]:
        return tuple(each for each in self.smallest if each not in left_out)

    def _failing(self, faults: tuple[str, ...]) -> bool:
        asked, answers = self._settings, self._answers.get(frozenset(faults), [])
        failed = answers.count(Answer.FAILED)
        passed = answers.count(Answer.PASSED)
        if failed >= asked.failures:
            return True
        if passed > asked.repeats - asked.failures:
            return False
        if answers.count(Answer.NO_ANSWER) >= asked.blind:
            self._blind = True
            return False
        raise _Needed(faults, len(answers) + 1)

    def _undecided(self, faults: tuple[str, ...]) -> bool:
        """Whether a set was given up without an answer."""
        if not faults:
            return False
        asked, answers = self._settings, self._answers.get(frozenset(faults), [])
        return (
            answers.count(Answer.FAILED) < asked.failures
            and answers.count(Answer.PASSED) <= asked.repeats - asked.failures
        )


def _split(faults: tuple[str, ...], parts: int) -> list[tuple[str, ...]]:
    """Chunks of as equal a size as possible, in order, none empty."""
    size, more = divmod(len(faults), parts)
    found: list[tuple[str, ...]] = []
    start = 0
    for index in range(parts):
        end = start + size + (index < more)
        found.append(faults[start:end])
        start = end
    return [chunk for chunk in found if chunk]
