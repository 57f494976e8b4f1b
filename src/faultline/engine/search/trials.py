"""A search as the engine carries it out: from its document to values of the parameter and back.

`begin` makes the state, `next_trial` says what to try, `record` takes in how it came out, and the
result stands in the state when there is nothing more to try. All are pure, and whatever engine goes
on with the state asks for the same trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from faultline import units
from faultline.api.search import (
    SearchPoint,
    SearchResult,
    SearchSpec,
    SearchState,
    SearchTrial,
    Value,
    kind_of,
    number_of,
)
from faultline.engine.search.axis import Axis
from faultline.engine.search.evidence import Ledger
from faultline.engine.search.outcome import conclude
from faultline.engine.search.settings import Done, Entry, Found, Outcome, Settings, Trial, Why
from faultline.engine.search.stepping import step_after

Answer = Literal["held", "broke", "no answer"]

_KIB = 1024


@dataclass(frozen=True, slots=True)
class NextTrial:
    """The trial to be made next."""

    value: Value
    """As the fault's parameter takes it."""
    repeat: int
    """The how-manieth at this value, from 1."""
    number: int
    """The how-manieth of all, from 1."""


def settings_of(spec: SearchSpec) -> Settings:
    """What the algorithm is asked for."""
    low, high, kind = number_of(spec.low), number_of(spec.high), kind_of(spec.low)
    whole = kind is None and isinstance(spec.low, int) and isinstance(spec.high, int)
    in_units = kind is not None and kind is not units.Percent
    binary = kind in (units.Size, units.ByteRate) and low % _KIB == 0 and high % _KIB == 0
    budget = spec.error_budget
    return Settings(
        low=low,
        high=high,
        tolerance=number_of(spec.tolerance) / (100 if spec.relative else 1),
        relative=spec.relative,
        scale=spec.scale,
        step=1.0 if whole or in_units else 0.0,
        binary=binary,
        larger_is_worse=spec.worse == "larger",
        share=spec.share.ratio,
        confidence=spec.confidence.ratio,
        least=spec.repeats.min,
        most=spec.repeats.max or 0,
        blind=spec.unanswered,
        trials=spec.max_trials,
        seconds=math.inf if spec.max_time is None else spec.max_time.seconds,
        broken_trials=budget.trials,
        broken_seconds=math.inf if budget.time is None else budget.time.seconds,
        hold=spec.hold.seconds,
        waits=spec.warmup.seconds + spec.cooldown.seconds,
        seed=spec.seed or 0,
    )


def begin(spec: SearchSpec) -> SearchState:
    """A search of which nothing has been tried."""
    return SearchState(spec=spec)


def next_trial(state: SearchState) -> NextTrial | None:
    """What to try next; None when the search has ended."""
    if state.result is not None:
        return None
    step = step_after(_ledger(state))
    if isinstance(step, Done):
        return None
    return NextTrial(_spec(state).value(step.value), step.repeat, len(state.trials) + 1)


def record(
    state: SearchState,
    trial: NextTrial,
    outcome: Answer,
    *,
    seconds: float | None = None,
    broken: float | None = None,
    text: str = "",
) -> SearchState:
    """The state with one more trial, and with the result if that was the last.

    `seconds` is what the trial took with its waits (without it, what it was planned to take), and
    `broken` for how long the probes were broken (without it, all of the hold if it broke).
    """
    settings = settings_of(_spec(state))
    made = SearchTrial(
        value=trial.value,
        repeat=trial.repeat,
        outcome=outcome,
        seconds=settings.hold + settings.waits if seconds is None else seconds,
        broken=broken,
        text=text,
    )
    after = state.model_copy(update={"trials": [*state.trials, made]})
    step = step_after(_ledger(after))
    if isinstance(step, Trial):
        return after
    return after.model_copy(update={"result": _result(_spec(state), settings, step.result)})


def result(state: SearchState) -> SearchResult:
    """What was found; of a search that has not ended, what is known so far."""
    if state.result is not None:
        return state.result
    ledger = _ledger(state)
    step = step_after(ledger)
    if isinstance(step, Done):
        found = step.result
    elif ledger.history:
        found = conclude(ledger, ledger.evidence(), None)
    else:
        found = Found(None, None, None, None, monotone=True, text="")
    return _result(_spec(state), ledger.settings, found)


def _spec(state: SearchState) -> SearchSpec:
    if state.spec is None:
        raise ValueError("a search that was not begun")
    return state.spec


def _ledger(state: SearchState) -> Ledger:
    entries = (
        Entry(number_of(each.value), Outcome(each.outcome), each.seconds, each.broken)
        for each in state.trials
    )
    return Ledger(settings_of(_spec(state)), entries)


# ---------------------------------------------------------------------- the result in words

_ANSWERS: dict[
    Why, Literal["found", "all borne", "none borne", "open", "contradicted", "not measured"]
] = {
    Why.NARROW: "found",
    Why.ALL_HELD: "all borne",
    Why.NONE_HELD: "none borne",
    Why.CONTRADICTION: "contradicted",
    Why.BLIND: "not measured",
}


def _result(spec: SearchSpec, settings: Settings, found: Found) -> SearchResult:
    borne = None if found.borne is None else spec.value(found.borne)
    not_borne = None if found.not_borne is None else spec.value(found.not_borne)
    pinned = None
    if found.borne is not None:
        pinned = spec.value(Axis(settings).safer(found.borne, spec.margin.ratio))
    return SearchResult(
        why=str(found.why or "it goes on"),
        answer="open" if found.why is None else _ANSWERS.get(found.why, "open"),
        borne=borne,
        not_borne=not_borne,
        estimate="" if found.estimate is None else spec.shown(found.estimate),
        confidence=settings.confidence,
        monotone=found.monotone,
        pinned=pinned,
        text=_sentences(spec, found),
        curve=[
            SearchPoint(
                value=spec.value(each.value),
                held=each.held,
                broke=each.broke,
                no_answer=each.no_answer,
                share=each.share,
                low=each.low,
                high=each.high,
                fitted=each.fitted,
            )
            for each in found.curve
        ],
        trials=found.trials,
        broke=found.broke,
        no_answer=found.no_answer,
        seconds=found.seconds,
        broken_seconds=found.broken_seconds,
    )


def _sentences(spec: SearchSpec, found: Found) -> str:
    name = spec.parameter_name
    low = None if found.borne is None else spec.value(found.borne)
    high = None if found.not_borne is None else spec.value(found.not_borne)
    if found.why is Why.ALL_HELD:
        said = f"{name} {low}, the worst of the range, is borne"
    elif found.why is Why.NONE_HELD:
        said = f"{name} {high}, the mildest of the range, is not borne"
    elif low is not None and high is not None:
        said = f"{name} {low} is borne, {high} is not"
    elif low is not None:
        said = f"{name} {low} is borne; from where it is not is not known"
    elif high is not None:
        said = f"{name} {high} is not borne; which value is, is not known"
    else:
        said = f"nothing is known yet about which {name} is borne"
    trials = f"{found.trials} trials, {found.broke} broke"
    if found.no_answer:
        trials += f", {found.no_answer} without an answer"
    sure = f"{spec.confidence} sure, {trials}" if low is not None or high is not None else trials
    ended = f"; it ended by {found.why}" if found.why in _EARLY else ""
    trouble = f". {found.text}" if found.text else ""
    if found.text and found.contradiction is not None:
        mild, worse = (spec.value(value) for value in found.contradiction)
        trouble = f". The trials contradict each other: {found.text.format(mild, worse)}"
    return f"{said} ({sure}){ended}{trouble}"


_EARLY = (Why.TRIALS, Why.TIME, Why.ERRORS, Why.NOISE, Why.BLIND)
