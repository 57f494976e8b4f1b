"""`faultline runs` and what it removes: runs, records of faults, folders of removed stores."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.stores import histories

from faultline.api.run import Run
from faultline.changes import abandoned
from faultline.changes.journal import Journal
from faultline.changes.model import End, Record, State
from faultline.changes.store import open_store as open_folders
from faultline.cli.main import cli
from faultline.errors import FaultlineError
from faultline.stores.opening import open_store


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with twelve runs that have ended, and one that has not."""
    folder = tmp_path / "state"
    with open_store(state=folder) as store:
        for index in range(12):
            store.create(histories.run(f"run-{index:02}", index))
        store.create(histories.run("going", 1, ended=False))
    return folder


def typed(state: Path, *words: str) -> Result:
    answer = CliRunner().invoke(cli, ["--state", str(state), *words], standalone_mode=False)
    if answer.exception is not None:
        raise answer.exception
    return answer


def names(state: Path) -> set[str]:
    with open_store(state=state) as store:
        return {each.name for each in store.summaries("Run")}


def test_lists_are_filtered_and_paged(state: Path) -> None:
    def listed(*words: str) -> list[str]:
        lines = typed(state, "runs", *words).output.splitlines()[1:]
        return [line.split()[0] for line in lines if not line.startswith("older")]

    assert listed("-l", "3") == ["going", "run-11", "run-10"]
    assert listed("-l", "2", "--after", "run-10") == ["run-09", "run-08"]
    assert listed("--experiment", "experiment-1") == ["going", "run-11", "run-01"]
    assert listed("--label", "team=team-3") == ["run-10", "run-03"]
    assert listed("--verdict", "broke", "--text", "NUMBER 6") == ["run-06"]
    assert listed("--unfinished") == ["going"]
    assert listed("--since", "1h", "-l", "99") == listed("-l", "99")
    assert typed(state, "runs", "--until", "2020-01-01").output == "no runs\n"
    for wrong in (("--label", "x"), ("--since", "soon"), ("--after", "none")):
        with pytest.raises(FaultlineError):
            typed(state, "runs", *wrong)


def test_prune_removes_what_no_rule_keeps_and_the_reports_with_it(state: Path) -> None:
    reports = state / "reports"
    reports.mkdir()
    for name in ("run-00", "run-11"):
        (reports / f"{name}.html").write_text("x")
    before = names(state)
    told = typed(state, "runs", "prune", "--keep", "1", "--dry-run").output
    assert "would be removed: 2 runs" in told
    assert names(state) == before
    told = typed(state, "runs", "prune", "--keep", "1").output
    assert "removed: 2 runs" in told
    assert before - names(state) == {"run-00", "run-01"}
    assert [path.name for path in reports.iterdir()] == ["run-11.html"]
    typed(state, "runs", "prune", "--keep", "0")
    assert names(state) == {"going"}
    with pytest.raises(FaultlineError, match="say what is kept"):
        typed(state, "runs", "prune")


def test_runs_go_to_a_file_and_come_back(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "old.tar.gz"
    before = names(state)
    told = typed(state, "runs", "archive", "run-01", "run-02", "-o", str(file), "--remove").output
    assert told == f"{file}: 2 runs, 2 removed from the store\n"
    assert before - names(state) == {"run-01", "run-02"}
    assert "2 runs added" in typed(state, "runs", "import", str(file)).output
    assert names(state) == before
    everything = tmp_path / "all.tar.gz"
    told = typed(state, "runs", "archive", "--older-than", "1d", "-o", str(everything)).output
    assert told == f"{everything}: 12 runs\n"
    with pytest.raises(FaultlineError, match="no run 'none'"):
        typed(state, "runs", "archive", "none", "-o", str(tmp_path / "x.tar.gz"))


def test_another_store_is_named_on_the_command_line(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with open_store(other) as store:
        store.create(histories.run("elsewhere"))
    told = typed(state, "--store", str(other), "runs").output
    assert "elsewhere" in told
    assert "run-01" not in told
    assert isinstance(open_store(other).get(Run, "elsewhere"), Run)


# ---------------------------------------------------------------------- the journal


def record(uid: str, ended: float | None, end: End | None) -> Record:
    state = State.ENDED if end else State.ACTIVE
    made = Record(uid, "file.add", {}, {}, [], 0, 0, "boot", time.time() - 1000, state)
    made.ended, made.end = ended, end
    return made


def test_prune_forgets_faults_that_ended_long_ago_and_leave_nothing(state: Path) -> None:
    folders = open_folders(state)
    old = time.time() - 100 * 86400
    with Journal(folders) as journal:
        journal.add(record("old", old, End.RECOVERED))
        journal.add(record("new", time.time(), End.RECOVERED))
        journal.add(record("person", old, End.PERSON))
        journal.add(record("active", None, None))
    for uid in ("old", "new"):
        folders.lock(uid).touch()
    assert "1 faults" in typed(state, "runs", "prune", "--older-than", "30d", "--dry-run").output
    typed(state, "runs", "prune", "--older-than", "30d")
    with Journal(folders) as journal:
        assert {each.uid for each in journal.list()} == {"new", "person", "active"}
    assert not folders.lock("old").exists()
    assert folders.lock("new").exists()


# ---------------------------------------------------------------------- folders that are left


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The run folder of a store that was removed, and its state folder; left long ago."""
    folders = open_folders(tmp_path / "gone")
    folders.lock("some-uid").touch()
    for path in [folders.run, *folders.run.rglob("*")]:
        os.utime(path, (1, 1))
    (folders.state / "journal.db").unlink(missing_ok=True)
    folders.state.rmdir()
    return folders.run, folders.state


def reason(state: Path, folder: Path, *marked: str) -> str:
    found = abandoned.look(open_folders(state), lambda: set(marked))
    (one,) = [each for each in found if each.folder == folder]
    if one.why:
        assert not abandoned.remove(one)
        assert folder.exists()
    return one.why


def test_a_folder_goes_when_nothing_of_its_store_is_there(
    state: Path, gone: tuple[Path, Path]
) -> None:
    folder, _ = gone
    assert reason(state, folder) == ""
    found = abandoned.look(open_folders(state), set)
    (one,) = [each for each in found if each.folder == folder]
    assert abandoned.remove(one)
    assert not folder.exists()
    assert open_folders(state).run.exists()


def test_a_folder_stays_whose_store_or_whose_traces_are_there(
    state: Path, gone: tuple[Path, Path]
) -> None:
    folder, its = gone
    its.mkdir()
    assert "store exists" in reason(state, folder)
    its.rmdir()
    assert "carries the mark of some-uid" in reason(state, folder, "some-uid")
    marks = folder / "marks"
    marks.mkdir()
    (marks / "note.json").touch()
    assert "notes about changes" in reason(state, folder)
    (marks / "note.json").unlink()
    assert "a moment ago" in reason(state, folder)
    marks.rmdir()
    os.utime(folder, (1, 1))
    lock = folder / "keeper.a.lock"
    with lock.open("w") as held:
        os.utime(lock, (1, 1))
        os.utime(folder, (1, 1))
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "holds a lock" in reason(state, folder)
    code = "import sys; sys.stdin.read()"
    words = [sys.executable, "-c", code, f"{its}/code/x"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        assert f"process {process.pid}" in reason(state, folder)
        assert process.stdin
        process.stdin.close()
    (folder / "whose").write_text("/another/store")
    assert "not the folder" in reason(state, folder)
    (folder / "whose").unlink()
    assert "does not say" in reason(state, folder)


def test_prune_never_touches_the_folder_of_a_store_that_exists(state: Path, tmp_path: Path) -> None:
    other = open_folders(tmp_path / "other")
    for path in [other.run, *other.run.rglob("*")]:
        os.utime(path, (1, 1))
    typed(state, "runs", "prune", "--keep", "99")
    assert other.run.exists()
    assert (other.run / "whose").read_text() == str(other.state)
