"""A run once more: with its seed, when it did what, on what it acted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.engine.lives import FAULT, TASK, Life, graph
from tests.engine.simulator import Simulator
from tests.engine.world import experiment

from faultline.api.experiment import ExperimentSpec
from faultline.api.graph_status import Approval
from faultline.api.repeat import FoundTarget, Timing
from faultline.api.run import Run
from faultline.engine import replaying, seeds
from faultline.engine.model import SECOND, Done
from faultline.engine.replaying import Wishes
from faultline.errors import Refused, TargetGone, UsageError
from faultline.places.again import again
from faultline.places.find import Target, find


def never(_name: str) -> None:
    return None


def with_spec(life: Life, **changes: Any) -> None:
    run = life.simulator.run
    life.simulator.run = run.model_copy(update={"spec": run.spec.model_copy(update=changes)})


def replayed(
    monkeypatch: pytest.MonkeyPatch, run: Run, wishes: Wishes | None = None, **done: list[Done]
) -> Life:
    """The replay of a run, before it begins."""
    life = Life(monkeypatch, run.spec.resolved)
    life.world.done.update(done)
    spec = replaying.spec_of(run, wishes or Wishes(), never)
    life.simulator.run = life.simulator.run.model_copy(update={"spec": spec})
    return life


def offsets(run: Run) -> dict[str, float]:
    """When each node and fault began, in seconds from the beginning of the injection."""
    zero = next(each.started for each in run.status.phases if each.phase == "injection")
    begun = [*run.status.nodes, *run.status.faults]
    return {each.name: each.started - zero for each in begun if each.started is not None}


# ---------------------------------------------------------------------- when


LINE: dict[str, Any] = {
    "name": "line", "type": "serial",
    "nodes": [
        {"name": "slow", "background": True, **FAULT},
        {"name": "until", "type": "wait", "until": "nodes.t.state == 'ended'", "timeout": "5m"},
        {"name": "ask", "type": "approval"},
        {"name": "last", "type": "wait", "duration": "1s"},
    ],
}  # fmt: skip


def lived(monkeypatch: pytest.MonkeyPatch) -> Life:
    """A task takes 7 s, somebody answers 20 s later, and meanwhile a fault goes on."""
    life = Life(monkeypatch, graph(LINE, {"name": "t", **TASK}))
    with_spec(life, seed=11)
    quick = life.simulator.latency
    life.simulator.latency = lambda each: 7 * SECOND if each.node == "t" else quick(each)

    def say(simulator: Simulator) -> None:
        asked = life.simulator.run.status.nodes and life.node("ask").began_ns
        if asked and simulator.world.ns > asked + 20 * SECOND:
            with_spec(life, approvals=[Approval(node="ask", answer="continue", by="ann")])
        elif asked:
            simulator.world.ns += SECOND

    assert life.live(say).status.verdict == "held"
    return life


def test_a_replay_begins_everything_when_it_began_then(monkeypatch: pytest.MonkeyPatch) -> None:
    first = lived(monkeypatch).simulator.run
    again = replayed(monkeypatch, first, Wishes(answers=True))
    run = again.live()  # nobody is there to answer, and the task is done at once
    assert run.status.verdict == "held"
    then, now = offsets(first), offsets(run)
    assert now.keys() == then.keys()
    for name in ("slow", "until", "ask", "last"):
        assert now[name] == pytest.approx(then[name], abs=0.3), name
    assert now["last"] > 26
    assert again.node("ask").text.endswith("approved by ann")
    assert again.node("ask").output["by"] == "ann"
    assert "approval wanted" not in {point.event for point in run.status.timeline}
    told = next(each for each in run.status.faults if each.name == "slow")
    was = next(each for each in first.status.faults if each.name == "slow")
    held = (told.recovery_started or 0) - (told.injected_at or 0)
    assert held == pytest.approx((was.recovery_started or 0) - (was.injected_at or 0), abs=0.3)


def test_as_it_was_asked_nothing_waits_and_people_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = lived(monkeypatch).simulator.run
    spec = replaying.spec_of(first, Wishes(timings=False, targets=False), never, "bob")
    assert spec.repeat is not None
    assert (spec.repeat.timings, spec.repeat.targets) == ({}, {})
    assert (spec.seed, spec.creator, spec.approvals) == (11, "bob", [])
    timed = replaying.spec_of(first, Wishes(seed=5), never)
    assert timed.repeat is not None
    assert timed.seed == 5
    assert timed.repeat.timings["ask"].answer == ""
    assert "line" not in timed.repeat.timings
    assert timed.repeat.timings["slow"].length


def test_a_pause_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = {"name": "w", "type": "wait", "duration": "2s"}
    life = Life(monkeypatch, graph(wait, {"name": "f", "needs": ["w"], **FAULT}))
    steps = [0]

    def pause(simulator: Simulator) -> None:
        if simulator.run.status.nodes and life.node("w").state == "running":
            steps[0] += 1
            with_spec(life, pause="lunch" if steps[0] < 40 else "")
            simulator.world.ns += SECOND if steps[0] < 40 else 0

    first = life.live(pause)
    assert offsets(first)["f"] > 30
    timings = replaying.taken_over(first, Wishes(), never).timings
    assert timings["f"].begin is not None
    assert timings["f"].begin.seconds == pytest.approx(2, abs=1.1)


def test_a_fault_that_was_cut_short_by_an_abort_is_held_as_long_as_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(monkeypatch, experiment())

    def abort(simulator: Simulator) -> None:
        if any(each.effect == "effective" for each in simulator.run.status.faults):
            simulator.interrupt = "enough"

    first = life.live(abort)
    timings = replaying.taken_over(first, Wishes(), never).timings
    assert timings["one"] == Timing(begin=timings["one"].begin)
    assert timings["one"].begin is not None
    assert timings["one"].begin.seconds < 1


def test_what_must_be_done_at_the_end_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = {"name": "w", "type": "wait", "duration": "100s"}
    spec = graph(wait, last=({"name": "tidy", **TASK},))
    first = Life(monkeypatch, spec).live()
    again = replayed(monkeypatch, first)

    def abort(simulator: Simulator) -> None:
        if simulator.run.status.nodes and again.node("w").state == "running":
            simulator.interrupt = "enough"

    run = again.live(abort)
    assert again.node("tidy").outcome == "succeeded"
    assert (run.status.ended or 0) - (run.status.started or 0) < 50


def test_a_run_that_goes_on_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch, graph({"name": "t", **TASK}))
    with pytest.raises(UsageError, match="has not ended"):
        replaying.spec_of(life.simulator.run, Wishes(), never)


def test_the_runs_of_its_nodes_are_repeated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    child = lived(monkeypatch).simulator.run
    node = {"name": "inner", "type": "experiment", "experiment": "x.yaml"}
    life = Life(monkeypatch, graph(node))
    life.world.done["inner"] = [Done("held", "", {"run": "child"})]
    found = replaying.taken_over(life.live(), Wishes(), {"child": child}.get)
    assert found.children["inner"].timings["slow"].length is not None
    assert found.children["inner"].run == child.metadata.name


# ---------------------------------------------------------------------- chance


def drawn(monkeypatch: pytest.MonkeyPatch, seed: int | None, spec: ExperimentSpec) -> Life:
    life = Life(monkeypatch, spec)
    with_spec(life, seed=seed)
    life.live()
    return life


def test_all_that_draws_draws_from_the_seed_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = {"parameter": "latency", "low": "0ms", "high": "64ms", "tolerance": "16ms",
                "probes": ["during"], "hold": "1s"}  # fmt: skip
    spec = experiment(
        nodes=[{"name": "s", "type": "search", "search": searched,
                "fault": {"fault": "network.delay"}}],
    )  # fmt: skip
    one, two, other = (drawn(monkeypatch, seed, spec) for seed in (3, 3, 4))

    def of(life: Life) -> tuple[dict[str, int | None], dict[str, int | None], int | None]:
        search = life.node("s").search
        assert search is not None
        orders = {re.sub("^[^-]*-", "", each.uid): each.seed for each in life.world.orders}
        return life.world.seeds, orders, search.spec.seed

    assert of(one) == of(two)
    traffic, orders, search = of(one)
    assert len({*traffic.values(), *orders.values(), search}) == 1 + len(orders) + 1
    assert set(of(other)[1].values()).isdisjoint(orders.values())
    assert of(drawn(monkeypatch, None, spec))[0] == {"load": None}, "of a version without seeds"


def test_what_is_derived_depends_on_nothing_else() -> None:
    found = [seeds.derived(seed, *path) for seed in (1, 2, 12) for path in (("a",), (2, "a"), "ab")]
    assert len(set(found)) == len(found)
    assert seeds.derived(1, "fault", "x") == seeds.derived(1, "fault", "x") is not None
    assert seeds.derived(None, "x") is None


# ---------------------------------------------------------------------- on what


@pytest.fixture
def sleeper() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Makes processes with the same command line, which nothing else has."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.wait()


def start(started: list[subprocess.Popen[bytes]]) -> int:
    words = [sys.executable, "-S", "-c", "import time; time.sleep(600)", f"replay-{os.getpid()}"]
    started.append(subprocess.Popen(words))
    os.waitid(os.P_PID, started[-1].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return started[-1].pid


def end(started: list[subprocess.Popen[bytes]]) -> None:
    started[-1].send_signal(signal.SIGKILL)
    started[-1].wait()


def test_a_process_is_the_same_by_its_pid_or_by_its_command_line(
    sleeper: list[subprocess.Popen[bytes]],
) -> None:
    pid = start(sleeper)
    named = Target(process=f"replay-{os.getpid()}")
    place = find(named).to_json()
    fields = {name: place[name] for name in FoundTarget.model_fields if name in place}
    was = FoundTarget.model_validate({**fields, "words": place["name"]})
    found = was.model_dump(by_alias=False)
    assert again(named, found).pid == pid, "the very same"
    end(sleeper)
    with pytest.raises(TargetGone, match="has gone") as gone:
        again(named, found)
    assert "--retarget" in gone.value.hint
    second = start(sleeper)
    assert again(named, found).pid == second, "started anew"
    start(sleeper)
    with pytest.raises(Refused, match="2 processes have its command line"):
        again(named, found)


def test_a_container_that_was_made_anew_is_another_one() -> None:
    was = FoundTarget(kind="container", words="container web (docker 0123)", container="0" * 64)
    with pytest.raises(TargetGone, match="container web"):
        again(Target(container="web"), was.model_dump(by_alias=False))
    assert again(Target(), FoundTarget(kind="host").model_dump(by_alias=False)) == Target()
    group = FoundTarget(kind="cgroup", group="/shop")
    assert again(Target(cgroup="shop"), group.model_dump(by_alias=False)) == Target(cgroup="/shop")


def test_a_fault_of_a_replay_acts_on_what_it_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = experiment()
    life = Life(monkeypatch, spec)
    first = life.live()
    for fault in first.status.faults:
        fault.target = FoundTarget(kind="process", words=fault.name, pid=7, command="x y")
    again = replayed(monkeypatch, first)
    again.live()
    assert {each.found["words"] for each in again.world.orders} == {"one", "two"}
    retargeted = replayed(monkeypatch, first, Wishes(targets=False))
    retargeted.live()
    assert [each.found for each in retargeted.world.orders] == [{}, {}]
