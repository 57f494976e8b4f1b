"""`faultline schedule` with a real store, and runs of a real fault. The commands are called within
this process, since each start of one costs a second; errors as a process has them are tried once.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.cli.command import Cli

from faultline.api.run import Phase, Run, Verdict
from faultline.api.schedule import Schedule
from faultline.changes import keepers
from faultline.changes.store import open_store
from faultline.cli.main import cli
from faultline.engine import scheduling, wiring
from faultline.engine.runs import Runs
from faultline.engine.schedules import Schedules
from faultline.errors import Bug, Conflict, Halted, InvalidDocument, Refused, UnknownName
from faultline.stores import opening

EXPERIMENT = """
apiVersion: faultline.dev/v1alpha1
kind: Experiment
metadata: {name: file-there}
spec:
  title: a file appears
  parameters:
    where: {type: string}
  hypothesis: {text: it goes on, probes: [up]}
  probes:
    - {name: up, type: command, command: [/bin/true], interval: 200ms}
  baseline: 100ms
  cooldown: 100ms
  faults:
    - {name: one, fault: file.add, duration: 300ms, params: {path: "${where}"}}
"""
SCHEDULE = """
apiVersion: faultline.dev/v1alpha1
kind: Calendar
metadata: {name: freeze}
spec:
  freeze:
    - {from: 2026-12-20, to: 2027-01-03, why: end of the year}
---
apiVersion: faultline.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec:
  experiment: ./experiment.yaml
  parameters: {where: WHERE}
  when: {cron: 30 2 * * MON-FRI}
  timeZone: Europe/Berlin
  calendars: [freeze]
"""


class Commands:
    """The command line within this process."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(self, *words: object) -> Any:
        """What a command prints as JSON; raises what it would complain of."""
        return json.loads(self.ok(*words, "--format", "json"))

    def ok(self, *words: object) -> str:
        given = ["--state", str(self.state), *map(str, words)]
        done = CliRunner().invoke(cli, given, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return done.output


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Commands]:
    yield Commands(tmp_path / "state")
    if (tmp_path / "state" / "journal.db").exists():
        keepers.retire(open_store(tmp_path / "state"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    made = tmp_path / "schedule.yaml"
    made.write_text(SCHEDULE.replace("WHERE", str(tmp_path / "made")))
    return made


def test_experiments_are_added_listed_shown_and_removed(
    typed: Commands, file: Path, tmp_path: Path
) -> None:
    assert "no experiments" in typed.ok("experiments")
    alone = tmp_path / "experiment.yaml"
    alone.write_text(EXPERIMENT.replace("{type: string}", "{type: string, default: /tmp/x}"))
    assert typed.ok("experiments", "add", alone) == "file-there created\n"
    assert typed.ok("experiments", "add", alone) == "file-there unchanged\n"
    with pytest.raises(InvalidDocument, match="holds a Calendar"):
        typed.ok("experiments", "add", file)
    (listed,) = typed("experiments")
    assert (listed["name"], listed["faults"], listed["parameters"]) == (
        "file-there", ["file.add"], ["where"],
    )  # fmt: skip
    assert (listed["runs"], listed["last"], listed["schedules"]) == (0, None, [])
    shown = yaml.safe_load(typed.ok("experiments", "show", "file-there"))
    assert shown["spec"]["faults"][0]["params"] == {"path": "${where}"}
    made = typed("run", "file-there", "--set", f"where={tmp_path / 'made'}", "--no-report")
    (listed,) = typed("experiments")
    assert (listed["runs"], listed["last"]["name"]) == (1, made["metadata"]["name"])
    assert "file-there" in typed.ok("experiments")
    by_name = file.read_text().replace("./experiment.yaml", "file-there")
    file.write_text(by_name)
    typed.ok("schedule", "apply", file)
    with pytest.raises(Refused, match="is run by nightly"):
        typed.ok("experiments", "remove", "file-there")
    typed.ok("schedule", "delete", "nightly")
    assert typed.ok("experiments", "remove", "file-there") == "file-there removed\n"
    with pytest.raises(UnknownName):
        typed.ok("experiments", "show", "file-there")


def test_a_schedule_is_put_into_the_store_shown_changed_and_removed(
    typed: Commands, file: Path
) -> None:
    told = typed.ok("schedule", "apply", file)
    assert "Calendar freeze created\nSchedule nightly created\n" in told
    assert told.count("T02:30:00+0") == 3
    assert "Schedule nightly unchanged" in typed.ok("schedule", "apply", file)
    file.write_text(file.read_text().replace("30 2 *", "45 3 *"))
    assert "Schedule nightly changed" in typed.ok("schedule", "apply", file)
    assert "45 3 * * MON-FRI" in typed.ok("schedule", "list")
    (listed,) = typed("schedule", "list")
    assert listed["spec"]["experiment"]["name"] == "file-there"
    assert typed.ok("schedule", "pause", "nightly") == "nightly paused\n"
    assert "faultline schedule resume nightly" in typed.ok("schedule", "show", "nightly")
    assert typed.ok("schedule", "resume", "nightly") == "nightly resumed\n"
    shown = typed("schedule", "show", "nightly")
    assert shown["spec"]["paused"] is False
    assert typed.ok("schedule", "delete", "nightly") == "nightly deleted\n"
    assert typed.ok("schedule", "list") == "no schedules\n"
    with pytest.raises(UnknownName, match="there is no Schedule 'nightly'"):
        typed.ok("schedule", "show", "nightly")


def test_the_next_runs_of_a_schedule_or_of_a_file(typed: Commands, file: Path) -> None:
    typed.ok("schedule", "apply", file)
    start = ("-n", "3", "--from", "2026-12-17T12:00")
    text = typed.ok("schedule", "next", "nightly", *start)
    assert text.splitlines()[0].startswith("  Fri 2026-12-18T02:30:00+01:00  ")
    assert text.splitlines()[1] == (
        "  left out  2026-12-21T02:30:00+01:00 to 2027-01-01T02:30:00+01:00, 10 times: "
        "freeze: end of the year"
    )
    assert text.splitlines()[2].startswith("  Mon 2027-01-04T02:30:00+01:00  ")
    of_file = typed("schedule", "next", file, *start)
    assert len(of_file) == 13
    assert of_file[0] == {
        "occurrence": "2026-12-18T02:30:00+01:00", "at": "2026-12-18T02:30:00+01:00",
        "skipped": "", "moved": "",
    }  # fmt: skip
    assert typed("schedule", "next", "nightly", *start) == of_file


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("30 2 *", "30 25 *", "spec.when.cron"),
        ("Europe/Berlin", "Europe/Bonn", "spec.timeZone"),
        ("[freeze]", "[nobody]", "spec.calendars.0"),
        ("./experiment.yaml", "./nobody.yaml", "spec.experiment"),
        ("./experiment.yaml", "nobody", "spec.experiment"),
        ("{where:", "{were:", "spec.experiment"),
        ("kind: Schedule", "kind: Fault", "holds a Fault"),
    ],
)
def test_bad_input_ends_with_2_and_names_the_field(
    typed: Commands, file: Path, old: str, new: str, named: str
) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InvalidDocument, match=re.escape(named)) as raised:
        typed.ok("schedule", "apply", file)
    assert raised.value.exit_code == 2
    assert typed("schedule", "list") == []


def test_a_field_of_the_experiment_is_named_too(typed: Commands, file: Path) -> None:
    inner = file.with_name("experiment.yaml")
    inner.write_text(inner.read_text().replace("params: {path", "params: {pathh"))
    answer = Cli(typed.state, -1)("schedule", "apply", file, "--format", "json")
    assert answer.code == 2
    assert "spec.faults.0.params.path: required" in answer.error["message"]


def test_triggered_it_runs_here_and_is_refused_in_a_freeze_beside_another_and_while_halted(
    typed: Commands, file: Path, tmp_path: Path
) -> None:
    typed.ok("schedule", "apply", file)
    run = typed("schedule", "trigger", "nightly", "--here")
    assert run["status"]["verdict"] == "held"
    assert run["metadata"]["labels"]["schedule"] == "nightly"
    assert not (tmp_path / "made").exists()
    waiting = typed("schedule", "trigger", "nightly")
    with pytest.raises(Conflict, match=waiting["metadata"]["name"]):
        typed.ok("schedule", "trigger", "nightly")
    typed.ok("schedule", "trigger", "nightly", "--anyway")
    today = datetime.now(UTC).date().isoformat()
    text = file.read_text().replace("2027-01-03", "2099-01-01").replace("2026-12-20", today)
    file.write_text(text)
    typed.ok("schedule", "apply", file)
    with pytest.raises(Refused, match="freeze: end of the year"):
        typed.ok("schedule", "trigger", "nightly")
    typed.ok("halt", "an incident")
    with pytest.raises(Halted, match="an incident"):
        typed.ok("schedule", "trigger", "nightly", "--anyway")
    assert "goes on; end it" in typed.ok("schedule", "delete", "nightly")


def test_two_engines_on_one_store_make_each_run_once_and_carry_it_out(
    typed: Commands, file: Path, tmp_path: Path
) -> None:
    """Real time, a real store, two engines at once; the runs are of real faults."""
    data = list(yaml.safe_load_all(file.read_text()))[1]
    data["spec"]["when"] = {"every": "1s"}
    data["spec"].pop("calendars")
    data["spec"]["concurrency"] = "allow"
    data["spec"]["history"] = {"succeeded": 100, "failed": 100}
    file.write_text(yaml.safe_dump(data))
    typed.ok("schedule", "apply", file)
    stop = threading.Event()

    def engine() -> None:
        store = opening.open_store(None, typed.state)
        schedules = Schedules(store, wiring.check_fault)
        while not stop.is_set():
            schedules.step(time.time())
            stop.wait(0.05)
        store.close()

    engines = [threading.Thread(target=engine) for _ in range(2)]
    for each in engines:
        each.start()
    with Runs(typed.state) as kept:
        until = time.monotonic() + 60
        while len(kept.list()) < 3 and time.monotonic() < until:
            time.sleep(0.1)
        stop.set()
        for each in engines:
            each.join()
        runs = kept.list()
        found = kept.store.get(Schedule, "nightly")
        occurrences = [run.metadata.labels["occurrence"] for run in runs]
        assert len(set(occurrences)) == len(runs) >= 3
        assert found.status.started + len(found.status.creating) == len(runs)
        done = kept.driver(runs[-1].metadata.name).drive()
        assert done.status.verdict is Verdict.HELD
        Schedules(kept.store).step(time.time(), halted="the test is over")
        assert kept.store.get(Schedule, "nightly").status.history[-1].outcome == "held"
        for run in kept.list():
            assert isinstance(run, Run)
            assert run.status.phase in (Phase.PENDING, Phase.ENDED)


def test_a_file_of_schedules_is_validated_without_a_store(typed: Commands, file: Path) -> None:
    assert typed("validate", file) == {str(file): []}
    inner = file.with_name("experiment.yaml")
    inner.write_text(inner.read_text().replace("params: {path", "params: {pathh"))
    (paths,) = typed("validate", file).values()
    assert [each["path"] for each in paths] == [
        "spec.experiment.spec.faults.0.params.path",
        "spec.experiment.spec.faults.0.params.pathh",
    ]
    file.write_text(file.read_text().replace("30 2 *", "30 25 *"))
    (paths,) = typed("validate", file).values()
    assert [each["path"] for each in paths] == ["spec.when.cron"]


def test_a_schedule_that_cannot_be_kept_does_not_stop_the_others(
    typed: Commands, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    typed.ok("schedule", "apply", file)
    file.write_text(file.read_text().replace("name: nightly", "name: other"))
    typed.ok("schedule", "apply", file)
    decide = scheduling.reconcile

    def broken(schedule: Schedule, *rest: Any) -> Any:
        if schedule.metadata.name == "nightly":
            raise Bug("it does not add up")
        return decide(schedule, *rest)

    monkeypatch.setattr(scheduling, "reconcile", broken)
    with opening.open_store(None, typed.state) as store:
        Schedules(store).step(time.time())
        assert store.get(Schedule, "other").status.text.startswith("next: ")
        assert store.get(Schedule, "nightly").status.text == ""
    assert "schedule nightly: it does not add up" in caplog.text
