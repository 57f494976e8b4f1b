"""Curves and logs in the life of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.api.experiment import Experiment
from faultline.api.run import FaultStatus, Phase, Run, RunSpec
from faultline.api.watching import LogSpec, LogStatus, TargetSecond, TargetStatus
from faultline.engine import watching
from faultline.engine.draft import Draft
from faultline.engine.model import Do, Facts, Now, Result, Watched
from faultline.watching.logs import Window
from faultline.watching.run import name_of, own_logs

NOW = Now(1000.0, 5 * 10**9, "boot")


def a_run(**more: Any) -> Run:
    document = {
        "apiVersion": "faultline.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "x"},
        "spec": {
            "title": "x",
            "hypothesis": {"text": "x", "probes": ["p"]},
            "probes": [{"name": "p", "type": "tcp", "host": "localhost", "port": 1}],
            "faults": [{"name": "f", "fault": "cpu.burn", "target": {"container": "web"}}],
            **more,
        },
    }
    spec = Experiment.model_validate(document).spec
    return Run.model_validate(
        {"metadata": {"name": "r", "uid": "u"}, "spec": RunSpec(experiment="x", resolved=spec)}
    )


def draft_in(phase: Phase, run: Run | None = None) -> Draft:
    made = Draft(run or a_run(), NOW)
    made.status.phase = phase
    made.status.clock_ns = NOW.boot_ns
    return made


def test_the_host_and_every_target_is_looked_at_once() -> None:
    run = a_run(watch=[{"pid": 7}, {"container": "web"}, {}])
    assert list(watching.targets(run.spec.resolved)) == ["host", "container web", "pid 7"]


def test_targets_of_a_graph_are_found_however_deep() -> None:
    fault = {"type": "fault", "fault": "cpu.burn", "duration": "1s"}
    inner = {
        "type": "branch",
        "name": "b",
        "cases": [{"when": "true", "nodes": [{**fault, "name": "d", "target": {"pid": 9}}]}],
    }
    nodes = [{"type": "parallel", "name": "p", "nodes": [{**fault, "name": "c"}, inner]}]
    assert list(watching.targets(a_run(nodes=nodes).spec.resolved))[-1] == "pid 9"


def test_looking_begins_with_the_traffic_and_again_with_a_new_engine() -> None:
    early = draft_in(Phase.ADMISSION)
    watching.step(early)
    assert early.attempts(Do.WATCH, "") == []
    draft = draft_in(Phase.TRAFFIC)
    watching.step(draft)
    watching.step(draft)
    assert len(draft.attempts(Do.WATCH, "")) == 1
    draft.status.resumed = 1
    watching.step(draft)
    assert len(draft.attempts(Do.WATCH, "")) == 2


def test_the_verdict_waits_for_the_logs_but_not_for_ever() -> None:
    never = draft_in(Phase.VERDICT)
    assert watching.finished(never)
    draft = draft_in(Phase.STEADY)
    watching.step(draft)
    draft.status.phase = Phase.VERDICT
    assert not watching.finished(draft)
    draft.status.clock_ns += watching.PATIENCE
    assert watching.finished(draft)


def test_an_error_of_ours_is_told_and_changes_nothing_else() -> None:
    from faultline.api.run import Failure

    draft = draft_in(Phase.STEADY)
    failed = Result("watch/0", NOW, error=Failure(code="bug", message="it broke"))
    watching.folded(draft, failed)
    assert draft.status.targets[0].end == "it broke"
    assert draft.status.stopped == ""
    assert draft.status.failures == []


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_seconds_are_taken_over_once_whatever_the_portions(portions: list[int]) -> None:
    every = [TargetSecond(at=100.0 + i, processes=i) for i in range(sum(portions))]
    draft = draft_in(Phase.STEADY)
    draft.status.targets = [TargetStatus(name="host")]
    done = 0
    for size in portions:
        done += size
        given_ = tuple(every[max(0, done - size - 2) : done])  # two of them once more
        watching.seconds(draft, Facts(targets={"host": given_}))
    assert draft.status.targets[0].seconds == every


def test_what_is_known_of_a_target_is_renewed_and_its_curve_kept() -> None:
    draft = draft_in(Phase.STEADY)
    second = TargetSecond(at=1.0)
    draft.status.targets = [TargetStatus(name="host", started=5.0, seconds=[second])]
    fresh = TargetStatus(name="host", started=9.0, end="gone", cost=0.1)
    watching.folded(draft, Result("collect", NOW, Watched((fresh,), (LogStatus(name="l"),))))
    known = draft.status.targets[0]
    assert (known.seconds, known.started, known.end) == ([second], 5.0, "gone")
    assert [log.name for log in draft.status.logs] == ["l"]


class Recorder:
    """A port that notes what it is asked."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.window: Window | None = None

    def start(self, name: str, target: Any) -> None:
        self.said.append(f"start {name}")

    def seconds(self, name: str, after: float) -> list[TargetSecond]:
        return [s for s in (TargetSecond(at=float(i)) for i in range(4)) if s.at > after]

    def status(self, name: str) -> TargetStatus | None:
        return TargetStatus(name=name)

    def begin(self, specs: Any, targets: Any) -> list[LogStatus]:
        self.said.append("begin")
        return [LogStatus(name="log", source="new")]

    def follow(self, marked: Any) -> None:
        self.said.append("follow")

    def end(self, specs: Any, marked: Any, window: Window) -> list[LogStatus]:
        self.window = window
        return list(marked)

    def stop(self) -> None:
        self.said.append("stop")


def test_an_engine_that_takes_over_marks_no_log_anew() -> None:
    port, run = Recorder(), a_run()
    assert watching.begin(run, port).logs[0].source == "new"
    run.status.logs = [LogStatus(name="log", source="old", begin={"offset": 7})]
    again = watching.begin(run, port)
    assert again.logs[0].source == "old"
    assert port.said[-1] == "follow"


def test_logs_are_cut_at_the_edges_of_the_faults() -> None:
    port, run = Recorder(), a_run()
    run.status.started = 100.0
    run.status.faults = [FaultStatus(name="f", fault="x", uid="u", started=110, recovered_at=120)]
    watching.collect(run, 130.0, port)
    assert port.window == Window(100.0, 130.0, (110.0, 120.0))


def test_a_write_waits_for_several_seconds_until_the_end() -> None:
    port, run = Recorder(), a_run()
    run.status.targets = [TargetStatus(name="host")]
    assert watching.news(run, port) == {}
    run.status.phase = Phase.VERDICT
    assert [s.at for s in watching.news(run, port)["host"]] == [1.0, 2.0, 3.0]


def test_names_of_targets_are_short_and_of_one_line() -> None:
    assert name_of({}) == "host"
    assert name_of({"process": "a\n b"}) == "process a b"
    assert len(name_of({"cgroup": "x" * 900})) == 120


@pytest.fixture
def logging(tmp_path: Any) -> Iterator[Callable[[], int]]:
    import subprocess
    import sys

    begun: list[Any] = []

    def start() -> int:
        with (tmp_path / "out.log").open("w") as out:
            begun.append(
                subprocess.Popen(
                    [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=out
                )
            )
        return begun[-1].pid

    yield start
    for each in begun:
        each.kill()
        each.wait()
        each.stdin.close()


def test_output_that_goes_to_a_file_is_a_log_of_its_process(
    logging: Callable[[], int], tmp_path: Any
) -> None:
    pid = logging()
    found = {each.source for each in own_logs(f"pid {pid}", {"pid": pid})}
    assert f"file {tmp_path}/out.log" in found
    assert own_logs("gone", {"container": "no such container"}) == []


def test_a_log_of_a_document_names_exactly_one_place() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        LogSpec.model_validate({"name": "l", "file": "/x", "container": "y"})
    with pytest.raises(ValueError, match="exactly one"):
        LogSpec.model_validate({"name": "l"})
