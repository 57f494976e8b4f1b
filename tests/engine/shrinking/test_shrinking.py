"""Shrinking: what is left fails, none of it can be left out, and it does not take for ever."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from faultline.engine.shrinking import Answer, Ask, Done, Entry, Settings, next_subset

Oracle = Callable[[tuple[str, ...]], Answer]
NAMES = st.integers(1, 12).map(lambda n: [f"f{i}" for i in range(n)])
ONCE = Settings(trials=10_000)


def shrunk(
    faults: list[str], oracle: Oracle, settings: Settings = ONCE
) -> tuple[Done, list[Entry]]:
    history: list[Entry] = []
    while isinstance(step := next_subset(faults, history, settings), Ask):
        assert step.repeat == 1 + sum(set(e.faults) == set(step.faults) for e in history)
        assert list(step.faults) == [f for f in faults if f in step.faults], "in order"
        history.append(Entry(step.faults, oracle(step.faults)))
        assert len(history) <= settings.trials
    return step, history


def failing(condition: bool) -> Answer:
    return Answer.FAILED if condition else Answer.PASSED


@given(faults=NAMES, data=st.data())
@hypothesis(max_examples=80, deadline=None)
def test_the_guilty_ones_are_found_exactly(faults: list[str], data: st.DataObject) -> None:
    """A set fails when it holds all the guilty ones: there is one answer, and it is found."""
    guilty = data.draw(st.sets(st.sampled_from(faults), min_size=1))
    done, history = shrunk(faults, lambda tried: failing(guilty <= set(tried)))
    assert set(done.faults) == guilty
    assert (done.fails, done.minimal, done.why) == (True, True, "minimal")
    tried = [frozenset(entry.faults) for entry in history]
    assert len(tried) == len(set(tried)), "nothing is tried twice"
    assert len(history) <= len(faults) ** 2 + 3 * len(faults)


@given(faults=NAMES, seed=st.integers(0, 10**6), share=st.floats(0.05, 0.9))
@hypothesis(max_examples=80, deadline=None)
def test_of_any_oracle_what_is_left_fails_and_none_can_be_left_out(
    faults: list[str], seed: int, share: float
) -> None:
    """Also where faults mask each other: more of them may pass where fewer fail."""

    def oracle(tried: tuple[str, ...]) -> Answer:
        drawn = random.Random(f"{seed} {tried}").random() < share
        return failing(list(tried) == faults or drawn)

    done, history = shrunk(faults, oracle)
    assert done.fails
    assert done.minimal
    assert oracle(done.faults) is Answer.FAILED
    for each in done.faults:
        rest = tuple(f for f in done.faults if f != each)
        assert not rest or oracle(rest) is Answer.PASSED
    assert len(history) <= len(faults) ** 2 + 3 * len(faults)


@given(faults=NAMES, seed=st.integers(0, 10**6))
@hypothesis(max_examples=30, deadline=None)
def test_every_prefix_of_a_history_asks_for_what_came_next(faults: list[str], seed: int) -> None:
    rng = random.Random(seed)
    settings = Settings(repeats=3, failures=2, trials=200)
    done, history = shrunk(faults, lambda _: rng.choice([*Answer, Answer.FAILED]), settings)
    for index, entry in enumerate(history):
        step = next_subset(faults, history[:index], settings)
        assert isinstance(step, Ask)
        assert step.faults == entry.faults
    assert next_subset(faults, history, settings) == done


def test_a_failure_that_comes_and_goes_is_shrunk_with_repeats() -> None:
    """Failing sets fail in 70% of their trials; others never."""
    right = 0
    for seed in range(30):
        rng = random.Random(seed)
        faults = [f"f{i}" for i in range(8)]
        guilty = set(rng.sample(faults, rng.randint(1, 3)))

        def oracle(
            tried: tuple[str, ...], guilty: set[str] = guilty, rng: random.Random = rng
        ) -> Answer:
            return failing(guilty <= set(tried) and rng.random() < 0.7)

        done, _ = shrunk(faults, oracle, Settings(repeats=6, failures=1, trials=1000))
        right += set(done.faults) == guilty
    assert right >= 28


def test_what_did_not_fail_again_is_not_shrunk() -> None:
    done, history = shrunk(["a", "b"], lambda _: Answer.PASSED, Settings(repeats=3, failures=1))
    assert len(history) == 3
    assert (done.fails, done.why) == (False, "it did not fail again")
    done, history = shrunk(["a", "b"], lambda _: Answer.NO_ANSWER)
    assert len(history) == 2
    assert (done.fails, done.why) == (False, "it could not be measured again")


def test_a_set_without_an_answer_is_neither_and_is_told() -> None:
    def oracle(tried: tuple[str, ...]) -> Answer:
        return Answer.NO_ANSWER if tried == ("a",) else failing(set("ab") <= set(tried))

    done, _ = shrunk([*"abcd"], oracle)
    assert done.faults == ("a", "b")
    assert (done.fails, done.minimal) == (True, False)


def test_with_few_trials_what_is_known_is_the_answer() -> None:
    done, history = shrunk([*"abcdefgh"], lambda t: failing("h" in t), Settings(trials=3))
    assert len(history) == 3
    assert (done.fails, done.minimal, done.why) == (True, False, "the most trials")
    assert len(done.faults) == 4


@pytest.mark.parametrize(
    "wrong", [{"repeats": 0}, {"failures": 2}, {"failures": 0}, {"blind": 0}, {"trials": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Settings(**wrong)
    with pytest.raises(ValueError, match="none twice"):
        next_subset(["a", "a"], [])
