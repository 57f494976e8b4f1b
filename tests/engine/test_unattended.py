"""The unattended engine: runs of schedules and of people, killed and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_driver import QUICK, RealTime
from tests.engine.world import experiment

from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.api.run import Phase, Run
from faultline.engine import unattended
from faultline.engine.runs import Runs
from faultline.engine.unattended import Manager
from faultline.errors import Conflict


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "GRACE", 0.0)
    monkeypatch.setattr(unattended, "LOOK", 0.05)
    monkeypatch.setattr(unattended, "AGAIN", 0.2)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Runs]:
    def open_runs() -> Runs:
        return Runs(tmp_path, lambda: RealTime().tools(), lambda *_: [])

    return open_runs


def made(name: str, **changes: Any) -> Experiment:
    spec = experiment(**{**QUICK, **changes})
    return Experiment(metadata=Metadata(name=name), spec=spec)


@pytest.fixture
def at_work(opened: Callable[[], Runs], quick: None) -> Iterator[Manager]:
    engine = Manager(opened)
    thread = threading.Thread(target=engine.keep, daemon=True)
    thread.start()
    yield engine
    engine.stop()
    thread.join(10)
    until(lambda: not engine.running())


def until(true: Callable[[], object], patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def test_runs_that_nobody_carries_out_are_carried_out(
    opened: Callable[[], Runs], at_work: Manager
) -> None:
    with opened() as kept:
        names = [kept.create(made(f"e{n}")).metadata.name for n in range(3)]
        until(lambda: all(kept.get(name).status.phase is Phase.ENDED for name in names))
        assert {str(kept.get(name).status.verdict) for name in names} == {"held"}


def test_what_somebody_else_carries_out_is_left_to_him(
    opened: Callable[[], Runs], at_work: Manager
) -> None:
    with opened() as kept:
        run = kept.create(made("mine", baseline="1s"))
        done = kept.driver(run.metadata.name)
        try:
            ended = done.drive()
        except Conflict:  # the engine was first: then it is its
            until(lambda: kept.get(run.metadata.name).status.phase is Phase.ENDED)
            ended = kept.get(run.metadata.name)
        assert str(ended.status.verdict) == "held"
        begun = [p for p in ended.status.timeline if p.event == "started"]
        assert len(begun) == 1


def test_a_child_is_left_to_its_parent(opened: Callable[[], Runs], quick: None) -> None:
    engine = Manager(opened)
    with opened() as kept:
        parent = kept.create(made("parent"))
        labels = {"parent": parent.metadata.name, "experiment": "c"}
        kept.adopt(Run(metadata=Metadata(name="c", labels=labels), spec=parent.spec))
        names = {each.name for each in kept.summaries()}
        child = next(each for each in kept.summaries() if each.name == "c")
        assert not engine._may(child, names)
        assert engine._may(child, {"c"})


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.engine.test_driver import RealTime
from faultline.engine import unattended
from faultline.engine.runs import Runs
unattended.GRACE, unattended.LOOK = 0.0, 0.05
tools = lambda: RealTime().tools()
engine = unattended.Manager(lambda: Runs(Path(sys.argv[1]), tools, lambda *_: []))
print("ready", flush=True)
engine.keep()
"""


def test_killed_at_any_time_no_run_is_lost_and_none_is_made_twice(
    tmp_path: Path, opened: Callable[[], Runs]
) -> None:
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", PROGRAM, str(tmp_path), str(root)]
    with opened() as kept:
        names = [kept.create(made(f"e{n}", baseline="500ms")).metadata.name for n in range(3)]
        for _ in range(4):
            with subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ}) as engine:
                try:
                    assert engine.stdout is not None
                    assert engine.stdout.readline() == b"ready\n"
                    time.sleep(random.uniform(0.2, 0.9))
                finally:
                    engine.send_signal(signal.SIGKILL)
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ}) as engine:
            try:
                until(lambda: all(kept.get(name).status.phase is Phase.ENDED for name in names))
            finally:
                engine.terminate()
        assert len(kept.summaries()) == 3
        for name in names:
            started = [p for p in kept.get(name).status.timeline if p.event == "started"]
            assert len(started) == 1
