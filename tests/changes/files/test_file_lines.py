"""Exactly our lines are taken out again, wherever they stand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.file_lines import FileLines
from faultline.changes.model import Presence, Undone
from faultline.workers import line_book
from faultline.workers.line_book import Book
from faultline.workers.line_ledger import Ledger

BEFORE = b"one\ntwo\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes(BEFORE)
    os.utime(path, ns=(1_600_000_000_000000001, 1_500_000_000_000000002))
    return path


def lines(path: Path, keep: str = "held") -> dict[str, Any]:
    return {"path": str(path), "count": 100, "interval": 10**6, "keep": keep}


class Writer:
    """Does what the worker does, one line at a time."""

    def __init__(self, path: Path) -> None:
        self.book = os.open(path.parent / ".faultline-u1-0.lines", os.O_RDWR)
        self.target = os.open(path, os.O_RDWR | os.O_APPEND)
        ledger = Ledger.open(self.book)
        assert ledger
        self.ledger, self.n = ledger, 0

    def line(self, text: bytes) -> None:
        self.ledger.append(self.n, self.target, text)
        self.n += 1

    def close(self) -> None:
        os.close(self.book)
        os.close(self.target)


def add(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_lines_at_the_end_go_and_the_times_come_back(file, case, ours):
    before = file.stat()
    one = case(FileLines(), lines(file))
    one.apply()
    writer = Writer(file)
    for n in range(5):
        writer.line(b"ours %d\n" % n)
    writer.close()
    assert file.read_bytes().count(b"ours") == 5
    assert one.presence() is Presence.OURS
    assert one.undo().end is Undone.UNDONE
    after = file.stat()
    assert file.read_bytes() == BEFORE
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert ours(file.parent) == []
    assert one.undo().end is Undone.ABSENT


def interleaved(file: Path, one: Any) -> None:
    one.apply()
    writer = Writer(file)
    for n in range(5):
        writer.line(b"the same text\n")
        add(file, b"theirs %d\n" % n)
        writer.line(b"ours %d\n" % n)
    writer.close()
    add(file, b"the same text\n")


WANTED = BEFORE + b"".join(b"theirs %d\n" % n for n in range(5)) + b"the same text\n"


def test_lines_of_others_between_ours_stay_even_if_they_read_the_same(file, case):
    one = case(FileLines(), lines(file))
    interleaved(file, one)
    assert one.undo().end is Undone.KEPT
    assert file.read_bytes() == WANTED


def test_a_line_of_ours_that_somebody_changed_stays(file, case):
    one = case(FileLines(), lines(file))
    one.apply()
    writer = Writer(file)
    writer.line(b"ours 1\n")
    writer.line(b"ours 2\n")
    writer.close()
    file.write_bytes(file.read_bytes().replace(b"ours 1", b"OURS 1"))
    one.undo()
    assert file.read_bytes() == BEFORE + b"OURS 1\n"


def test_a_file_that_somebody_has_open_keeps_the_lines_and_the_answer_says_who(file, case):
    import subprocess
    import sys

    one = case(FileLines(), lines(file))
    one.apply()
    writer = Writer(file)
    writer.line(b"ours\n")
    writer.close()
    code = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        reader.stdout.readline()
        outcome = one.undo()
        assert outcome.end is Undone.KEPT
        assert f"pid {reader.pid}" in outcome.detail
        reader.communicate(b"")
    assert file.read_bytes() == BEFORE + b"ours\n"


def test_kept_lines_stay_and_nothing_else_does(file, case, ours):
    one = case(FileLines(), lines(file, "all"))
    one.apply()
    writer = Writer(file)
    writer.line(b"ours\n")
    writer.close()
    assert one.undo().end is Undone.UNDONE
    assert file.read_bytes() == BEFORE + b"ours\n"
    assert ours(file.parent) == []


def test_a_writer_killed_between_line_and_book_leaves_no_line(file, case, crash_points):
    one = case(FileLines(), lines(file))
    one.capture()
    writers: list[Writer] = []

    def prepare() -> None:
        one.apply()
        writers.append(Writer(file))

    def write() -> None:
        for n in range(3):
            writers[-1].line(b"ours %d\n" % n)
            add(file, b"theirs\n")

    for step in crash_points(prepare, write):
        writers[-1].close()
        theirs = file.read_bytes().count(b"theirs\n")
        assert one.undo().settled, step
        assert file.read_bytes() == BEFORE + b"theirs\n" * theirs, step
        os.truncate(file, len(BEFORE))
    writers[-1].close()
    one.undo()


def test_an_undo_killed_anywhere_is_finished_by_the_next(file, case, ours, crash_points):
    one = case(FileLines(), lines(file))
    one.capture()

    def prepare() -> None:
        os.truncate(file, len(BEFORE))
        interleaved(file, one)

    for step in crash_points(prepare, one.undo):
        assert one.undo().settled, step
        assert file.read_bytes() == WANTED, step
        assert ours(file.parent) == [], step


def test_a_rotated_file_loses_the_lines_too(file, case):
    one = case(FileLines(), lines(file))
    one.apply()
    writer = Writer(file)
    writer.line(b"ours\n")
    file.rename(file.with_name("app.log.1"))
    file.write_bytes(b"new\n")
    writer.line(b"ours\n")
    writer.close()
    assert one.undo().settled
    assert file.with_name("app.log.1").read_bytes() == BEFORE
    assert file.read_bytes() == b"new\n"


def rotated(file: Path, one: Any) -> None:
    """Lines of ours and of others in a file, and in the one that took its name."""
    old = file.with_name("app.log.1")
    if old.exists():
        old.rename(file)  # the inode that the change knows
    file.write_bytes(BEFORE)
    one.apply()
    folder = os.open(file.parent, os.O_RDONLY)
    book = Book(folder, file.name, "u1", follow=True)
    book.append(b"ours 1\n")
    file.rename(old)
    file.write_bytes(b"new\n")
    book.append(b"ours 2\n")
    add(file, b"theirs\n")
    book.append(b"ours 3\n")
    book.close()
    os.close(folder)


@pytest.mark.slow
def test_lines_in_two_files_go_from_both_however_often_the_undo_is_killed(
    file, case, ours, crash_points, monkeypatch
):
    monkeypatch.setattr(line_book, "LOOK", 0)
    one = case(FileLines(), lines(file, "none"))
    one.capture()
    for step in crash_points(lambda: rotated(file, one), one.undo):
        assert one.undo().settled, step
        assert file.with_name("app.log.1").read_bytes() == BEFORE, step
        assert file.read_bytes() == b"new\ntheirs\n", step
        assert ours(file.parent) == [], step


@pytest.mark.slow
def test_a_follower_killed_anywhere_leaves_no_line(file, case, ours, crash_points, monkeypatch):
    monkeypatch.setattr(line_book, "LOOK", 0)
    one = case(FileLines(), lines(file, "none"))
    one.capture()

    def prepare() -> None:
        old = file.with_name("app.log.1")
        if old.exists():
            old.rename(file)
        file.write_bytes(BEFORE)

    for step in crash_points(prepare, lambda: rotated(file, one)):
        old = file.with_name("app.log.1")
        assert one.undo().settled, step
        assert (old if old.exists() else file).read_bytes() == BEFORE, step
        assert not old.exists() or file.read_bytes() in (b"", b"new\n", b"new\ntheirs\n"), step
        assert ours(file.parent) == [], step
