"""Random graphs in a world where everything can go wrong at any moment, by numbered seeds.

Other seeds in each run; one that fails is played again first with FAULTLINE_SEED=N.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from tests.engine.lives import FAULT, graph
from tests.engine.simulator import Simulator
from tests.engine.world import Odds, World

from faultline.api.experiment import ExperimentSpec
from faultline.api.graph import walk
from faultline.api.graph_status import Approval, NodeState
from faultline.api.run import Run
from faultline.engine.model import SECOND, Action, Do
from faultline.testing.sampling import SEED

SEEDS, SEEDS_PAUSED = 1000, 60
MANY, MANY_PAUSED = 4000, 200


class Maker:
    """Makes a graph from a source of randomness."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.made: list[str] = []

    def nodes(self, depth: int, serial: bool = True) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(self.random.randint(1, 3)):
            before = [node["name"] for node in found]
            found.append(self.node(depth, before if not serial else []))
        return found

    def node(self, depth: int, before: list[str]) -> dict[str, Any]:
        name = f"n{len(self.made)}"
        self.made.append(name)
        kinds = ["fault", "task", "wait", "probe", "approval"]
        groups = ["serial", "parallel", "branch", "repeat"] if depth else []
        kind = self.random.choice(kinds + groups * 2)
        node: dict[str, Any] = {"name": name, "type": kind, **self.body(kind, depth)}
        if before and self.random.random() < 0.4:
            node["needs"] = [self.random.choice(before)]
        if kind in ("fault", "task", "probe") and self.random.random() < 0.3:
            node["retry"] = {"attempts": 3, "backoff": "1s"}
        if self.random.random() < 0.3:
            node["continueOnFailure"] = True
        if self.random.random() < 0.15:
            node["timeout"] = self.random.choice(["3s", "20s"])
        return node

    def body(self, kind: str, depth: int) -> dict[str, Any]:
        chance = self.random.random
        if kind == "fault":
            return {**FAULT, "duration": "6s", "background": chance() < 0.5}
        if kind == "task":
            return {"command": {"command": ["true"]}, "idempotent": chance() < 0.3}
        if kind == "wait":
            return {"duration": self.random.choice(["0s", "1s", "7s"])}
        if kind == "probe":
            return {"probe": "edge", "timeout": "4s"}
        if kind == "approval":
            return {"timeout": "5s", "otherwise": self.random.choice(["continue", "refuse"])}
        if kind == "branch":
            when = self.random.choice(["true", "false", "probes.edge.ok == true"])
            other = self.nodes(depth - 1) if chance() < 0.5 else []
            return {"cases": [{"when": when, "nodes": self.nodes(depth - 1)}], "otherwise": other}
        inner: dict[str, Any] = {"nodes": self.nodes(depth - 1, serial=kind != "parallel")}
        if kind == "parallel" and chance() < 0.5:
            inner["atOnce"] = self.random.randint(1, 2)
        if kind == "repeat":
            inner |= {"times": self.random.randint(1, 2), "pause": "1s"}
        return inner


def spec_of(source: random.Random) -> ExperimentSpec:
    maker = Maker(source)
    nodes = maker.nodes(source.choice([1, 1, 1, 2]), serial=False)
    last = {"name": "last", "type": "task", "command": {"command": ["true"]}}
    return graph(*nodes, last=(last,))


def odds_of(source: random.Random) -> Odds:
    def some(*values: float) -> float:
        return source.choice([0.0, 0.0, *values])

    return Odds(
        refuse=some(0.02), fail=some(0.1, 0.5), unforeseen=some(0.05), half=some(0.1),
        ineffective=some(0.1, 0.9), unmeasured=some(0.1), unrecovered=some(0.2),
        person=some(0.02), sticky=some(0.1), bad=some(0.05), blind=some(0.05),
        task=some(0.1, 0.5),
    )  # fmt: skip


class Trouble:
    """What happens to a run between two decisions."""

    def __init__(self, world: World, crash: float) -> None:
        self.world, self.crash, self.left = world, crash, 20

    def __call__(self, running: Simulator) -> None:
        chance = self.world.chance
        if self.left and chance(self.crash):
            self.left -= 1
            running.die()
            self.world.pass_time(self.world.random.choice([0, SECOND, 30 * SECOND]))
            running.step()
        if self.left and chance(self.crash / 20):
            self.left -= 1
            self.world.reboot()
            running.die()
            running.step()
        if chance(0.03):
            self.wish(running, pause="" if running.run.spec.pause else "a while")
        if running.run.spec.pause:
            self.world.pass_time(SECOND)
            if chance(0.3):
                self.wish(running, pause="")
        if chance(0.003):
            running.interrupt = "enough"
        asking = [
            node.name
            for node in running.run.status.nodes
            if node.type == "approval" and node.state is NodeState.RUNNING
        ]
        if asking and chance(0.2):
            said = Approval(node=asking[0], answer=self.world.random.choice(["continue", "refuse"]))
            self.wish(running, approvals=[*running.run.spec.approvals, said])

    def wish(self, running: Simulator, **change: Any) -> None:
        spec = running.run.spec.model_copy(update=change)
        running.run = running.run.model_copy(update={"spec": spec})
        if not running.flights:
            running.step()


def play(seed: int, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    source = random.Random(seed)
    spec, world = spec_of(source), World(source, odds_of(source))
    hang = source.choice([0.0, 0.0, 0.02])

    def latency(action: Action) -> int | None:
        if action.do not in (Do.TASK, Do.CANCEL) and world.chance(hang):
            return None
        return source.choice([0, 10**6, 10**8, 2 * SECOND])

    late, thorough = source.choice([0.0, 0.3]), source.random() < 0.1
    running = Simulator(world, spec, monkeypatch, latency, late, thorough)
    running.drive(Trouble(world, source.choice([0.0, 0.01, 0.1])))
    return running


def check(running: Simulator) -> None:
    run, world = running.run, running.world
    for node in run.status.nodes:
        assert node.over, f"{node.name} has not ended"
        assert node.outcome, f"nobody knows how {node.name} ended"
        assert len(node.attempts) <= 3
    _tasks(run, world)
    begun = {node.name: node.started for node in run.status.nodes if node.attempts}
    for node in run.status.nodes:
        if node.parent and node.attempts:
            assert (begun[node.parent] or 0) <= (node.started or 0), "it began before its group"
    last = next(node for node in run.status.nodes if node.name == "last")
    assert last.outcome in ("succeeded", "failed"), "the last node did not run"
    gone = [fault.recovered_at for fault in run.status.faults if fault.recovered_at is not None]
    assert all(at <= (last.started or 0) + world.skew for at in gone), "a last node ran too early"


def _tasks(run: Run, world: World) -> None:
    """No task that may not be done twice is: each attempt at most once."""
    steps = {step.name: step for _, step in walk(run.spec.resolved.nodes)}
    for did, times in Counter(world.did).items():
        name, _, number = did.partition("/")
        if number and name in steps and not getattr(steps[name], "idempotent", False):
            assert times == 1, f"{did} was done {times} times"


def _played(count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    for seed in range(SEED, SEED + count):
        with monkeypatch.context() as patch:
            try:
                running = play(seed, patch)
                check(running)
            except Exception as error:
                error.add_note(f"seed {seed}: FAULTLINE_SEED={seed} plays it again")
                raise
            verdicts[str(running.run.status.verdict)] += 1
    return verdicts


def test_whatever_goes_wrong_every_graph_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = _played(SEEDS, monkeypatch)
    often = {"held", "broke", "not measured", "error"}
    assert often <= set(verdicts), f"not every verdict was among them: {verdicts}"


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_thousands_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = _played(MANY, monkeypatch)
    assert len(verdicts) == 5, f"not every verdict was among them: {verdicts}"


@pytest.mark.parametrize("count", [SEEDS_PAUSED, pytest.param(MANY_PAUSED, marks=pytest.mark.full)])
def test_pausing_and_going_on_changes_no_verdict(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(SEED, SEED + count):
        verdicts: list[str] = []
        for pausing in (False, True):
            source = random.Random(seed)
            world, spec = World(random.Random(1)), spec_of(source)
            running = Simulator(world, spec, monkeypatch, thorough=seed % 10 == 0)
            steps = [0]

            def pause(one: Simulator, pausing: bool = pausing, steps: list[int] = steps) -> None:
                steps[0] += 1
                why = "a while" if pausing and steps[0] % 12 < 4 else ""
                spec = one.run.spec.model_copy(update={"pause": why})
                one.run = one.run.model_copy(update={"spec": spec})
                if why:
                    one.world.pass_time(SECOND // 5)

            running.drive(pause)
            verdicts.append(str(running.run.status.verdict))
        assert verdicts[0] == verdicts[1], f"seed {seed}"
