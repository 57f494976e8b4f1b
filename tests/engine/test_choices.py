"""Faults with selectors: resolved once, one fault for each target, all of them proven."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.simulator import Simulator
from tests.engine.test_simulation import ODDS, SIMULATION
from tests.engine.world import Odds, World, experiment

from faultline.api.probe import Measurement
from faultline.api.run import Run
from faultline.api.selector import Choice, Chosen, Selector
from faultline.api.target import TargetSpec
from faultline.engine.ports import Tools
from faultline.errors import TargetGone
from faultline.report import render
from faultline.units import Duration

SELECTOR = {"containers": {"name": "shop-*"}, "mode": "fixed", "count": 2}
FOUND = [
    Chosen(target=TargetSpec(container=f"c{i}"), words=f"container shop-{i}") for i in range(4)
]


def found(count: int) -> Callable[..., Choice]:
    def choose(node: str, _selector: Selector, seed: str, _allow: frozenset[str]) -> Choice:
        assert seed
        if not count:
            raise TargetGone(f"{node}: none of the containers fits")
        hit, rest = FOUND[:count], FOUND[count:]
        return Choice(node=node, targets=hit, rest=rest, text=f"{count} of 4 containers")

    return choose


class Crowd(World):
    """A world in which selectors find so many."""

    count = 2

    def tools(self) -> Tools:
        return replace(super().tools(), choose=found(self.count))


def crowd(count: int = 2, seed: int = 1, odds: Odds | None = None) -> Crowd:
    made = Crowd(random.Random(seed), odds or Odds())
    made.count = count
    return made


def aimed(**fields: Any) -> dict[str, Any]:
    return {"name": "one", "fault": "network.delay", "duration": "5s", "selector": SELECTOR,
            **fields}  # fmt: skip


def live(world: World, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Run:
    return Simulator(world, experiment(**changes), monkeypatch).drive()


def test_each_target_has_a_fault_with_a_proof_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = crowd()
    run = live(world, monkeypatch, faults=[aimed(), {"name": "two", "fault": "cpu.burn"}])
    assert run.status.verdict == "held", run.status.reason
    names = [fault.name for fault in run.status.faults]
    assert names == ["one.t1", "one.t2", "two"]
    first, second, other = run.status.faults
    assert [fault.aim for fault in (first, second)] == FOUND[:2]
    assert (first.of, other.aim) == ("one", None)
    assert {fault.effect for fault in run.status.faults} == {"effective"}
    assert {fault.end for fault in run.status.faults} == {"recovered"}
    assert all(fault.changes for fault in run.status.faults)
    assert len({fault.uid for fault in run.status.faults}) == 3
    assert [each.words for each in run.status.choices[0].rest] == [each.words for each in FOUND[2:]]
    for text in (render.text(run), render.html(run)):
        for words in ("2 of 4 containers", "container shop-0", "container shop-3"):
            assert words in text
    assert Run.model_validate(run.to_json()).status == run.status


def test_one_target_keeps_the_name_of_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    run = live(crowd(1), monkeypatch, faults=[aimed()])
    assert [(f.name, f.aim) for f in run.status.faults] == [("one", FOUND[0])]


def test_a_selector_that_finds_nothing_ends_the_run_before_anything_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = crowd(0)
    run = live(world, monkeypatch, faults=[aimed()])
    assert run.status.verdict == "error"
    assert "none of the containers fits" in run.status.reason
    assert not world.journal


def test_one_target_without_an_effect_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    world = crowd(3)
    injector = world.tools().injector
    with injector() as probe:
        observe = type(probe).observe
    seen: list[str] = []

    def blunt(self: Any, uid: str) -> Any:
        seen.append(uid)
        if uid.endswith("one.t2"):
            self.world.odds = replace(self.world.odds, ineffective=1.0)
        answer = observe(self, uid)
        self.world.odds = replace(self.world.odds, ineffective=0.0)
        return answer

    monkeypatch.setattr("tests.engine.world.WorldInjector.observe", blunt)
    run = live(world, monkeypatch, faults=[aimed(duration="30s")])
    assert run.status.verdict == "not effective"
    assert "one.t2" in run.status.reason
    assert {fault.end for fault in run.status.faults} == {"recovered"}


def test_a_node_comes_to_its_end_with_all_of_its_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {**aimed(name="crowd"), "type": "fault", "background": True},
        {"name": "pause", "type": "wait", "duration": "2s", "needs": ["crowd"]},
    ]
    run = live(crowd(), monkeypatch, faults=[], nodes=nodes)
    assert run.status.verdict == "held", run.status.reason
    assert [fault.name for fault in run.status.faults] == ["crowd.t1", "crowd.t2"]
    node = next(each for each in run.status.nodes if each.name == "crowd")
    assert node.outcome == "succeeded"
    assert [each["target"] for each in node.output["targets"]] == [
        "container shop-0", "container shop-1"
    ]  # fmt: skip
    pause = next(each for each in run.status.nodes if each.name == "pause")
    acting = [fault.effective_at for fault in run.status.faults]
    assert pause.started is not None
    assert all(at is not None and at <= pause.started for at in acting)


def test_an_attempt_at_several_targets_is_tried_again_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = crowd(odds=Odds(fail=1.0))

    def mend(one: Simulator) -> None:
        if len(one.run.status.faults) > 2:
            world.odds = Odds()

    nodes = [{**aimed(name="crowd"), "type": "fault", "retry": {"attempts": 3, "backoff": "1s"}}]
    running = Simulator(world, experiment(faults=[], nodes=nodes), monkeypatch)
    run = running.drive(mend)
    names = [fault.name for fault in run.status.faults]
    assert names[:4] == ["crowd.t1", "crowd.t2", "crowd_2.t1", "crowd_2.t2"]
    assert run.status.verdict in ("held", "error")
    assert all(fault.end in ("recovered", "nothing to undo") for fault in run.status.faults)


@SIMULATION
@given(
    seed=st.integers(0, 2**32),
    odds=ODDS,
    count=st.integers(1, 4),
    graph=st.booleans(),
    crash=st.sampled_from([0.0, 0.01, 0.1]),
)
def test_whatever_goes_wrong_with_several_targets_everything_is_undone(
    seed: int, odds: Odds, count: int, graph: bool, crash: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, left = crowd(count, seed, odds), 20
    node = {**aimed(name="crowd"), "type": "fault", "retry": {"attempts": 2, "backoff": "1s"}}
    changes = {"faults": [], "nodes": [node]} if graph else {"faults": [aimed()]}
    late = world.random.choice([0.0, 0.3])
    running = Simulator(world, experiment(**changes), monkeypatch, late=late)

    def hurt(one: Simulator) -> None:
        nonlocal left
        if left and world.chance(crash):
            left -= 1
            one.die()

    running.drive(hurt)


def searching(monkeypatch: pytest.MonkeyPatch, blunt: str = "") -> Run:
    """A search on two targets, of which the second bears up to 120 ms."""
    search = {
        "name": "limit", "type": "search",
        "fault": {"fault": "network.delay", "duration": "1m", "selector": SELECTOR},
        "search": {
            "parameter": "latency", "low": "10ms", "high": "500ms", "tolerance": "50ms",
            "probes": ["edge"], "hold": "2s", "cooldown": "1s",
        },
    }  # fmt: skip
    world = crowd()
    nodes = {"faults": [], "nodes": [search]}
    simulator = Simulator(world, experiment(**nodes), monkeypatch)
    injector = world.tools().injector
    with injector() as probe:
        observe = type(probe).observe

    def seen(self: Any, uid: str) -> Any:
        if blunt and uid.endswith(blunt):
            self.world.odds = replace(self.world.odds, ineffective=1.0)
        answer = observe(self, uid)
        self.world.odds = replace(self.world.odds, ineffective=0.0)
        return answer

    monkeypatch.setattr("tests.engine.world.WorldInjector.observe", seen)

    def bear(_simulator: Simulator) -> None:
        faults = simulator.run.status.faults
        acting = [f for f in faults if f.effective_at and not f.recovered_at and f.aim == FOUND[1]]
        hurt = any(Duration.parse(str(f.params["latency"])).seconds > 0.12 for f in acting)
        world.values["edge"] = Measurement(value=0.0, ok=not hurt, text="seen")

    return simulator.drive(bear)


def test_a_search_acts_on_all_targets_in_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    run = searching(monkeypatch)
    node = next(each for each in run.status.nodes if each.name == "limit")
    assert node.output["answer"] == "found", node.output
    low, high = (Duration.parse(str(node.output[key])).seconds for key in ("borne", "notBorne"))
    assert low <= 0.12 <= high
    names = [fault.name for fault in run.status.faults]
    assert names[:4] == ["limit_1.t1", "limit_1.t2", "limit_2.t1", "limit_2.t2"]
    assert len(names) == 2 * int(str(node.output["trials"]))
    for first, second in zip(run.status.faults[::2], run.status.faults[1::2], strict=True):
        assert (first.aim, second.aim) == (FOUND[0], FOUND[1])
        assert first.params == second.params
    assert all(fault.recovered_at for fault in run.status.faults)
    assert render.text(run)
    assert "container shop-1" in render.html(run)


def test_a_trial_that_has_no_effect_on_one_target_gives_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = searching(monkeypatch, blunt="limit_1.t2")
    node = next(each for each in run.status.nodes if each.name == "limit")
    assert node.search is not None
    first = node.search.trials[0]
    assert first.outcome == "no answer"
    assert "container shop-1" in first.text
    assert all(fault.recovered_at for fault in run.status.faults)
