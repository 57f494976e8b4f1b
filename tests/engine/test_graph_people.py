"""Whole lives of runs with a graph: people, pauses, dying, taking up again, time-outs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.lives import FAULT, TASK, Life, graph
from tests.engine.simulator import Simulator

from faultline.api.graph_status import Approval
from faultline.api.run import Verdict
from faultline.engine import again
from faultline.engine.model import SECOND, Do, Done


@pytest.mark.parametrize(("answer", "verdict"), [("continue", "held"), ("refuse", "not measured")])
def test_a_person_decides(monkeypatch: pytest.MonkeyPatch, answer: Any, verdict: str) -> None:
    ask = {"name": "ask", "type": "approval", "message": "go on?"}
    life = Life(monkeypatch, graph(ask, {"name": "t", "needs": ["ask"], **TASK}))

    def say(simulator: Simulator) -> None:
        if simulator.world.ns > simulator.started_ns + 300 * SECOND:
            said = [Approval(node="ask", answer=answer, by="ann", text="because")]
            wish = simulator.run.spec.model_copy(update={"approvals": said})
            simulator.run = simulator.run.model_copy(update={"spec": wish})
        elif life.node("ask").state == "running":
            simulator.world.ns += 10 * SECOND

    run = life.live(say)
    assert run.status.verdict == verdict
    assert life.node("ask").output["by"] == "ann"
    assert ("t/1" in life.world.did) == (answer == "continue")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = {"name": "ask", "type": "approval", "timeout": "20s"}
    life = Life(monkeypatch, graph(ask))
    assert life.live().status.verdict == Verdict.NOT_MEASURED
    life = Life(monkeypatch, graph({**ask, "otherwise": "continue"}))
    assert life.live().status.verdict == Verdict.HELD


def test_while_it_is_paused_nothing_begins_and_no_time_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = {
        "name": "line", "type": "serial",
        "nodes": [
            {"name": "w", "type": "wait", "duration": "10s", "timeout": "12s"},
            {"name": "f", **FAULT},
        ],
    }  # fmt: skip
    life = Life(monkeypatch, graph(line))
    steps = [0]

    def pause(simulator: Simulator) -> None:
        status = simulator.run.status
        if not status.nodes or life.node("w").state != "running":
            return
        steps[0] += 1
        why = "lunch" if steps[0] < 60 else ""
        wish = simulator.run.spec.model_copy(update={"pause": why})
        simulator.run = simulator.run.model_copy(update={"spec": wish})
        if why:
            simulator.world.ns += SECOND

    run = life.live(pause)
    paused = run.status.pauses[0]
    assert paused.until is not None
    length = paused.until - paused.at
    assert length > 30
    took = (life.node("w").ended or 0) - (life.node("w").started or 0)
    assert took == pytest.approx(10 + length, abs=2.1)
    assert life.node("w").outcome == "succeeded"
    assert run.status.verdict == Verdict.HELD


def test_a_task_that_was_under_way_when_the_engine_died_is_not_done_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for idempotent in (False, True):
        life = Life(monkeypatch, graph({"name": "t", "idempotent": idempotent, **TASK}))
        life.simulator.latency = lambda action: 5 * SECOND if action.do is Do.TASK else 10**6
        died = [False]

        def die(simulator: Simulator, life: Life = life, died: list[bool] = died) -> None:
            begun = life.simulator.run.status.nodes and life.node("t").state == "running"
            if begun and not died[0]:
                died[0] = True
                simulator.die()
                simulator.step()

        run = life.live(die)
        assert died[0]
        assert life.world.did == ["t/1"] * (2 if idempotent else 1)
        assert run.status.verdict == (Verdict.HELD if idempotent else Verdict.ERROR)
        assert ("nobody knows" in run.status.reason) == (not idempotent)


def test_a_run_is_taken_up_from_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {
        "name": "line", "type": "serial",
        "nodes": [{"name": "a", **TASK}, {"name": "b", **TASK}, {"name": "c", **TASK}],
    }  # fmt: skip
    life = Life(monkeypatch, graph(line))
    life.world.done["b"] = [Done("error", "no")]
    run = life.live()
    assert run.status.verdict == Verdict.ERROR
    kept = again.kept(run, "b")
    assert [node.name for node in kept] == ["a"]
    life.world.did.clear()
    life.simulator = Simulator(life.world, run.spec.resolved, monkeypatch)
    wish = life.simulator.run.spec.model_copy(update={"reused": kept})
    life.simulator.run = life.simulator.run.model_copy(update={"spec": wish})
    assert life.live().status.verdict == Verdict.HELD
    assert life.world.did == ["b/1", "c/1"]
    assert life.node("a").reused == "r"


def test_a_node_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    group = {
        "name": "g", "type": "serial", "timeout": "5s",
        "nodes": [{"name": "w", "type": "wait", "duration": "1m"}, {"name": "f", **FAULT}],
    }  # fmt: skip
    life = Life(monkeypatch, graph(group))
    run = life.live()
    assert run.status.verdict == Verdict.ERROR
    assert "longer than 5s" in run.status.reason
    assert life.outcomes() == {"g": "failed", "w": "aborted", "f": "aborted"}
    life = Life(monkeypatch, graph({"name": "f", "timeout": "5s", **FAULT}))
    run = life.live()
    assert (run.status.faults[0].recovered_at or 0) - (run.status.faults[0].started or 0) < 7
    assert life.node("f").outcome == "failed"
