"""Whole experiments on this host: the real injector, keepers, probes, traffic and store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.world import experiment

from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.api.run import Run, Verdict
from faultline.changes.model import State
from faultline.engine.runs import Runs, exit_code
from faultline.injection.injector import Injector

DRIVE = """
import sys
from pathlib import Path
from faultline.engine.runs import Runs
with Runs(Path(sys.argv[1])) as runs:
    runs.driver(sys.argv[2], lambda run, point: print(point.event, flush=True)).drive()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a configuration to spoil, and a store; its keepers are gone afterwards."""
    (tmp_path / "app.conf").write_text("mode = good\n")
    yield tmp_path
    with Injector(tmp_path / "state") as injector:
        injector.recover_all()


def spoiled(folder: Path, duration: str = "2s", **changes: object) -> Experiment:
    """A file is spoiled; a command probe reads it meanwhile."""
    config = folder / "app.conf"
    read = {"type": "command", "command": ["/bin/cat", str(config)], "interval": "200ms"}
    spec: dict[str, object] = {
        "title": "a spoiled configuration",
        "hypothesis": {"text": "it is read as spoiled", "probes": ["spoiled"]},
        "probes": [
            {"name": "spoiled", "mode": "during", "pattern": "mode = wild", **read},
            {"name": "good", "mode": "edge", "pattern": "mode = good", **read},
        ],
        "traffic": [],
        "faults": [
            {
                "name": "spoil",
                "fault": "file.replace",
                "duration": duration,
                "params": {"path": str(config), "find": "good", "replacement": "wild"},
            }
        ],
        "steadyState": ["good"],
        "guards": [],
        "baseline": "500ms",
        "cooldown": "500ms",
    }
    return Experiment(metadata=Metadata(name="spoiled"), spec=experiment(**{**spec, **changes}))


def test_an_experiment_on_a_real_file_holds_with_proof_of_effect_and_recovery(folder: Path) -> None:
    with Runs(folder / "state") as runs:
        run = runs.start(spoiled(folder))
    assert run.status.verdict == Verdict.HELD, run.status.reason
    fault = run.status.faults[0]
    assert (fault.effect, fault.end, fault.residue) == ("effective", "recovered", [])
    assert fault.changes[0].describe
    assert fault.changes[0].state == "undone"
    assert (folder / "app.conf").read_text() == "mode = good\n"
    spoiled_probe = run.status.probes[0]
    assert spoiled_probe.held_ratio == 1.0
    assert any(sample.ok is False and not sample.counted for sample in spoiled_probe.samples)
    assert run.status.environment is not None
    assert run.status.environment.kernel == os.uname().release
    with Injector(folder / "state") as injector:
        assert str(injector.get(fault.uid).end) == "recovered"


def test_a_fault_that_is_not_possible_here_ends_the_run_before_anything_is_touched(
    folder: Path,
) -> None:
    with Runs(folder / "state") as runs:
        (folder / "app.conf").unlink()
        run = runs.start(spoiled(folder, steadyState=[]))
    assert run.status.verdict == Verdict.ERROR
    assert exit_code(run) in (2, 3, 7), run.status.reason
    assert run.status.faults[0].started is None


def _killed_while_the_fault_acts(folder: Path, name: str) -> None:
    """An engine of its own process carries the run out until its fault acts, then it is killed."""
    engine = subprocess.Popen(
        [sys.executable, "-c", DRIVE, str(folder / "state"), name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert engine.stdout is not None
    with engine.stdout as told:
        assert any(line.strip() == "effective" for line in told), "it never took effect"
        engine.send_signal(signal.SIGKILL)
        engine.wait()


def _until_it_has_ended(folder: Path, run: Run) -> None:
    end = time.monotonic() + 60
    with Injector(folder / "state") as injector:
        while injector.get(run.status.faults[0].uid).state is not State.ENDED:
            assert time.monotonic() < end, "its keepers do not end it"
            time.sleep(0.1)
    assert "good" in (folder / "app.conf").read_text()


def _resumed(folder: Path, duration: str, *, still_spoiled: bool) -> Run:
    with Runs(folder / "state") as runs:
        name = runs.create(spoiled(folder, duration)).metadata.name
        _killed_while_the_fault_acts(folder, name)
        if still_spoiled:
            assert "wild" in (folder / "app.conf").read_text()
        else:
            _until_it_has_ended(folder, runs.get(name))
        run = runs.resume()
        assert run.metadata.name == name
    assert (folder / "app.conf").read_text() == "mode = good\n"
    assert run.status.resumed == 1
    fault = run.status.faults[0]
    assert (fault.effect, fault.end, fault.residue) == ("effective", "recovered", [])
    inject = [action for action in run.status.actions if action.kind == "inject"]
    assert len(inject) == 1
    return run


@pytest.mark.slow
def test_a_run_whose_engine_was_killed_goes_on_with_the_fault_that_still_acts(folder: Path) -> None:
    run = _resumed(folder, "12s", still_spoiled=True)
    assert not any("ended already" in point.text for point in run.status.timeline)
    fault = run.status.faults[0]
    assert fault.injected_at
    assert fault.recovery_started
    assert fault.recovery_started - fault.injected_at >= 11


@pytest.mark.slow
def test_a_fault_that_its_keepers_ended_meanwhile_is_noted_when_the_run_goes_on(
    folder: Path,
) -> None:
    run = _resumed(folder, "1s", still_spoiled=False)
    assert any("ended already" in point.text for point in run.status.timeline)
