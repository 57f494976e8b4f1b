"""A halt stops what is under way, measured from the command on, and lets nothing new begin."""

from __future__ import annotations

import json
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Cli
from tests.engine.world import World, experiment

from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.api.run import Phase, Point, Run, Verdict
from faultline.changes import halt, keepers
from faultline.changes.model import End, Record
from faultline.changes.store import open_store
from faultline.engine.runs import Runs, exit_code
from faultline.errors import ApplyFailed, Halted
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.recovery import Recovery
from faultline.kernel import clock
from faultline.units import Duration

TEN_MINUTES = Duration.parse("10m")
SOON = 1.5
"""Seconds within which a run has seen a halt: the driver looks once a second."""


class RealTime(World):
    """The world in memory on the machine's own clock."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.ns = clock.now()


def forever(**changes: Any) -> Experiment:
    """It would go on for ten minutes."""
    spec = experiment(
        baseline="200ms", cooldown="200ms", traffic=[],
        faults=[{"name": "one", "fault": "network.delay"}], **changes,
    )  # fmt: skip
    return Experiment(metadata=Metadata(name="forever"), spec=spec)


def runs(folder: Path, world: World) -> Runs:
    return Runs(folder / "state", world.tools, lambda fault, params: [])


def test_a_run_sees_a_halt_within_a_second_and_undoes_everything(tmp_path: Path) -> None:
    world = RealTime()
    halted = 0.0

    def listen(run: Run, point: Point) -> None:
        nonlocal halted
        if point.event == "effective":
            halted = time.monotonic()
            halt.at_once(open_store(tmp_path / "state"), "enough", by="alice")

    with runs(tmp_path, world) as mine:
        run = mine.start(forever(), listener=listen)
        took = time.monotonic() - halted
    assert run.status.aborted_by == "halt"
    assert "enough (alice" in run.status.aborted
    assert run.status.faults[0].end == "recovered"
    assert run.status.verdict is Verdict.NOT_MEASURED
    assert exit_code(run) == Halted.exit_code
    assert world.active() == []
    assert took < SOON + 1


def test_while_halted_no_run_begins_and_one_that_waits_injects_nothing(tmp_path: Path) -> None:
    world = RealTime()
    with runs(tmp_path, world) as mine:
        waiting = mine.create(forever())
        halt.for_good(open_store(tmp_path / "state"), "a freeze")
        with pytest.raises(Halted, match="a freeze"):
            mine.create(forever())
        run = mine.driver(waiting.metadata.name).drive()
        assert run.status.phase is Phase.ENDED
        assert run.status.aborted_by == "halt"
        assert not world.applied
        assert len(mine.list()) == 1


# --------------------------------------------------------------------------- with real faults


def document(folder: Path, *paths: Path) -> Path:
    """An experiment that adds these files for ten minutes."""
    spec = {
        "title": "files",
        "hypothesis": {"text": "it goes on", "probes": ["up"]},
        "probes": [
            {"name": "up", "type": "command", "command": ["/bin/true"], "interval": "500ms"}
        ],
        "baseline": "100ms",
        "cooldown": "100ms",
        "faults": [
            {"name": f"n{number}", "fault": "file.add", "params": {"path": str(path)}}
            for number, path in enumerate(paths)
        ],
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({
        "apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment",
        "metadata": {"name": "files"}, "spec": spec}))  # fmt: skip
    return file


def until(true: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.needs_netns
@pytest.mark.slow
def test_a_halt_undoes_the_faults_of_runs_and_of_people_at_once(cli: Cli, tmp_path: Path) -> None:
    made = [tmp_path / f"made{number}" for number in range(8)]
    running = cli.start("run", document(tmp_path, *made[:2]), "--format", "json", "--no-report")
    try:
        until(made[1].exists)
        with cli.inside(), Injector(cli.state) as injector:
            lossy = Order(
                "network.loss", {"percent": "100%", "interface": "lo"}, TEN_MINUTES, "lossy"
            )
            injector.inject(lossy)
            for path in made[2:]:
                injector.inject(Order("file.add", {"path": str(path)}, TEN_MINUTES))
        assert all(path.exists() for path in made)
        halted = cli("halt", "--reason", "incident 42", "--format", "json")
        assert halted.code == 0, halted
        assert not any(path.exists() for path in made)
        with cli.inside(), socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
        told = halted.json()
        assert len(told["faults"]) == 9
        assert {each["end"] for each in told["faults"]} == {"recovered"}
        assert all(each["residue"] == [] for each in told["faults"])
        assert told["halts"][0]["why"] == "incident 42"
        assert [each["stopped"] for each in told["runs"]] == [True]
        assert told["undoneAfter"] <= told["stoppedAfter"]
        out, _ = running.communicate(timeout=30)
        run = json.loads(out)
        assert run["status"]["abortedBy"] == "halt"
        assert running.returncode == Halted.exit_code
    finally:
        running.kill()

    for words in (
        ["run", document(tmp_path, made[0])],
        ["inject", "file", "add", "--path", made[0]],
    ):
        refused = cli(*words)
        assert refused.code == 3
        assert "incident 42 (" in refused.err
        assert "lift it: faultline halt --lift" in refused.err
    assert cli("halt", "--status").code == 3
    assert "halted: incident 42" in cli.ok("query")
    assert cli.ok("halt", "--lift") == "lifted\n"
    assert cli.ok("halt", "--status") == "not halted\n"
    assert not any(path.exists() for path in made)


def test_a_fault_that_cannot_be_undone_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [tmp_path / f"made{number}" for number in range(3)]
    state = tmp_path / "state"
    recover = Recovery.recover

    def stubborn(self: Recovery, uid: str) -> Record:
        if uid == "n1":
            raise ApplyFailed("it does not want to")
        return recover(self, uid)

    with Injector(state) as injector:
        for number, path in enumerate(made):
            order = Order("file.add", {"path": str(path)}, TEN_MINUTES, f"n{number}")
            injector.inject(order)
        with monkeypatch.context() as patch:
            patch.setattr(Recovery, "recover", stubborn)
            ends = {each.uid: each.end for each in injector.halt("x")}
        assert ends == {"n0": End.RECOVERED, "n1": End.PERSON, "n2": End.RECOVERED}
        assert [path.exists() for path in made] == [False, True, False]
        injector.recover_all()
    keepers.retire(open_store(state))


@pytest.mark.parametrize(
    "words", [["--lift", "--status"], ["why", "--lift"], ["a", "--reason", "b"]]
)
def test_a_halt_says_one_thing(typed: Cli, words: list[str]) -> None:
    assert typed("halt", *words).code == 2
    assert typed.ok("halt", "--status") == "not halted\n"
