"""The reconciler of runs in several clusters, on its own."""

from __future__ import annotations

from typing import Any

import pytest

from faultline.api.clusters import ClusterRef, ClusterStatus, SecretKey
from faultline.api.experiment import ExperimentSpec
from faultline.api.model import Metadata
from faultline.api.run import Failure, Phase, Run, RunSpec
from faultline.engine import clusters
from faultline.engine.model import SECOND, Action, Facts, Now, Result
from faultline.engine.reconcile import reconcile


class Several:
    """A run in two clusters, and a clock."""

    def __init__(self, *names: str) -> None:
        spec = ExperimentSpec.model_validate({
            "title": "t", "hypothesis": {"text": "h", "probes": ["up"]},
            "probes": [{"name": "up", "type": "tcp", "host": "a", "port": 1}],
            "faults": [{"name": "f", "fault": "network.delay", "params": {"latency": "1ms"},
                        "duration": "10s"}],
        })  # fmt: skip
        refs = [ClusterRef(name=name, secret=SecretKey(name="s")) for name in names]
        self.run = Run(
            metadata=Metadata(name="r", uid="u"),
            spec=RunSpec(experiment="e", resolved=spec, clusters=refs),
        )
        self.at = 1000.0
        self.actions: dict[str, Action] = {}
        self.step()

    def now(self) -> Now:
        return Now(self.at, round(self.at * SECOND), "kubernetes")

    def step(self, *results: Result, after: float = 2.0, **facts: Any) -> None:
        self.at += after
        decision = reconcile(self.run, Facts(results, **facts), self.now())
        self.run = self.run.model_copy(update={"status": decision.status})
        self.actions = {each.node: each for each in decision.actions}

    def told(self, name: str, **fields: Any) -> Result:
        status = ClusterStatus(name=name, run="r", **{"phase": "wait", **fields})
        return Result(self.actions[name].id, self.now(), status)

    def silent(self, name: str, code: str = "kubernetes-api") -> Result:
        error = Failure(code=code, message="no answer")
        return Result(self.actions[name].id, self.now(), error=error)

    def ended(self, name: str, verdict: str = "held", **fields: Any) -> Result:
        return self.told(name, phase="ended", verdict=verdict, ended=self.at, **fields)

    @property
    def events(self) -> list[str]:
        return [each.event for each in self.run.status.timeline]

    def one(self, name: str) -> ClusterStatus:
        return next(each for each in self.run.status.clusters if each.name == name)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        (("held", "held"), "held"),
        (("held", "broke"), "broke"),
        (("not measured", "not effective"), "not effective"),
        (("error", "broke"), "error"),
    ],
)
def test_the_worst_verdict_is_that_of_the_whole(verdicts: tuple[str, str], worst: str) -> None:
    run = Several("a", "b")
    assert set(run.actions) == {"a", "b"}
    run.step(run.told("a"), run.told("b"))
    run.step()
    run.step(run.ended("a", verdicts[0], reason="why"), run.ended("b", verdicts[1], reason="why"))
    status = run.run.status
    assert (str(status.verdict), status.phase) == (worst, Phase.ENDED)
    assert "why" in status.reason
    assert run.actions == {}


def test_what_stops_one_of_them_stops_all() -> None:
    run = Several("a", "b")
    run.step(run.told("a"), run.told("b", aborted="enough", aborted_by="halt"))
    status = run.run.status
    assert (status.aborted_by, status.stopped) == ("halt", "cluster b: enough")
    assert status.phase is Phase.RECOVERY
    run.step()
    run.step(run.ended("a", "not measured"), run.ended("b", "not measured"))
    assert str(run.run.status.verdict) == "not measured"


def test_a_wish_and_a_halt_here_are_told_to_all() -> None:
    for facts in ({"halted": "halted: stop"}, {"interrupt": "enough"}):
        run = Several("a", "b")
        run.step(**facts)
        assert run.run.status.stopped


def test_a_cluster_that_is_lost_is_told_found_and_at_last_given_up() -> None:
    run = Several("a", "b")
    run.step(run.told("a"), run.told("b"))
    while "cluster lost" not in run.events:
        run.step()
        run.step(run.told("a"), run.silent("b"))
        assert run.at < 1000 + 5 * clusters.LOST
    assert run.one("b").lost is not None
    run.step()
    run.step(run.told("a"), run.told("b"))
    assert run.events[-1] == "cluster found"
    assert run.one("b").lost is None
    run.step()
    run.step(run.ended("a"), run.silent("b"))
    while run.run.status.phase is not Phase.ENDED:
        run.step(after=20)
        run.step(*([run.silent("b")] if run.actions else []))
        assert run.at < 1000 + 2 * clusters.BEYOND
    assert str(run.run.status.verdict) == "error"
    assert "deadlines" in run.run.status.reason


def test_what_will_never_be_better_ends_at_once_and_stops_the_others() -> None:
    run = Several("a", "b")
    run.step(run.told("a"), run.silent("b", "invalid-document"))
    assert run.one("b").ended is not None
    assert run.run.status.stopped == "cluster b: no answer"


def test_an_answer_counts_once_and_another_engine_asks_the_same() -> None:
    run = Several("a", "b")
    answer, asked = run.told("a"), dict(run.actions)
    run.step()
    assert run.actions == asked, "what was not answered is asked for again"
    run.step(answer)
    assert run.one("a").looks == 1
    run.step(answer, run.told("b"))
    assert run.one("a").looks == 1
