"""The search against services whose threshold is known: its interval is right, its budget is kept,
and its history says all.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from tests.engine.search.service import Service, covered, searched

from faultline.engine.search import Done, Entry, Outcome, Settings, Trial, Why, next_step
from faultline.engine.search.evidence import Ledger
from faultline.engine.search.outcome import clopper_pearson, isotonic

MILLISECONDS = Settings(0, 1000, 10, step=1, trials=100)


def some_service(rng: random.Random, settings: Settings) -> Service:
    """Steep or shallow, steady or flaky, the threshold mostly within the range."""
    span = settings.high - settings.low
    sign = 1 if settings.larger_is_worse else -1
    width = rng.choice([0.0, 0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]) * span
    middle = settings.low + rng.uniform(-0.05, 1.05) * span
    noise = rng.choice([0.0, 0.02, 0.1, 0.2])
    share = settings.share
    flaky, lucky = (rng.uniform(0, noise) * 2 * part for part in (1 - share, share))
    return Service(middle, width, flaky, lucky, rng.choice([0.0, 0.0, 0.05]), sign)


def some_settings(rng: random.Random, confidence: float) -> Settings:
    low = rng.choice([0.0, 1.0, 10.0])
    high = low + rng.choice([20.0, 200.0, 1000.0, 50_000.0])
    log = low > 0 and rng.random() < 0.5
    return Settings(
        low,
        high,
        tolerance=0.1 if log else (high - low) / rng.choice([10, 40, 100]),
        relative=log,
        scale="log" if log else "linear",
        step=rng.choice([0.0, 1.0]),
        larger_is_worse=rng.random() < 0.7,
        confidence=confidence,
        least=rng.choice([1, 1, 3]),
        trials=rng.choice([20, 60, 120]),
        broken_trials=rng.choice([None, None, 4, 10]),
        seed=rng.randrange(9),
    )


def coverage(searches: int, confidence: float, first: int = 0) -> tuple[float, float]:
    """The share of intervals that have the threshold in them, and the mean number of trials."""
    right = trials = 0
    for seed in range(first, first + searches):
        rng = random.Random(f"coverage {seed}")
        settings = some_settings(rng, confidence)
        service = some_service(rng, settings)
        found, history = searched(settings, service, seed)
        right += covered(found, service, settings)
        trials += len(history)
        assert len(history) <= settings.trials
        if settings.broken_trials is not None:
            assert found.broke <= settings.broken_trials, seed
    return right / searches, trials / searches


def at_least(asked: float, searches: int) -> float:
    """What a true coverage of `asked` falls short of once in a thousand times."""
    return asked - 3.1 * math.sqrt(asked * (1 - asked) / searches)


@pytest.mark.parametrize("confidence", [0.9])
def test_the_interval_has_the_threshold_in_it_as_often_as_was_asked(confidence: float) -> None:
    share, trials = coverage(150, confidence)
    print(f"coverage {share:.3f} at {confidence}, {trials:.1f} trials in the mean")
    assert share >= at_least(confidence, 150)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.9, 0.99])
def test_the_same_over_thousands(confidence: float) -> None:
    share, trials = coverage(2500, confidence, first=10_000)
    print(f"coverage {share:.4f} at {confidence}, {trials:.1f} trials in the mean")
    assert share >= at_least(confidence, 2500)


def test_a_clear_threshold_is_found_within_the_tolerance_in_few_trials() -> None:
    counts = []
    for seed in range(40):
        service = Service(random.Random(seed).uniform(20, 980))
        found, history = searched(MILLISECONDS, service, seed)
        assert found.why is Why.NARROW
        assert found.borne is not None
        assert found.not_borne is not None
        assert found.borne <= service.middle < found.not_borne <= found.borne + 10
        assert found.estimate is not None
        assert found.borne <= found.estimate <= found.not_borne
        counts.append(len(history))
    print(f"trials: mean {sum(counts) / len(counts)}, at most {max(counts)}")
    assert sum(counts) / len(counts) < 20


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("everything", [True, False])
def test_a_threshold_outside_of_the_range_ends_the_search_early(
    larger: bool, everything: bool
) -> None:
    settings = replace(MILLISECONDS, larger_is_worse=larger)
    above = everything == larger
    service = Service(2000 if above else -2000, sign=1 if larger else -1)
    found, history = searched(settings, service, 1)
    end = 1000 if above else 0
    assert len(history) <= 12
    if everything:
        assert (found.why, found.borne, found.not_borne) == (Why.ALL_HELD, end, None)
    else:
        assert (found.why, found.borne, found.not_borne) == (Why.NONE_HELD, None, end)


def test_whole_numbers_are_told_apart() -> None:
    for threshold in range(1, 9):
        settings = Settings(1, 9, 1, step=1)
        found, _ = searched(settings, Service(threshold + 0.5), threshold)
        assert (found.borne, found.not_borne) == (threshold, threshold + 1)
    found, history = searched(Settings(1, 2, 1, step=1), Service(1.5), 0)
    assert (found.borne, found.not_borne) == (1, 2)
    assert {entry.value for entry in history} <= {1, 2}


def test_a_service_that_is_flaky_in_the_middle_gets_a_wide_interval_and_not_a_wrong_one() -> None:
    wide = [
        searched(MILLISECONDS, Service(500, width=150, flaky=0.05, lucky=0.05), seed)[0]
        for seed in range(12)
    ]
    right = sum(covered(found, Service(500, 150, 0.05, 0.05), MILLISECONDS) for found in wide)
    assert right >= 9
    known = [f for f in wide if f.borne is not None or f.not_borne is not None]
    assert len(known) >= 10, "after a hundred trials something is known"
    assert all(found.why in (Why.TRIALS, Why.NOISE) for found in wide)


def test_a_coin_has_no_threshold() -> None:
    found, history = searched(MILLISECONDS, Service(500, flaky=0.5, lucky=0.5), 3)
    assert len(history) <= 100
    assert found.why in (Why.TRIALS, Why.NOISE, Why.CONTRADICTION)


# ---------------------------------------------------------------------- budgets


@given(data=st.data())
@hypothesis(max_examples=60, deadline=None)
def test_no_budget_is_ever_exceeded(data: st.DataObject) -> None:
    """Not even if every answer is the worst that could come."""
    settings = replace(
        MILLISECONDS,
        trials=data.draw(st.integers(1, 40)),
        hold=2.0,
        waits=1.0,
        seconds=data.draw(st.one_of(st.just(math.inf), st.floats(0, 120))),
        broken_trials=data.draw(st.one_of(st.none(), st.integers(0, 8))),
        broken_seconds=data.draw(st.one_of(st.just(math.inf), st.floats(0, 20))),
        least=data.draw(st.integers(1, 4)),
    )
    history: list[Entry] = []
    while isinstance(step := next_step(settings, history), Trial):
        outcome = data.draw(st.sampled_from([Outcome.BROKE, Outcome.BROKE, *Outcome]))
        history.append(Entry(step.value, outcome, 3.0))
    found = step.result
    assert found.trials == len(history) <= settings.trials
    assert found.seconds <= settings.seconds
    assert found.broken_seconds <= settings.broken_seconds
    if settings.broken_trials is not None:
        assert found.broke <= settings.broken_trials


def test_with_few_breaks_allowed_what_is_borne_is_known_in_the_end() -> None:
    for seed in range(30):
        settings = replace(MILLISECONDS, broken_trials=3, seed=seed)
        service = Service(random.Random(seed).uniform(100, 900))
        found, _ = searched(settings, service, seed)
        assert found.broke <= 3
        assert found.borne is not None
        assert found.borne <= service.middle


# ---------------------------------------------------------------------- what says nothing


def test_what_was_not_measured_is_repeated_and_never_counted() -> None:
    found, history = searched(MILLISECONDS, Service(500, mute=1.0), 1)
    assert found.why is Why.BLIND
    assert (found.borne, found.not_borne, found.no_answer) == (None, None, 3)
    assert len({entry.value for entry in history}) == 1

    service = Service(430, mute=0.3)
    found, history = searched(replace(MILLISECONDS, blind=50), service, 2)
    assert found.why is Why.NARROW
    assert covered(found, service, MILLISECONDS)
    answered = [entry for entry in history if entry.outcome is not Outcome.NO_ANSWER]
    assert found.no_answer == len(history) - len(answered) > 0
    ledger = Ledger(MILLISECONDS, answered)
    assert ledger.evidence().interval() == (found.borne, found.not_borne)


# ---------------------------------------------------------------------- the history says all


def test_every_prefix_of_a_history_asks_for_what_came_next() -> None:
    for seed in range(12):
        rng = random.Random(f"prefix {seed}")
        settings = replace(some_settings(rng, 0.9), trials=40)
        service = some_service(rng, settings)
        found, history = searched(settings, service, seed)
        for index, entry in enumerate(history):
            step = next_step(settings, history[:index])
            assert isinstance(step, Trial)
            assert step.value == entry.value
            assert step.repeat == 1 + sum(e.value == entry.value for e in history[:index])
        assert next_step(settings, history) == Done(found)
        assert searched(settings, service, seed) == (found, history)


@given(data=st.data())
@hypothesis(max_examples=60, deadline=None)
def test_any_answers_lead_to_an_end_with_values_of_the_range(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 10**6))
    settings = some_settings(random.Random(seed), 0.9)
    history: list[Entry] = []
    while isinstance(step := next_step(settings, history), Trial):
        assert settings.low <= step.value <= settings.high
        history.append(Entry(step.value, data.draw(st.sampled_from([*Outcome]))))
        assert len(history) <= settings.trials
    found = step.result
    sign = 1 if settings.larger_is_worse else -1
    if found.borne is not None and found.not_borne is not None:
        assert sign * found.borne < sign * found.not_borne
    assert sum(p.held + p.broke + p.no_answer for p in found.curve) == len(history)


# ---------------------------------------------------------------------- contradictions


def test_a_worse_value_that_is_borne_is_told_and_widens_the_interval() -> None:
    settings = replace(MILLISECONDS, trials=200)
    held, broke = Outcome.HELD, Outcome.BROKE
    history = [Entry(200, held)] * 20 + [Entry(400, broke)] * 20 + [Entry(600, held)] * 20
    history += [Entry(800, broke)] * 20
    step = next_step(settings, history)
    assert isinstance(step, Done)
    found = step.result
    assert found.why is Why.CONTRADICTION
    assert not found.monotone
    assert found.contradiction == (400, 600)
    assert (found.borne, found.not_borne) == (200, 800)
    assert found.text.format("400ms", "600ms").startswith(
        "at 400ms 20 of 20 trials broke, at 600ms"
    )


def test_a_target_that_does_not_recover_between_trials_is_noticed_or_costs_width() -> None:
    """After each break the next three trials break too, whatever is tried."""
    told = 0
    for seed in range(10):
        settings = replace(MILLISECONDS, trials=40, seed=seed)
        history: list[Entry] = []
        sick = 0
        while isinstance(step := next_step(settings, history), Trial):
            broke = step.value > 700 or sick > 0
            sick = 3 if step.value > 700 else max(0, sick - 1)
            history.append(Entry(step.value, Outcome.BROKE if broke else Outcome.HELD))
        found = step.result
        told += not found.monotone or found.borne is None or found.borne <= 700
    assert told == 10


def test_a_monotone_service_is_hardly_ever_said_to_contradict_itself() -> None:
    wrong = 0
    for seed in range(60):
        rng = random.Random(f"monotone {seed}")
        settings = replace(some_settings(rng, 0.9), trials=40)
        wrong += not searched(settings, some_service(rng, settings), seed)[0].monotone
    assert wrong <= 4, "one in a hundred at most, and three deviations"


# ---------------------------------------------------------------------- the parts


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=9))
def test_the_fitted_curve_never_rises_and_keeps_the_sum(pairs: list[tuple[int, int]]) -> None:
    counts = [(float(min(held, n)), float(n)) for held, n in pairs]
    fitted = isotonic(counts)
    assert fitted == sorted(fitted, reverse=True)
    assert sum(f * n for f, (_, n) in zip(fitted, counts, strict=True)) == pytest.approx(
        sum(held for held, _ in counts)
    )


def test_the_interval_of_a_share_is_the_exact_one() -> None:
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)
    assert clopper_pearson(10, 10, 0.95) == pytest.approx((0.025**0.1, 1.0), abs=1e-9)
    assert clopper_pearson(0, 10, 0.95) == pytest.approx((0.0, 1 - 0.025**0.1), abs=1e-9)
    assert clopper_pearson(3, 10, 0.95) == pytest.approx((0.0667395, 0.6524529), abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"high": 0}, {"tolerance": 0}, {"share": 1}, {"confidence": 1}, {"least": 5, "most": 4},
     {"scale": "log"}, {"trials": 0}, {"blind": 0}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(MILLISECONDS, **wrong)
