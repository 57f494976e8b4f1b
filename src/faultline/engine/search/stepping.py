"""Which trial comes next, from the history alone: the same history gives the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from faultline.engine.search.axis import Axis
from faultline.engine.search.budget import breaks_left, broken_seconds
from faultline.engine.search.choice import Choice
from faultline.engine.search.evidence import Evidence, Ledger
from faultline.engine.search.outcome import conclude
from faultline.engine.search.settings import Done, Entry, Outcome, Settings, Trial, Why


def next_step(settings: Settings, history: Sequence[Entry]) -> Trial | Done:
    """The next trial, or the result of all."""
    return step_after(Ledger(settings, history))


def step_after(ledger: Ledger) -> Trial | Done:
    """The same for a ledger that is kept up to date."""
    settings, history, evidence = ledger.settings, ledger.history, ledger.evidence()
    why = _ended(settings, ledger.axis, evidence, history) or _spent(settings, history)
    if why is None:
        value = Choice(ledger, evidence).value()
        if value is not None:
            return Trial(value, 1 + sum(1 for entry in history if entry.value == value))
        why = Why.NOISE
    return Done(conclude(ledger, evidence, why))


def _ended(
    settings: Settings, axis: Axis, evidence: Evidence, history: Sequence[Entry]
) -> Why | None:
    """Whether the answer is there, or there can be none."""
    silent = takewhile(lambda entry: entry.outcome is Outcome.NO_ANSWER, reversed(history))
    if sum(1 for _ in silent) >= settings.blind:
        return Why.BLIND
    if evidence.contradictory:
        return Why.CONTRADICTION
    borne, not_borne = evidence.interval()
    if borne is not None and axis.at(borne) == axis.last:
        return Why.ALL_HELD
    if not_borne is not None and axis.at(not_borne) == axis.first:
        return Why.NONE_HELD
    if borne is not None and not_borne is not None and axis.narrow(borne, not_borne):
        return Why.NARROW
    return None


def _spent(settings: Settings, history: Sequence[Entry]) -> Why | None:
    """Whether one more trial could cost more than is allowed, also if it breaks throughout."""
    if len(history) >= settings.trials:
        return Why.TRIALS
    taken = sum(entry.seconds for entry in history)
    if taken + settings.hold + settings.waits > settings.seconds:
        return Why.TIME
    broken = broken_seconds(settings, history)
    if broken + settings.hold > settings.broken_seconds or breaks_left(settings, history) < 1:
        return Why.ERRORS
    return None
