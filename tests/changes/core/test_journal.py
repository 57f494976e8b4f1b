"""The journal is written before anything is done, by many at once, and on a full disk."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifeground import record, until

from faultline.changes.journal import GROWN, Journal
from faultline.changes.model import SCHEMA, Change, End, Outcome, Record, State, Step, Undone
from faultline.changes.store import Store, open_store
from faultline.errors import Conflict, InvalidDocument, JournalFailed, NotRecorded, UnknownName


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "state")


@pytest.fixture
def journal(store: Store) -> Iterator[Journal]:
    with Journal(store) as opened:
        yield opened


def test_a_record_is_read_back_as_it_was_written(journal: Journal) -> None:
    step = Step(
        Change("worker", {"module": "burn"}), prior={"a": 1}, made={"b": [2]},
        outcome=Outcome(Undone.FAILED, "no", (("kill", "-9", "1"),)), number=3,
    )  # fmt: skip
    written = record("u1", step)
    journal.add(written)
    assert journal.get("u1") == written


def test_a_uid_and_a_claim_are_given_once_and_the_holder_is_named(journal: Journal) -> None:
    journal.add(record("u1"), ["the file /x"])
    with pytest.raises(Conflict, match="u1") as taken:
        journal.add(record("u1"))
    assert taken.value.holder == "u1"
    with pytest.raises(Conflict, match="the file /x is held by fault u1") as held:
        journal.add(record("u2"), ["something else", "the file /x"])
    assert held.value.holder == "u1"
    with pytest.raises(UnknownName):
        journal.get("u2")
    journal.add(record("u3"), ["something else"])  # the refused one has left no claim behind
    journal.end("u1", End.RECOVERED)
    journal.add(record("u4"), ["the file /x"])


def test_what_could_not_be_undone_keeps_its_claim_until_it_is(journal: Journal) -> None:
    journal.add(record("u1"), ["x"])
    failed = journal.get("u1")
    failed.steps[0].outcome = Outcome(Undone.FAILED, "busy")
    journal.end("u1", End.PERSON, failed)
    with pytest.raises(Conflict):
        journal.add(record("u2"), ["x"])
    failed.steps[0].outcome = Outcome(Undone.UNDONE)
    journal.end("u1", End.RECOVERED, failed)
    journal.add(record("u2"), ["x"])


def test_a_state_never_moves_backwards_and_a_good_end_is_final(journal: Journal) -> None:
    journal.add(record("u1"))
    journal.change("u1", lambda kept: setattr(kept, "state", State.UNDOING))
    journal.change("u1", lambda kept: setattr(kept, "state", State.ACTIVE))
    assert journal.get("u1").state is State.UNDOING
    journal.end("u1", End.PERSON)
    assert journal.end("u1", End.RECOVERED).end is End.RECOVERED
    assert journal.end("u1", End.PERSON).end is End.RECOVERED
    journal.change("u1", lambda kept: setattr(kept, "state", State.APPLYING))
    assert journal.get("u1").state is State.ENDED


def test_records_are_found_by_state_and_fault_newest_first(journal: Journal) -> None:
    for number in range(3):
        made = record(f"u{number}")
        made.created = float(number)
        journal.add(made)
    journal.end("u1", End.RECOVERED)
    assert [each.uid for each in journal.list()] == ["u2", "u1", "u0"]
    assert [each.uid for each in journal.list(limit=1)] == ["u2"]
    assert [each.uid for each in journal.list(state="ended")] == ["u1"]
    assert journal.list(fault="cpu.burn") == []
    assert [each.uid for each in journal.open_records()] == ["u0", "u2"]
    assert journal.any_open()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lifeground import record
from faultline.changes.journal import Journal
from faultline.changes.model import End, State
from faultline.changes.store import open_store
sys.stdin.readline()
with Journal(open_store(Path(sys.argv[2]))) as journal:
    for number in range(10):
        uid = f"w{sys.argv[3]}-{number}"
        journal.add(record(uid), [uid])
        journal.change(uid, lambda kept: setattr(kept, "state", State.ACTIVE))
        journal.end(uid, End.RECOVERED)
"""


def test_many_processes_open_a_new_journal_and_write_at_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parents[2] / "src")}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, here, state, str(number)],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )
        for number in range(6)
    ]  # fmt: skip
    said = [each.communicate(b"go\n", timeout=60)[1].decode() for each in writers]
    assert [each.returncode for each in writers] == [0] * 6, said
    with Journal(open_store(state)) as journal:
        assert len(journal.list(state="ended")) == 60


def test_a_newer_record_or_journal_is_refused(journal: Journal, store: Store) -> None:
    newer = {**record("u1").to_json(), "schema": SCHEMA + 1}
    with pytest.raises(InvalidDocument, match=f"has schema {SCHEMA + 1}"):
        Record.from_json(newer)
    journal._db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    with pytest.raises(InvalidDocument, match="newer"):
        Journal(store)


def test_what_is_no_journal_is_an_error_that_names_the_way_out(store: Store) -> None:
    store.journal.write_text("not a database" * 1000)
    store.journal.chmod(0o600)
    with pytest.raises(JournalFailed, match="recover --scan"):
        Journal(store)


def test_a_failed_write_is_an_error_and_leaves_the_journal_usable(journal: Journal) -> None:
    journal.add(record("u1"))
    journal._db.execute("PRAGMA query_only=ON")
    with pytest.raises(NotRecorded):
        journal.add(record("u2"))
    with pytest.raises(JournalFailed):
        journal.end("u1", End.RECOVERED)
    journal._db.execute("PRAGMA query_only=OFF")
    assert journal.end("u1", End.RECOVERED).state is State.ENDED


# ------------------------------------------------------------------------------ on a full disk


def _fill(folder: Path) -> None:
    """Write until not one byte fits any more, with the reserve of root."""
    fd = os.open(folder / "ballast", os.O_CREAT | os.O_WRONLY)
    try:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(fd, bytes(size))
            except OSError:
                continue
        os.fsync(fd)
    except OSError:
        pass  # that there is no room for it is what was wanted
    finally:
        os.close(fd)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 32 MiB of our own."""
    image, point = tmp_path / "image", tmp_path / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    point.chmod(0o700)
    yield point
    assert until(lambda: subprocess.run(["umount", point], check=False).returncode == 0)


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_the_journal_is_written_on_a_disk_without_one_free_byte(small_disk: Path) -> None:
    store = open_store(small_disk / "state")
    with Journal(store) as journal:
        journal.grow()
        assert store.journal.stat().st_size >= GROWN
        _fill(small_disk)
        with pytest.raises(OSError, match="No space"):
            (small_disk / "more").write_bytes(bytes(4096))
        for number in range(50):
            uid = f"u{number}"
            journal.add(record(uid), [uid])
            journal.change(uid, lambda kept: setattr(kept, "state", State.ACTIVE))
            journal.end(uid, End.RECOVERED)
        assert len(journal.list(state="ended")) == 50


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_a_journal_whose_writers_were_killed_opens_on_a_full_disk(small_disk: Path) -> None:
    store = open_store(small_disk / "state")
    pid = os.fork()
    if pid == 0:
        journal = Journal(store)
        journal.grow()
        journal.add(record("u1"))
        _fill(small_disk)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with Journal(store) as journal:
        assert journal.get("u1").state is State.PREPARED
        assert journal.end("u1", End.RECOVERED).state is State.ENDED


def test_the_file_is_an_ordinary_database(journal: Journal, store: Store) -> None:
    journal.add(record("u1"))
    database = sqlite3.connect(store.journal)
    row: tuple[Any, ...] = database.execute("SELECT uid, data FROM records").fetchone()
    database.close()
    assert row[0] == "u1"
    assert json.loads(row[1])["state"] == "prepared"


def test_only_what_no_undo_relies_on_does_not_wait_for_the_disk(journal: Journal) -> None:
    """The record and its end wait for the disk (synchronous=FULL is 2), notes in between do not."""
    seen: list[int] = []

    def look(_record: Record) -> None:
        seen.append(journal._db.execute("PRAGMA synchronous").fetchone()[0])

    journal.add(record("u1"))
    journal.change("u1", look, durable=False)
    journal.change("u1", look)
    assert seen == [1, 2]


def test_many_may_make_the_same_journal_at_once(tmp_path: Path) -> None:
    for turn in range(40):
        store = open_store(tmp_path / f"state{turn}")
        begun, begin = os.pipe()
        children = [_opener(store, begun, begin) for _ in range(6)]
        os.close(begun)
        os.close(begin)  # now
        assert {os.waitpid(child, 0)[1] for child in children} == {0}


def _opener(store: Store, begun: int, begin: int) -> int:
    """A process that opens the journal when the pipe ends, and exits with 0 if it could."""
    child = os.fork()
    if child == 0:
        try:
            os.close(begin)
            os.read(begun, 1)
            Journal(store).close()
            os._exit(0)
        finally:
            os._exit(1)
    return child
