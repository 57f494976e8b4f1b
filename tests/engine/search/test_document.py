"""A search as a document asks for it: values with units, a state that is all there is, a result in
words, and an experiment made from it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from pydantic import ValidationError

from faultline.api import admission
from faultline.api.document import parse, problems_of
from faultline.api.search import SearchSpec, SearchState, number_of
from faultline.engine import wiring
from faultline.engine.search import trials
from faultline.engine.search.regression import regression


def spec(**changes: Any) -> SearchSpec:
    plain = {"parameter": "latency", "low": "1ms", "high": "1s", "probes": ["fast"]}
    return SearchSpec.model_validate({**plain, **changes})


def carried_out(asked: SearchSpec, threshold: float, seed: int = 0) -> SearchState:
    """A search of a service that bears what is milder than the threshold."""
    sign = 1 if asked.worse == "larger" else -1
    state = trials.begin(asked)
    while (trial := trials.next_trial(state)) is not None:
        held = sign * number_of(trial.value) <= sign * threshold
        state = trials.record(state, trial, "held" if held else "broke")
        # Whoever goes on with it has only what was written down.
        state = SearchState.model_validate(json.loads(json.dumps(state.to_json())))
    return state


RANGES = [
    ({}, 123_456_789),
    ({"scale": "log", "tolerance": "10%"}, 7_000_000),
    ({"low": "0%", "high": "100%", "tolerance": "2%"}, 12.3),
    ({"low": "1MiB", "high": "1GiB", "tolerance": "8MiB"}, 300 * 2**20),
    ({"low": "64KiB/s", "high": "64MiB/s", "scale": "log", "worse": "smaller"}, 5 * 2**20),
    ({"low": "1mbit", "high": "1gbit", "scale": "log", "worse": "smaller"}, 40e6),
    ({"low": 1, "high": 64, "tolerance": 1}, 17),
    ({"low": 0.0, "high": 1.0, "tolerance": 0.01}, 0.333),
]


@pytest.mark.parametrize(("changes", "threshold"), RANGES)
def test_values_are_written_in_the_unit_of_the_range(
    changes: dict[str, Any], threshold: float
) -> None:
    asked = spec(**changes)
    state = carried_out(asked, threshold)
    found = state.result
    assert found is not None
    assert found.answer == "found"
    assert found.borne is not None
    assert found.not_borne is not None
    assert found.pinned is not None
    sign = 1 if asked.worse == "larger" else -1
    borne, not_borne, pinned = map(number_of, (found.borne, found.not_borne, found.pinned))
    assert sign * borne <= sign * threshold < sign * not_borne
    assert sign * pinned < sign * borne
    assert len(state.trials) <= 25
    assert all(type(trial.value) in (type(asked.low), type(asked.high)) for trial in state.trials)
    assert str(found.borne) in found.text
    if isinstance(found.borne, str):
        assert all(len(str(trial.value)) <= 12 for trial in state.trials), "values are round"
    print(found.text, "pinned at", found.pinned)


@given(
    seed=st.integers(0, 10**6), answers=st.lists(st.sampled_from(["held", "broke", "no answer"]))
)
@hypothesis(max_examples=20, deadline=None)
def test_the_state_is_all_that_a_search_needs(seed: int, answers: list[Any]) -> None:
    changes, _ = RANGES[seed % len(RANGES)]
    state = trials.begin(spec(**changes, seed=seed, errorBudget={"trials": 5, "time": "30s"}))
    rng = random.Random(seed)
    for answer in answers:
        trial = trials.next_trial(state)
        if trial is None:
            break
        assert trial.number == len(state.trials) + 1
        read = SearchState.model_validate_json(state.model_dump_json())
        assert trials.next_trial(read) == trial
        assert trials.result(read) == trials.result(state)
        state = trials.record(state, trial, answer, seconds=rng.uniform(1, 20))
    found = trials.result(state)
    assert found.broke <= 5
    assert found.broken_seconds <= 30
    assert (state.result is None) == (trials.next_trial(state) is not None)


def test_what_goes_wrong_is_said() -> None:
    state = trials.begin(spec())
    for _ in range(3):
        trial = trials.next_trial(state)
        assert trial is not None
        state = trials.record(state, trial, "no answer", text="no traffic matched")
    assert state.result is not None
    assert state.result.answer == "not measured"
    assert state.result.text == (
        "nothing is known yet about which latency is borne (3 trials, 0 broke, 3 without an "
        "answer); it ended by not measured"
    )
    state = carried_out(spec(errorBudget={"trials": 2}), 2e8)
    assert state.result is not None
    assert (state.result.answer, state.result.broke) == ("open", 2)
    assert state.result.borne is not None
    assert state.result.text.endswith("it ended by the error budget")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"low": "fast"}, "low"),
        ({"high": "100MiB"}, "high"),
        ({"high": "1ms"}, "high"),
        ({"tolerance": "3MiB"}, "tolerance"),
        ({"tolerance": "0ms"}, "tolerance"),
        ({"tolerance": 5}, "tolerance"),
        ({"low": "0s", "scale": "log"}, "scale"),
        ({"probes": []}, "probes"),
        ({"parameter": "params.a.b"}, "parameter"),
        ({"confidence": "100%"}, "confidence"),
        ({"repeats": {"min": 4, "max": 3}}, "repeats.max"),
        ({"errorBudget": {"trials": 0}}, "errorBudget.trials"),
        ({"maxTrails": 3}, "maxTrails"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError) as refused:
        spec(**changes)
    assert [each.path for each in problems_of(refused.value, changes)] == [path]


# ---------------------------------------------------------------------- the regression


def document() -> dict[str, Any]:
    """An experiment with a search in the middle of other things."""
    delay = {"fault": "network.delay", "params": {"interface": "lo"}, "duration": "1m"}
    searched = {"parameter": "latency", "low": "1ms", "high": "1s", "probes": ["fast"],
                "hold": "20s", "warmup": "2s"}  # fmt: skip
    return {
        "apiVersion": "faultline.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "shop", "uid": "x", "labels": {"team": "a"}},
        "spec": {
            "title": "The shop",
            "hypothesis": {"text": "it is fast", "probes": ["fast", "up"]},
            "probes": [
                {"name": name, "type": "tcp", "host": "127.0.0.1", "port": 80}
                for name in ("fast", "up")
            ],
            "nodes": [
                {"name": "settle", "type": "wait", "duration": "1s"},
                {"name": "all", "type": "serial", "nodes": [
                    {"name": "how-much", "type": "search", "needs": ["settle"],
                     "fault": delay, "search": searched}]},
            ],
        },
    }  # fmt: skip


def test_the_regression_is_the_same_experiment_with_a_value_that_is_borne() -> None:
    given_document = document()
    assert admission.problems(given_document, wiring.check_fault) == []
    asked = SearchSpec.model_validate(
        given_document["spec"]["nodes"][1]["nodes"][0]["search"] | {"margin": "20%"}
    )
    state = carried_out(asked, 200e6)
    made = regression(given_document, "how-much", state)
    assert made is not None
    assert given_document == document(), "the document given is left alone"
    assert admission.problems(made, wiring.check_fault) == []
    node = made["spec"]["nodes"][1]["nodes"][0]
    assert node == {
        "name": "how-much",
        "needs": ["settle"],
        "type": "fault",
        "fault": "network.delay",
        "params": {"interface": "lo", "latency": state.result and state.result.pinned},
        "duration": "22s",
    }
    assert 0.7 * 200e6 <= number_of(node["params"]["latency"]) <= 0.8 * 200e6
    assert made["spec"]["hypothesis"]["probes"] == ["fast"]
    assert made["metadata"] == {"name": "shop-bears-latency", "labels": {"team": "a"}}


def test_the_example_of_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[3] / "docs" / "search.md").read_text()
    example = parse(page.split("```yaml\n")[1].split("```")[0])
    assert admission.problems(example, wiring.check_fault) == []


def test_without_a_value_that_is_borne_there_is_no_regression() -> None:
    state = carried_out(spec(), 0)
    assert state.result is not None
    assert state.result.answer == "none borne"
    assert regression(document(), "how-much", state) is None
    assert regression(document(), "other", carried_out(spec(), 2e8)) is None
