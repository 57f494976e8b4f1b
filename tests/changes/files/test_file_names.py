"""Modes, hidden and moved files, and files that are made."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.file_added import FileAdded
from faultline.changes.file_attributes import FileAttributes
from faultline.changes.file_moved import FileMoved
from faultline.changes.model import Presence, Undone
from faultline.errors import Refused, Unsupported


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.conf"
    path.write_text("mode = calm\n")
    path.chmod(0o640)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def added(path: Path, **more: Any) -> dict[str, Any]:
    spec = {"path": str(path), "content": "made\n", "mode": 0o604, "parents": True}
    return {**spec, "replaces": False, **more}


# ------------------------------------------------------------------------------- the mode


def test_the_mode_comes_back(file, case, ours):
    one = case(FileAttributes(), {"path": str(file), "mode": 0})
    one.apply()
    assert mode(file) == 0
    assert one.presence() is Presence.OURS
    assert one.undo().end is Undone.UNDONE
    assert mode(file) == 0o640
    assert one.undo().end is Undone.ABSENT
    assert ours(file.parent) == []


def test_a_mode_that_somebody_else_set_stays(file, case):
    one = case(FileAttributes(), {"path": str(file), "mode": 0})
    one.apply()
    file.chmod(0o600)
    outcome = one.undo()
    assert outcome.end is Undone.LEFT
    assert outcome.commands[0] == ("chmod", "0640", "--", str(file))
    assert mode(file) == 0o600
    assert one.presence() is Presence.FOREIGN


def test_the_mode_follows_the_inode_and_not_the_name(file, case):
    one = case(FileAttributes(), {"path": str(file), "mode": 0})
    one.apply()
    file.rename(file.with_name("rotated"))
    file.write_text("new")
    file.chmod(0)
    assert one.undo().end is Undone.UNDONE
    assert mode(file.with_name("rotated")) == 0o640
    assert mode(file) == 0


def test_a_mode_behind_a_link_is_never_changed(file, case, tmp_path):
    one = case(FileAttributes(), {"path": str(file), "mode": 0o777})
    one.apply()
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o777)
    file.unlink()
    file.symlink_to(victim)
    assert one.undo().end is Undone.GONE
    assert mode(victim) == 0o777


@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_mode_survives_a_kill_anywhere(file, case, ours, crash_points, what):
    one = case(FileAttributes(), {"path": str(file), "mode": 0o600})
    one.capture()
    prepare = one.apply if what == "undo" else lambda: None
    for step in crash_points(prepare, getattr(one, what)):
        assert one.undo().settled
        assert mode(file) == 0o640, step
        assert ours(file.parent) == [], step
    one.undo()


# ------------------------------------------------------------------------------- hidden, moved


@pytest.mark.parametrize("to", ["", "elsewhere/other.conf"])
def test_a_file_comes_back_as_the_same_inode(file, case, ours, to):
    (file.parent / "elsewhere").mkdir()
    before = file.stat()
    target = str(file.parent / to) if to else ""
    with file.open("a") as program:
        one = case(FileMoved(), {"path": str(file), "to": target})
        one.apply()
        assert not file.exists()
        assert one.presence() is Presence.OURS
        program.write("written meanwhile\n")
    assert one.undo().end is Undone.UNDONE
    assert file.stat().st_ino == before.st_ino
    assert file.read_text() == "mode = calm\nwritten meanwhile\n"
    assert one.undo().end is Undone.ABSENT
    assert ours(file.parent) == []


def test_a_new_file_of_the_name_is_left_alone(file, case):
    one = case(FileMoved(), {"path": str(file), "to": ""})
    one.apply()
    file.write_text("new\n")
    outcome = one.undo()
    assert outcome.end is Undone.LEFT
    assert file.read_text() == "new\n"
    kept = outcome.commands[0][3]
    assert Path(kept).read_text() == "mode = calm\n"
    assert one.presence() is Presence.FOREIGN


def test_nothing_is_ever_moved_over_something(file, case):
    other = file.with_name("other")
    other.write_text("mine")
    with pytest.raises(Refused):
        case(FileMoved(), {"path": str(file), "to": str(other)}).capture()
    one = case(FileMoved(), {"path": str(file), "to": str(file.with_name("free"))})
    one.capture()
    file.with_name("free").write_text("taken since")
    with pytest.raises(FileExistsError):
        one.apply()
    assert one.undo().settled
    assert file.read_text() == "mode = calm\n"
    assert file.with_name("free").read_text() == "taken since"


def test_another_file_system_is_refused(file, case):
    with pytest.raises(Unsupported, match="file system"):
        case(FileMoved(), {"path": str(file), "to": "/dev/shm/faultline-test-target"}).capture()


def test_another_file_under_our_hidden_name_is_not_put_in_place(file, case):
    one = case(FileMoved(), {"path": str(file), "to": ""})
    one.apply()
    hidden = file.parent / ".faultline-u1-0.kept"
    hidden.rename(file.with_name("stolen"))
    hidden.write_text("evil")
    assert one.undo().end is Undone.GONE
    assert not file.exists()
    hidden.unlink()


@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_hidden_file_survives_a_kill_anywhere(file, case, ours, crash_points, what):
    inode = file.stat().st_ino
    one = case(FileMoved(), {"path": str(file), "to": ""})
    one.capture()
    prepare = one.apply if what == "undo" else lambda: None
    for step in crash_points(prepare, getattr(one, what)):
        assert one.undo().settled
        assert file.stat().st_ino == inode, step
        assert ours(file.parent) == [], step
    one.undo()


def test_a_scan_finds_hidden_files_and_modes(file, case):
    case(FileMoved(), {"path": str(file), "to": ""}).apply()
    (found,) = FileMoved().scan(None, (str(file.parent),))
    assert list(FileAttributes().scan(None, (str(file.parent),))) == []
    assert case(FileMoved(), found.change.spec, prior=found.prior).undo().end is Undone.UNDONE
    assert file.exists()


# ------------------------------------------------------------------------------- made


def test_a_file_is_made_and_removed_with_its_folders(tmp_path, case, ours):
    path = tmp_path / "a" / "b" / "new.conf"
    one = case(FileAdded(), added(path))
    one.apply()
    assert (path.read_text(), mode(path)) == ("made\n", 0o604)
    assert one.presence() is Presence.OURS
    assert one.undo().end is Undone.UNDONE
    assert list(tmp_path.iterdir()) == []
    assert one.undo().end is Undone.ABSENT


def test_folders_that_somebody_uses_stay(tmp_path, case):
    path = tmp_path / "a" / "b" / "new.conf"
    one = case(FileAdded(), added(path))
    one.apply()
    (tmp_path / "a" / "theirs").write_text("x")
    assert one.undo().end is Undone.UNDONE
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["theirs"]


@pytest.mark.parametrize("how", ["content", "mode", "replaced"])
def test_a_made_file_that_somebody_changed_stays(tmp_path, case, how):
    path = tmp_path / "new.conf"
    one = case(FileAdded(), added(path))
    one.apply()
    if how == "content":
        path.write_text("MADE\n")
    elif how == "mode":
        path.chmod(0o777)
    else:
        other = tmp_path / "other"
        other.write_text("made\n")
        other.chmod(0o604)
        other.rename(path)
    outcome = one.undo()
    assert outcome.end is Undone.LEFT
    assert path.exists()
    assert outcome.commands[0] == ("rm", "--", str(path))


def test_without_force_nothing_is_taken_over(file, case):
    with pytest.raises(Refused, match="exists"):
        case(FileAdded(), added(file)).capture()
    with pytest.raises(Refused, match="does not exist"):
        case(FileAdded(), added(file.parent / "no" / "x", parents=False)).capture()


def test_a_foreign_file_that_came_first_is_not_removed(tmp_path, case):
    path = tmp_path / "new.conf"
    one = case(FileAdded(), added(path))
    one.capture()
    path.write_text("made\n")
    path.chmod(0o604)
    with pytest.raises(FileExistsError):
        one.apply()
    assert one.undo().end is Undone.LEFT
    assert path.exists()


@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_made_file_survives_a_kill_anywhere(tmp_path, case, crash_points, what):
    path = tmp_path / "a" / "new.conf"
    one = case(FileAdded(), added(path))
    one.capture()
    prepare = one.apply if what == "undo" else lambda: None
    for step in crash_points(prepare, getattr(one, what)):
        assert one.undo().settled
        assert not list(tmp_path.iterdir()), step
    one.undo()
