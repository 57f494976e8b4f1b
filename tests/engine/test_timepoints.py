"""Time points come from probes: in order, with hysteresis, from the impact on."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.engine.simulator import Simulator
from tests.engine.world import World, experiment

from faultline.api.probe import Measurement
from faultline.api.run import Run, Verdict
from faultline.engine.model import SECOND

GOOD, BAD = Measurement(value=1.0, ok=True), Measurement(value=0.0, ok=False)
PROBES = [
    {"name": name, "type": "tcp", "host": "h", "port": 1, "interval": "500ms", **more}
    for name, more in (
        ("ok", {}),
        ("hurt", {"successCount": 2}),
        ("alarm", {}),
        ("cause", {}),
        ("well", {"successCount": 3}),
    )
]
FAULT = {"name": "f", "fault": "cpu.burn", "duration": "40s", "impact": "hurt"}
SPEC: dict[str, Any] = {
    "hypothesis": {"text": "people cope", "probes": ["ok"]},
    "probes": PROBES, "faults": [FAULT], "traffic": [], "guards": [], "steadyState": [],
    "baseline": "1s", "cooldown": "1s",
    "discovery": {"probe": "alarm", "within": "20s"},
    "location": {"probe": "cause", "within": "25s"},
    "recovery": {"probe": "well", "within": "60s"},
    "score": {"discovered": "10s", "located": "20s", "recovered": "50s"},
    "judgements": [
        {"name": "quick", "expression": 'recovered.at - effective.at < duration("1m")'},
        {"name": "in-order", "expression": "effective.at <= discovered.at"},
    ],
}  # fmt: skip


def seen(second: float, times: dict[str, tuple[float, float]]) -> dict[str, Measurement]:
    """Each probe holds within its times, counted in seconds from the injection."""
    return {
        name: GOOD if begin <= second < end else BAD
        for name, (begin, end) in {"ok": (-1e9, 1e9), **times}.items()
    }


def live(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, tuple[float, float]], **changes: Any
) -> Run:
    world = World(random.Random(1))
    running = Simulator(world, experiment(**{**SPEC, **changes}), monkeypatch)
    world.values = dict(seen(-1, times))

    def show(one: Simulator) -> None:
        began = one.run.status.injection_ns
        if began is not None:
            world.values = dict(seen((world.ns - began) / SECOND, times))

    return running.drive(show)


def after(run: Run, name: str) -> float:
    at = getattr(run.status.points, name)
    assert at is not None, f"{name} never came"
    began = run.status.points.injected
    assert began is not None
    return at - began


USUAL = {"hurt": (5, 40), "alarm": (12, 45), "cause": (20, 60), "well": (43, 1e9)}


def test_every_point_counts_from_the_impact_and_only_after_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = live(monkeypatch, {**USUAL, "well": (-1e9, 1e9), "cause": (0, 1e9)})
    assert after(run, "impact") == pytest.approx(5, abs=0.6)
    assert run.status.points.effective == run.status.points.impact
    assert after(run, "discovered") == pytest.approx(12, abs=0.6)
    # The cause was known and the service was well all the time: that counts after discovery only.
    assert after(run, "located") == pytest.approx(12, abs=0.7)
    assert after(run, "recovered") == pytest.approx(12, abs=0.7)


def test_a_usual_drill_is_scored_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    run = live(monkeypatch, USUAL)
    assert run.status.verdict == Verdict.HELD
    assert after(run, "recovered") == pytest.approx(43, abs=0.6)
    assert [(line.name, line.points) for line in run.status.points.scores] == [
        ("discovered", 100.0), ("located", 100.0), ("recovered", 100.0),
    ]  # fmt: skip
    assert run.status.points.score == 100.0
    assert [judged.ok for judged in run.status.points.judged] == [True, True]


def test_one_good_measurement_is_not_yet_the_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The impact needs two in a row: a single one does not count."""
    run = live(monkeypatch, {**USUAL, "hurt": (5.0, 5.4)})
    assert run.status.points.impact is None
    assert run.status.verdict == Verdict.NOT_EFFECTIVE
    assert "no impact" in run.status.reason


def test_without_impact_nothing_is_held_and_nothing_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    run = live(monkeypatch, {**USUAL, "hurt": (1e9, 1e9)})
    assert run.status.verdict == Verdict.NOT_EFFECTIVE
    assert run.status.faults[0].effect == "effective", "at the target it was"
    assert run.status.points.score is None
    assert run.status.points.discovered is None, "an alarm before the impact found something else"


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"alarm": (30, 45)}, "discovered after"),
        ({"alarm": (1e9, 1e9)}, "not discovered"),
        ({"cause": (34, 60)}, "located after"),
        ({"cause": (1e9, 1e9)}, "not located"),
        ({"well": (70, 1e9)}, "not well again"),
        ({"well": (1e9, 1e9)}, "not well again"),
    ],
)
def test_what_is_missed_breaks_the_hypothesis(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, tuple[float, float]], reason: str
) -> None:
    run = live(monkeypatch, {**USUAL, **times})
    assert run.status.verdict == Verdict.BROKE
    assert reason in run.status.reason
    assert run.status.points.score is not None
    assert run.status.points.score < 100


def test_an_expression_over_points_is_judged_and_what_is_missing_is_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = {"name": "slow", "expression": 'recovered.at - effective.at < duration("5s")'}
    run = live(monkeypatch, USUAL, judgements=[slow])
    assert run.status.verdict == Verdict.BROKE
    assert "slow is false" in run.status.reason
    gone = {"name": "gone", "expression": 'located.at - effective.at < duration("5s")'}
    run = live(monkeypatch, USUAL, judgements=[gone], location=None)
    assert run.status.verdict == Verdict.NOT_MEASURED
    assert "gone could not be judged" in run.status.reason


def test_late_by_less_than_twice_costs_half_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    run = live(monkeypatch, {**USUAL, "alarm": (18, 45)}, discovery={"probe": "alarm"})
    assert run.status.points.scores[0].points == 50.0
    assert run.status.verdict == Verdict.HELD, "points are not the hypothesis"
    score = {**SPEC["score"], "required": True}
    run = live(monkeypatch, {**USUAL, "alarm": (18, 45)}, discovery={"probe": "alarm"}, score=score)
    assert run.status.verdict == Verdict.BROKE


def test_a_fault_of_a_node_has_an_impact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"type": "fault", **FAULT}]
    run = live(monkeypatch, USUAL, faults=[], nodes=nodes)
    assert run.status.verdict == Verdict.HELD
    run = live(monkeypatch, {**USUAL, "hurt": (1e9, 1e9)}, faults=[], nodes=nodes)
    assert run.status.verdict == Verdict.NOT_EFFECTIVE
    assert "no impact" in run.status.reason
