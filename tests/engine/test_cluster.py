"""The whole engine under a seeded scheduler: several engines, one store, everything goes wrong.

Other seeds in each run; one that fails is played again first with FAULTLINE_SEED=N.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.engine.cluster import Cluster, reboot
from tests.engine.lives import FAULT, graph
from tests.engine.test_graph_simulation import Maker, odds_of
from tests.engine.wire import Weather

from faultline.api.experiment import ExperimentSpec
from faultline.api.graph_status import Approval, NodeState
from faultline.api.model import Metadata
from faultline.api.run import Phase, Run, RunSpec
from faultline.api.schedule import Schedule, ScheduleSpec
from faultline.engine.model import SECOND
from faultline.stores.model import Filter
from faultline.testing.sampling import SEED

SEEDS, MANY = 150, 2000
STORMY = 60.0
"""Seconds for which things go wrong; afterwards everything must come to its end."""
LONGEST = 40 * 60.0
ON_DISK = 0.03
"""How many of the seeds are played with the real store."""


def weather_of(source: random.Random) -> Weather:
    def some(*values: float) -> float:
        return source.choice([0.0, 0.0, *values])

    return Weather(
        lost=some(0.01, 0.1), unheard=some(0.01, 0.1), old=some(0.05, 0.3),
        conflict=some(0.05), slow=some(0.01, 0.1), frozen=some(0.003, 0.02),
        kill=some(0.002, 0.01), cut=some(0.003, 0.02),
    )  # fmt: skip


def spec_of(source: random.Random) -> ExperimentSpec:
    maker = Maker(source)
    last = {"name": "last", "type": "task", "command": {"command": ["true"]}}
    first = {"name": "first", **FAULT, "duration": "6s"}
    return graph(first, *maker.nodes(1, serial=False), last=(last,))


def schedule_of(source: random.Random) -> Schedule:
    experiment = {
        "title": "a test",
        "hypothesis": {"text": "it holds", "probes": ["up"]},
        "probes": [{"name": "up", "type": "tcp", "host": "h", "port": 1}],
        "faults": [{"name": "one", "fault": "network.delay", "duration": "3s"}],
        "baseline": "1s",
        "cooldown": "1s",
    }
    spec = {
        "experiment": {"name": "checkout", "spec": experiment},
        "when": {"every": source.choice(["10s", "30s"])},
        "concurrency": source.choice(["forbid", "replace", "allow"]),
        "missed": source.choice(["skip", "once", "all"]),
        "missedLimit": 3,
        "history": {"succeeded": source.randrange(3), "failed": source.randrange(3)},
    }
    return Schedule(metadata=Metadata(name="nightly"), spec=ScheduleSpec.model_validate(spec))


class Play:
    """One seed: who there is, what goes wrong, what people want."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        source = self.random = random.Random(seed)
        folder.mkdir(parents=True)
        hosts = source.choice([1, 1, 2, 3])
        cluster = self.cluster = Cluster(source, hosts, monkeypatch, folder, odds_of(source))
        cluster.hang = source.choice([0.0, 0.0, 0.02])
        cluster.late = source.choice([0.0, 0.3])
        cluster.twice = source.choice([0.0, 0.1])
        for number in range(source.randint(max(1, hosts), 3)):
            cluster.add(number % hosts, weather_of(source))
        if source.random() < ON_DISK:
            cluster.on_disk(monkeypatch)
        self.people = cluster.connect()
        self.calm_at = 0.0
        self.scheduled = source.random() < 0.15
        if self.scheduled:
            self.people.create(schedule_of(source))
        for number in range(source.randint(1, 2)):
            meta = Metadata(name=f"run-{number}")
            spec = RunSpec(experiment="e", resolved=spec_of(source), creator="somebody")
            cluster.created(self.people.create(Run(metadata=meta, spec=spec)))
        cluster.after(1.0, self.something)

    def something(self) -> None:
        """What people and machines do, once a second."""
        cluster, chance = self.cluster, self.cluster.chance
        if not cluster.calm:
            if chance(0.004):
                reboot(cluster, cluster.choice(cluster.hosts))
            if chance(0.01):
                cluster.choice(cluster.hosts).skew += cluster.choice([-3600.0, -2.0, 0.5, 900.0])
            for replica in cluster.replicas:
                if chance(replica.weather.frozen):
                    replica.freeze(cluster.choice([1.0, 20.0, 50.0]))
                if chance(replica.weather.kill):
                    replica.kill()
                if chance(replica.weather.kill):
                    replica.stop()
        for run in self.people.list(Run):
            if run.status.phase is not Phase.ENDED:
                self.wish(run)
        cluster.after(1.0, self.something)

    def wish(self, run: Run) -> None:
        chance, spec = self.cluster.chance, run.spec
        change: dict[str, Any] = {}
        if spec.pause and (self.cluster.calm or chance(0.3)):
            change["pause"] = ""
        elif chance(0.02):
            change["pause"] = "a while"
        if chance(0.003):
            change["abort"] = "enough"
        asking = [
            node.name
            for node in run.status.nodes
            if node.type == "approval" and node.state is NodeState.RUNNING
        ]
        if asking and chance(0.2):
            said = Approval(node=asking[0], answer=self.cluster.choice(["continue", "refuse"]))
            change["approvals"] = [*spec.approvals, said]
        if change:
            wanted = run.model_copy(update={"spec": spec.model_copy(update=change)})
            self.cluster.wrote(self.people.update(wanted))

    def over(self) -> bool:
        cluster = self.cluster
        left = self.people.summaries(Run, Filter(ended=False))
        stormy = cluster.ns < STORMY * SECOND
        if stormy and (left or self.scheduled):
            return False
        if not cluster.calm:
            cluster.calm, self.calm_at = True, cluster.shelf.wall()
        return all(run.created >= self.calm_at for run in left)

    def go(self) -> None:
        cluster, judge = self.cluster, self.cluster.judge
        cluster.go(self.over, LONGEST)
        cluster.pass_to(cluster.ns + 30 * SECOND)  # the keepers go on without any engine
        judge.settle(self.calm_at)
        if self.scheduled:
            judge.schedule(self.people.get(Schedule, "nightly"))


def play(seed: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Run]:
    """All runs of a seed, as they ended."""
    with monkeypatch.context() as patch:
        played = Play(seed, patch, folder / str(seed))
        try:
            played.go()
            return list(played.cluster.judge.latest.values())
        except Exception as error:
            error.add_note(f"seed {seed}: FAULTLINE_SEED={seed} plays it again")
            raise
        finally:
            played.cluster.close()


@pytest.mark.parametrize("count", [SEEDS, pytest.param(MANY, marks=pytest.mark.full)])
@pytest.mark.timeout(1200)
def test_whatever_happens_to_engines_and_their_store_every_run_comes_to_its_end(
    count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)
    verdicts: Counter[str] = Counter()
    for seed in range(SEED, SEED + count):
        verdicts.update(str(run.status.verdict) for run in play(seed, monkeypatch, tmp_path))
    assert {"held", "error"} <= set(verdicts), f"not every verdict was among them: {verdicts}"


def test_a_seed_plays_the_same_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for seed in range(SEED, SEED + 3):
        first, second = (
            [run.status.timeline for run in play(seed, monkeypatch, tmp_path / again)]
            for again in ("one", "two")
        )
        assert first == second, f"seed {seed}"
