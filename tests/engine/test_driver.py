"""The driver with real threads, a real store and real time; only the host is a world in memory."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.engine.world import World, experiment

from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.api.run import Phase, Point, Run, Verdict
from faultline.engine.runs import Runs
from faultline.errors import Conflict, InvalidDocument, UnknownName, UsageError
from faultline.kernel import clock

QUICK = {
    "baseline": "300ms",
    "cooldown": "300ms",
    "probes": [
        {"name": "during", "type": "tcp", "host": "h", "port": 1, "mode": "during",
         "interval": "50ms"},
        {"name": "edge", "type": "tcp", "host": "h", "port": 1, "mode": "edge", "interval": "50ms"},
        {"name": "guard", "type": "tcp", "host": "h", "port": 1, "interval": "50ms"},
    ],
    "traffic": [{"type": "http", "name": "load", "url": "http://h/", "rate": 10,
                 "warmup": "100ms"}],
    "faults": [{"name": "one", "fault": "network.delay", "duration": "700ms"}],
}  # fmt: skip


class RealTime(World):
    """The world on the machine's own clock."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.ns = clock.now()


def quick(**changes: object) -> Experiment:
    return Experiment(metadata=Metadata(name="quick"), spec=experiment(**{**QUICK, **changes}))


def runs(folder: Path, world: World) -> Runs:
    return Runs(folder / "state", world.tools, lambda fault, params: [])


def test_a_run_is_carried_out_and_told_as_it_happens(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    def listen(run: Run, point: Point) -> None:
        told.append((point.event, point.node))

    with runs(tmp_path, RealTime()) as mine:
        run = mine.start(quick(), listener=listen)
        assert run.status.verdict == Verdict.HELD, run.status.reason
        assert mine.get(run.metadata.name) == run
        assert [one.metadata.name for one in mine.list()] == [run.metadata.name]
        assert mine.unfinished() == []
    assert told == [(point.event, point.node) for point in run.status.timeline]
    order = [
        event for event, _ in told if event in ("injected", "effective", "recovered", "verdict")
    ]
    assert order == ["injected", "effective", "recovered", "verdict"]
    one = run.status.faults[0]
    assert one.injected_at
    assert one.recovery_started
    assert one.recovery_started - one.injected_at >= 0.69


def test_a_second_engine_is_refused_while_the_first_works(tmp_path: Path) -> None:
    with runs(tmp_path, RealTime()) as mine, runs(tmp_path, RealTime()) as other:
        name = mine.create(quick()).metadata.name
        refused: list[Conflict] = []

        def listen(run: Run, point: Point) -> None:
            if point.event == "injected":
                try:
                    other.resume(name)
                except Conflict as error:
                    refused.append(error)

        mine.driver(name, listen).drive()
        assert len(refused) == 1
        assert str(os.getpid()) in refused[0].message


def test_an_abort_from_another_process_is_seen_within_a_second_or_so(tmp_path: Path) -> None:
    with runs(tmp_path, RealTime()) as mine, runs(tmp_path, RealTime()) as other:
        name = mine.create(quick(faults=[{"name": "one", "fault": "network.delay"}])).metadata.name

        def listen(run: Run, point: Point) -> None:
            if point.event == "effective":
                other.abort(name, "enough of it")

        run = mine.driver(name, listen).drive()
        assert run.status.aborted == "enough of it"
        assert run.status.faults[0].end == "recovered"


def test_ctrl_c_undoes_everything_and_gives_the_signals_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def listen(run: Run, point: Point) -> None:
        if point.event == "effective":
            os.kill(os.getpid(), signal.SIGINT)

    with runs(tmp_path, RealTime()) as mine:
        forever = quick(faults=[{"name": "one", "fault": "network.delay"}])
        run = mine.start(forever, listener=listen)
    assert run.status.aborted == "interrupted by SIGINT"
    assert run.status.faults[0].end == "recovered"
    assert signal.getsignal(signal.SIGINT) is before


def test_an_engine_that_is_killed_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    """A child process begins the run and is killed while the fault acts; we resume it."""
    world = RealTime()
    with runs(tmp_path, world) as mine:
        name = mine.create(quick()).metadata.name
    pid = os.fork()
    if pid == 0:
        try:

            def die(run: Run, point: Point) -> None:
                if point.event == "effective":
                    os.kill(os.getpid(), signal.SIGKILL)

            with runs(tmp_path, world) as child:
                child.driver(name, die).drive()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    with runs(tmp_path, world) as mine:
        unfinished = mine.unfinished()
        assert [run.metadata.name for run in unfinished] == [name]
        assert unfinished[0].status.faults[0].effect == "effective"
        run = mine.resume()
        assert run.status.phase is Phase.ENDED
        assert run.status.resumed == 1
        # This world is in memory, so the fault of the child is one that was never recorded here.
        assert run.status.faults[0].end == "nothing to undo"
        with pytest.raises(UsageError, match="has ended"):
            mine.resume(name)
        with pytest.raises(UnknownName):
            mine.resume()


def test_an_action_that_hangs_holds_up_neither_the_abort_nor_the_undo(tmp_path: Path) -> None:
    world = RealTime()
    tools = world.tools()
    release = threading.Event()
    measure = tools.prober.measure

    def slow(*asked: object) -> object:
        if world.journal:
            release.wait(30)
        return measure(*asked)  # type: ignore[arg-type]

    tools.prober.measure = slow  # type: ignore[method-assign,assignment]
    began = time.monotonic()
    with Runs(tmp_path / "state", lambda: tools, lambda fault, params: []) as mine:
        forever = quick(faults=[{"name": "one", "fault": "network.delay"}], cooldown="0s",
                        timeouts={"recovery": "1s"})  # fmt: skip
        run = mine.start(forever)
    release.set()
    assert run.status.aborted_by == "guard"
    assert run.status.faults[0].end == "recovered"
    assert time.monotonic() - began < 25


def test_an_experiment_that_cannot_be_right_is_refused_before_a_run_is_made(tmp_path: Path) -> None:
    with runs(tmp_path, RealTime()) as mine:
        with pytest.raises(InvalidDocument, match=r"spec\.guards\.0"):
            mine.create(quick(guards=["nobody"]))
        assert mine.list() == []


def test_the_engine_loads_neither_probes_nor_traffic_nor_faults_until_a_run_is_driven() -> None:
    import subprocess

    code = (
        "import sys, faultline.engine.runs; "
        "print([m for m in sys.modules if m.split('.')[:2] in "
        "(['faultline','probes'],['faultline','traffic'],['faultline','faults'])"
        " or m in ('celpy','aiohttp')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert done.stdout.strip() == "[]"
