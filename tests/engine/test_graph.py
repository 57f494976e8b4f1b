"""Whole lives of runs with a graph: order, conditions, loops, failures, retries, searches."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.engine.lives import FAULT, TASK, Life, graph
from tests.engine.simulator import Simulator
from tests.engine.world import Odds

from faultline.api.probe import Measurement
from faultline.api.run import Phase, Verdict
from faultline.engine.model import SECOND, Do, Done
from faultline.units import Duration


def test_serial_is_in_order_parallel_at_once_and_needs_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(
        monkeypatch,
        graph(
            {
                "name": "line", "type": "serial",
                "nodes": [
                    {"name": "a", "type": "wait", "duration": "2s"},
                    {"name": "b", "type": "wait", "duration": "3s"},
                ],
            },
            {
                "name": "side", "type": "parallel",
                "nodes": [
                    {"name": "c", "type": "wait", "duration": "4s"},
                    {"name": "d", "type": "wait", "duration": "1s", "needs": ["a"]},
                ],
            },
            {"name": "end", "needs": ["line", "side"], **TASK},
        ),
    )  # fmt: skip
    run = life.live()
    assert run.status.verdict == Verdict.HELD
    assert set(life.outcomes().values()) == {"succeeded"}
    started = {node.name: node.started or 0 for node in run.status.nodes}
    ended = {node.name: node.ended or 0 for node in run.status.nodes}
    assert started["a"] == started["c"]
    assert started["b"] == ended["a"] == started["d"]
    assert ended["b"] - started["a"] == pytest.approx(5, abs=0.1)
    assert started["end"] == max(ended["b"], ended["c"])


def test_at_once_bounds_a_parallel_list(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = [{"name": f"w{n}", "type": "wait", "duration": "2s"} for n in range(5)]
    life = Life(monkeypatch, graph({"name": "p", "type": "parallel", "atOnce": 2, "nodes": waits}))
    most = [0]

    def count(simulator: Simulator) -> None:
        running = [n for n in simulator.run.status.nodes if n.state == "running" and n.name != "p"]
        most[0] = max(most[0], len(running))

    life.live(count)
    assert most[0] == 2
    assert (life.node("p").ended or 0) - (life.node("p").started or 0) == pytest.approx(6, abs=0.2)


def test_a_fault_in_the_background_acts_while_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(
        monkeypatch,
        graph(
            {
                "name": "line", "type": "serial",
                "nodes": [
                    {"name": "slow", "background": True, **FAULT},
                    {"name": "look", "type": "probe", "probe": "guard", "lasting": "2s"},
                ],
            },
            {"name": "after", "needs": ["line"], **TASK},
        ),
    )  # fmt: skip
    run = life.live()
    fault, look = run.status.faults[0], life.node("look")
    assert fault.effective_at is not None
    assert look.started is not None
    assert fault.effective_at <= look.started
    assert (look.ended or 0) <= (fault.recovery_started or 0)
    assert (fault.recovered_at or 0) - (fault.injected_at or 0) < 10, "it did not wait for its end"
    assert life.node("after").started == life.node("line").ended
    assert look.verdict == "held"
    assert run.status.verdict == Verdict.HELD


def test_a_branch_takes_the_first_case_that_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        {"when": "nodes.ask.output.code == 7", "nodes": [{"name": "x", **TASK}]},
        {"when": "nodes.ask.output.code > 2", "nodes": [{"name": "y", **TASK}]},
        {"when": "true", "nodes": [{"name": "z", **TASK}]},
    ]
    branch = {"name": "way", "type": "branch", "needs": ["ask"], "cases": cases}
    life = Life(monkeypatch, graph({"name": "ask", **TASK}, branch))
    life.world.done["ask"] = [Done(None, "", {"code": 3})]
    life.live()
    assert life.outcomes() == {
        "ask": "succeeded", "way": "succeeded", "x": "skipped", "y": "succeeded", "z": "skipped",
    }  # fmt: skip
    assert life.world.did == ["ask/1", "y/1"]


def test_a_condition_without_an_answer_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"name": "b", "needs": ["a"], "when": "nodes.a.output.nothing == 1", **TASK}
    life = Life(monkeypatch, graph({"name": "a", **TASK}, node))
    run = life.live()
    assert run.status.verdict == Verdict.ERROR
    assert "no value" in run.status.reason
    assert life.world.did == ["a/1"]


def test_a_loop_ends_with_the_round_that_fulfils_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = {
        "name": "again", "type": "repeat", "times": 5, "pause": "3s",
        "until": "nodes.try.output.code == 0", "nodes": [{"name": "try", **TASK}],
    }  # fmt: skip
    life = Life(monkeypatch, graph(loop))
    life.world.done |= {f"try.{n}": [Done(None, "", {"code": int(n < 3)})] for n in range(1, 6)}
    run = life.live()
    assert life.world.did == ["try.1/1", "try.2/1", "try.3/1"]
    assert life.node("again.4").outcome == "skipped"
    assert life.node("again").outcome == "succeeded"
    gap = (life.node("try.2").started or 0) - (life.node("try.1").ended or 0)
    assert gap == pytest.approx(3, abs=0.1)
    assert run.status.verdict == Verdict.HELD


def test_a_node_is_tried_again_with_a_growing_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    retry = {"attempts": 3, "backoff": "2s", "factor": 2.0}
    life = Life(monkeypatch, graph({"name": "t", "retry": retry, **TASK}))
    life.world.done["t"] = [Done("error", "once"), Done("error", "twice")]
    run = life.live()
    begun = [attempt.started for attempt in life.node("t").attempts]
    assert [round(b - a) for a, b in pairwise(begun)] == [2, 4]
    assert [attempt.text for attempt in life.node("t").attempts] == ["once", "twice", ""]
    assert run.status.verdict == Verdict.HELD


def test_a_fault_that_could_not_be_injected_is_tried_again_under_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(monkeypatch, graph({"name": "f", "retry": {"attempts": 3}, **FAULT}), fail=1.0)

    def mend(simulator: Simulator) -> None:
        if simulator.run.status.faults:
            life.world.odds.fail = 0.0

    run = life.live(mend)
    assert [fault.name for fault in run.status.faults] == ["f", "f_2"]
    assert len({fault.uid for fault in run.status.faults}) == 2
    assert run.status.verdict == Verdict.HELD
    assert life.node("f").verdict == "held"


@pytest.mark.parametrize(
    ("odds", "verdict"),
    [
        ({"fail": 1.0}, Verdict.ERROR),
        ({"ineffective": 1.0}, Verdict.NOT_EFFECTIVE),
        ({"unmeasured": 1.0}, Verdict.NOT_MEASURED),
        ({"task": 1.0}, Verdict.ERROR),
        ({"bad": 1.0}, Verdict.BROKE),
        ({"blind": 1.0}, Verdict.NOT_MEASURED),
    ],
)
def test_what_fails_ends_the_run_with_its_own_verdict_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, odds: dict[str, float], verdict: Verdict
) -> None:
    body = [
        {"name": "f", **FAULT},
        {"name": "t", **TASK},
        {"name": "p", "type": "probe", "probe": "edge", "timeout": "5s"},
    ]
    for tolerant in (False, True):
        line = {"name": "line", "type": "serial", "nodes": body, "continueOnFailure": tolerant}
        life = Life(monkeypatch, graph(line, {"name": "next", "needs": ["line"], **TASK}))
        life.world.values["guard"] = Measurement(value=0.1, ok=True)

        def hurt(simulator: Simulator, life: Life = life) -> None:
            if simulator.run.status.phase is Phase.STEADY:
                life.world.odds = Odds(**odds)

        run = life.live(hurt)
        assert life.node("line").outcome == "failed"
        if odds.get("task") and tolerant:
            continue  # then the next one fails too
        assert run.status.verdict == (Verdict.HELD if tolerant else verdict)
        assert life.node("next").outcome == ("succeeded" if tolerant else "aborted")


def test_last_nodes_run_when_everything_is_undone_whatever_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = graph({"name": "f", **FAULT}, {"name": "t", **TASK}, last=({"name": "bye", **TASK},))
    life = Life(monkeypatch, spec)
    life.world.done["t"] = [Done("error", "no")]
    run = life.live()
    assert run.status.verdict == Verdict.ERROR
    assert life.node("bye").outcome == "succeeded"
    gone = run.status.faults[0].recovered_at
    assert gone is None or (life.node("bye").started or 0) >= gone


def test_an_abort_undoes_everything_and_the_last_nodes_still_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = {"name": "f", "background": True, **FAULT}
    wait = {"name": "w", "type": "wait", "duration": "1h", "needs": ["f"]}
    life = Life(monkeypatch, graph(line, wait, last=({"name": "bye", **TASK},)))

    def stop(simulator: Simulator) -> None:
        if life.node("f").state == "released":
            simulator.interrupt = "enough"

    run = life.live(stop)
    assert run.status.aborted_by == "user"
    assert life.outcomes() == {"f": "succeeded", "w": "aborted", "bye": "succeeded"}
    assert all(fault.recovered_at for fault in run.status.faults)


def test_a_search_finds_what_is_still_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that bears up to 120 ms, tried by real steps of the engine."""
    search = {
        "name": "limit", "type": "search",
        "fault": {"fault": "network.delay", "params": {"interface": "lo"}, "duration": "1m"},
        "search": {
            "parameter": "latency", "low": "10ms", "high": "500ms", "tolerance": "20ms",
            "probes": ["edge"], "hold": "3s", "warmup": "1s", "cooldown": "2s",
        },
    }  # fmt: skip
    life = Life(monkeypatch, graph(search, {"name": "t", "needs": ["limit"], **TASK}))

    def bear(simulator: Simulator) -> None:
        acting = [f for f in simulator.run.status.faults if f.effective_at and not f.recovered_at]
        hurt = any(Duration.parse(str(f.params["latency"])).seconds > 0.12 for f in acting)
        life.world.values["edge"] = Measurement(value=0.0, ok=not hurt, text="seen")

    run = life.live(bear)
    found = life.node("limit").output
    assert found["answer"] == "found"
    low, high = (Duration.parse(str(found[key])).seconds for key in ("borne", "notBorne"))
    assert low <= 0.12 <= high
    assert high - low <= 0.0201
    assert run.status.verdict == Verdict.HELD
    assert life.node("t").outcome == "succeeded"
    assert len(run.status.faults) == found["trials"]
    assert all(fault.recovered_at for fault in run.status.faults), "a trial was left acting"
    for before, after in pairwise(run.status.faults):
        assert (after.started or 0) - (before.recovered_at or 0) >= 1.9, "no time to cool down"


def test_what_a_search_breaks_on_purpose_breaks_no_hypothesis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = {
        "name": "limit", "type": "search",
        "fault": {"fault": "network.delay", "duration": "1m"},
        "search": {
            "parameter": "latency", "low": "10ms", "high": "500ms", "tolerance": "50ms",
            "probes": ["guard"], "hold": "2s", "cooldown": "1s",
        },
    }  # fmt: skip
    life = Life(monkeypatch, graph(search))

    def bear(simulator: Simulator) -> None:
        acting = [f for f in simulator.run.status.faults if f.injected_at and not f.recovered_at]
        hurt = any(Duration.parse(str(f.params["latency"])).seconds > 0.12 for f in acting)
        life.world.values["guard"] = Measurement(value=0.0, ok=not hurt, text="seen")

    run = life.live(bear)
    assert life.node("limit").output["answer"] == "found"
    assert run.status.verdict == Verdict.HELD, run.status.reason


def test_a_search_that_is_aborted_undoes_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    search = {
        "name": "limit", "type": "search",
        "fault": {"fault": "network.delay", "duration": "1m"},
        "search": {"parameter": "latency", "low": "1ms", "high": "1s", "probes": ["edge"]},
    }  # fmt: skip
    life = Life(monkeypatch, graph(search))

    def stop(simulator: Simulator) -> None:
        if len(simulator.run.status.faults) == 3:
            simulator.interrupt = "enough"

    run = life.live(stop)
    assert run.status.aborted_by == "user"
    assert life.node("limit").outcome == "aborted"
    assert all(fault.recovered_at for fault in run.status.faults)


def test_a_fault_whose_time_is_over_before_anything_is_known_of_it_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = {"name": "slow", **FAULT, "timeout": "1s"}
    life = Life(monkeypatch, graph({"name": "line", "type": "serial", "nodes": [
        slow, {"name": "next", **TASK}]}))  # fmt: skip
    life.simulator.latency = lambda action: 3 * SECOND if action.do is Do.INJECT else 10**6
    run = life.live()
    assert life.outcomes() == {"line": "failed", "slow": "failed", "next": "aborted"}
    assert life.node("slow").text == "it took longer than 1s"
    assert run.status.verdict == Verdict.ERROR
