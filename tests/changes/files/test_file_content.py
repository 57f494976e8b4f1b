"""Files cut off and edited in place come back whole, with what programs wrote meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.file_content import FileContent
from faultline.changes.model import Presence, Undone
from faultline.errors import Conflict, Refused, TargetGone

TEXT = b"".join(b"line %d of the file, level=info\n" % n for n in range(2000))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes(TEXT)
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"kept")
    os.utime(path, ns=(1_600_000_000_123456789, 1_500_000_000_987654321))
    return path


def cut(path: Path, size: int = 0) -> dict[str, Any]:
    return {"path": str(path), "truncate": size, "links": 1}


def edit(
    path: Path, find: str = "level=info", put: str = "level=panic", **more: Any
) -> dict[str, Any]:
    options = {"regex": False, "line": 0, "count": 0, **more}
    return {"path": str(path), "replace": {"find": find, "put": put, **options}, "links": 1}


def read(path: Path) -> bytes:
    """The content, without moving the time of access."""
    with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
        return file.read()


def state(path: Path) -> tuple[Any, ...]:
    content = read(path)
    info = path.stat()
    times = (info.st_atime_ns, info.st_mtime_ns)
    xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    info_again = (info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_nlink, times)
    return (content, *info_again, xattrs)


SPECS = [(cut, 0), (cut, 777), (edit, "level=panic"), (edit, "x")]


def spec_of(path: Path, maker: Any, value: Any) -> dict[str, Any]:
    return maker(path, value) if maker is cut else maker(path, put=value)


@pytest.mark.parametrize(("maker", "value"), SPECS)
def test_content_times_mode_attributes_and_inode_come_back(file, case, ours, maker, value):
    before = state(file)
    one = case(FileContent(), spec_of(file, maker, value))
    one.apply()
    assert file.read_bytes() != TEXT
    assert one.presence() is Presence.OURS
    outcome = one.undo()
    assert outcome.end is Undone.UNDONE, outcome
    assert state(file) == before
    assert ours(file.parent) == []
    assert one.presence() is Presence.ABSENT
    assert one.undo().end is Undone.ABSENT
    assert state(file) == before


def test_looking_touches_nothing(file, case, ours):
    before = state(file)
    folder = file.parent.stat().st_mtime_ns
    case(FileContent(), cut(file)).capture()
    assert state(file) == before
    assert file.parent.stat().st_mtime_ns == folder
    assert ours(file.parent) == []


def test_our_files_are_for_us_alone(file, case, ours):
    case(FileContent(), cut(file)).apply()
    names = ours(file.parent)
    assert any(name.endswith(".backup") for name in names)
    assert all((file.parent / name).stat().st_mode & 0o077 == 0 for name in names)


@pytest.mark.parametrize(("maker", "value"), SPECS)
def test_what_a_program_appends_meanwhile_stands_behind_the_original(file, case, maker, value):
    with file.open("ab", buffering=0) as program:
        one = case(FileContent(), spec_of(file, maker, value))
        one.apply()
        program.write(b"meanwhile\n")
        outcome = one.undo()
        program.write(b"afterwards\n")
    assert outcome.end is Undone.KEPT, outcome
    assert file.read_bytes() == TEXT + b"meanwhile\nafterwards\n"


def test_a_program_that_writes_at_its_own_position_loses_nothing(file, case):
    with file.open("r+b", buffering=0) as program:
        program.seek(0, os.SEEK_END)
        one = case(FileContent(), cut(file))
        one.apply()
        program.write(b"at my position\n")
        outcome = one.undo()
    assert outcome.end is Undone.KEPT
    assert file.read_bytes() == TEXT + b"at my position\n"


def test_other_lines_that_a_program_changes_stay_changed(file, case):
    one = case(FileContent(), edit(file, line=5))
    one.apply()
    lines = file.read_bytes().splitlines(keepends=True)
    lines[100] = b"theirs\n"
    file.write_bytes(b"".join(lines))
    outcome = one.undo()
    wanted = TEXT.splitlines(keepends=True)
    wanted[100] = b"theirs\n"
    assert outcome.end is Undone.KEPT
    assert file.read_bytes() == b"".join(wanted)


def test_a_line_that_both_changed_is_left_for_a_person(file, case, ours):
    one = case(FileContent(), edit(file, line=5))
    one.apply()
    theirs = file.read_bytes().replace(b"line 4", b"LINE 4")
    file.write_bytes(theirs)
    outcome = one.undo()
    assert outcome.end is Undone.LEFT
    assert file.read_bytes() == theirs
    assert one.presence() is Presence.FOREIGN
    copy, remove = outcome.commands
    backup = file.parent / ".faultline-u1-0.backup"
    assert copy == ("cp", "--", str(backup), str(file))
    assert backup.read_bytes() == TEXT
    assert str(backup) in remove


def test_the_commands_for_a_person_work(file, case, ours):
    import subprocess

    one = case(FileContent(), edit(file, line=5))
    one.apply()
    file.write_bytes(b"all new\n")
    for command in one.undo().commands:
        subprocess.run(command, check=True)
    assert file.read_bytes() == TEXT
    assert ours(file.parent) == []


def test_a_program_that_writes_its_file_anew_is_not_taken_for_one_that_appends(file, case):
    one = case(FileContent(), cut(file))
    one.apply()
    file.write_bytes(b"fresh = yes\n")  # opens with O_TRUNC
    outcome = one.undo()
    assert outcome.end is Undone.LEFT
    assert file.read_bytes() == b"fresh = yes\n"


def test_a_file_that_took_its_place_is_left_alone(file, case):
    one = case(FileContent(), cut(file))
    one.apply()
    new = file.with_name("new")
    new.write_bytes(b"replaced\n")
    new.rename(file)
    assert one.undo().end is Undone.LEFT
    assert file.read_bytes() == b"replaced\n"


def test_a_rotated_file_gets_its_content_back_under_its_new_name(file, case):
    one = case(FileContent(), cut(file))
    one.apply()
    file.rename(file.with_name("app.log.1"))
    file.write_bytes(b"the next\n")
    outcome = one.undo()
    assert outcome.end is Undone.KEPT
    assert "app.log.1" in outcome.detail
    assert file.with_name("app.log.1").read_bytes() == TEXT
    assert file.read_bytes() == b"the next\n"


def test_a_removed_file_is_gone_and_so_is_all_of_ours(file, case, ours):
    one = case(FileContent(), cut(file))
    one.apply()
    file.unlink()
    assert one.undo().end is Undone.GONE
    assert ours(file.parent) == []


def test_hard_links_see_the_change_and_its_undo(file, case):
    other = file.with_name("other")
    other.hardlink_to(file)
    one = case(FileContent(), cut(file))
    one.apply()
    assert other.read_bytes() == b""
    one.undo()
    assert other.read_bytes() == TEXT


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "device", "absent"])
def test_what_is_no_plain_file_is_refused(tmp_path, file, case, kind):
    path = tmp_path / "odd"
    if kind == "link":
        path.symlink_to(file)
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    with pytest.raises((Refused, TargetGone)):
        case(FileContent(), cut(path)).capture()
    assert file.read_bytes() == TEXT


def test_a_link_put_in_its_place_is_not_followed(file, case, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    one = case(FileContent(), cut(file))
    one.apply()
    file.unlink()
    file.symlink_to(secret)
    assert one.undo().end is Undone.LEFT
    assert secret.read_bytes() == b"secret"


def test_a_link_in_place_of_the_folder_is_not_followed(file, case, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "file"
    path.write_bytes(TEXT)
    one = case(FileContent(), cut(path))
    one.apply()
    inner.rename(tmp_path / "elsewhere")
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "file").write_bytes(b"evil")
    inner.symlink_to(evil)
    with pytest.raises(OSError, match=r"[Ss]ymbolic|Too many levels"):
        one.undo()
    inner.unlink()
    (tmp_path / "elsewhere").rename(inner)
    assert one.undo().end is Undone.UNDONE
    assert path.read_bytes() == TEXT


def test_a_backup_that_somebody_exchanged_is_not_restored(file, case):
    one = case(FileContent(), cut(file))
    one.apply()
    backup = file.parent / ".faultline-u1-0.backup"
    backup.unlink()
    backup.write_bytes(b"x" * len(TEXT))
    outcome = one.undo()
    assert outcome.end is Undone.LEFT
    assert file.read_bytes() == b""


def test_a_second_fault_on_the_same_file_is_refused_with_the_holder(file, case):
    case(FileContent(), cut(file)).apply()
    file.write_bytes(b"something\n")
    with pytest.raises(Conflict, match="u1"):
        case(FileContent(), cut(file), uid="u2").capture()


def test_holes_stay_holes(tmp_path, case):
    path = tmp_path / "sparse"
    with path.open("wb") as out:
        out.write(b"head")
        out.seek(8 << 20)
        out.write(b"tail")
    before, content = path.stat().st_blocks, path.read_bytes()
    one = case(FileContent(), cut(path, 2))
    one.apply()
    assert (tmp_path / ".faultline-u1-0.backup").stat().st_blocks == before
    assert one.undo().end is Undone.UNDONE
    assert path.read_bytes() == content
    assert path.stat().st_blocks <= before + 16


@pytest.mark.parametrize(("maker", "value"), SPECS)
def test_killed_anywhere_while_applying_it_still_comes_back(
    file, case, ours, crash_points, maker, value
):
    before = state(file)
    one = case(FileContent(), spec_of(file, maker, value))
    one.capture()
    for step in crash_points(lambda: None, one.apply):
        outcome = one.undo()
        assert outcome.settled, (step, outcome)
        assert state(file) == before, step
        assert ours(file.parent) == [], step
    one.undo()


@pytest.mark.parametrize("meanwhile", [b"", b"meanwhile\n"])
@pytest.mark.parametrize(("maker", "value"), SPECS)
def test_killed_anywhere_while_undoing_the_next_undo_finishes(
    file, case, ours, crash_points, maker, value, meanwhile
):
    before = state(file)
    one = case(FileContent(), spec_of(file, maker, value))
    one.capture()

    def prepare() -> None:
        if read(file) != TEXT:
            os.truncate(file, len(TEXT))
        one.apply()
        with file.open("ab") as program:
            program.write(meanwhile)

    for step in crash_points(prepare, one.undo):
        outcome = one.undo()
        assert outcome.settled, (step, outcome)
        assert read(file) == TEXT + meanwhile, step
        assert ours(file.parent) == [], step
        if not meanwhile:
            assert state(file)[1:] == before[1:], step


def test_what_is_appended_between_a_killed_undo_and_the_next_is_kept(file, case, crash_points):
    one = case(FileContent(), cut(file))
    one.capture()

    def prepare() -> None:
        os.truncate(file, len(TEXT))
        one.apply()

    for step in crash_points(prepare, one.undo):
        with file.open("ab") as program:
            program.write(b"late\n")
        assert one.undo().settled, step
        assert read(file) == TEXT + b"late\n", step


@pytest.mark.needs_root
@pytest.mark.parametrize("where", ["small_ext4", "small_tmpfs"])
@pytest.mark.parametrize(("maker", "value"), SPECS)
def test_it_comes_back_on_a_full_file_system(request, case, ours, where, maker, value):
    folder: Path = request.getfixturevalue(where)
    path = folder / "file"
    path.write_bytes(TEXT * 10)
    one = case(FileContent(), spec_of(path, maker, value))
    one.apply()
    fill_up(folder)
    with path.open("ab") as program:
        program.write(b"meanwhile\n")
    outcome = one.undo()
    assert outcome.end is Undone.KEPT, outcome
    assert path.read_bytes() == TEXT * 10 + b"meanwhile\n"
    assert ours(folder) == []


def fill_up(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            while True:
                try:
                    filler.write(b"x" * size)
                except OSError:
                    break
    with pytest.raises(OSError, match="space"):
        (folder / "one-more").write_bytes(b"x" * 8192)


def test_a_scan_undoes_it_without_a_journal(file, case, ours):
    before = state(file)
    case(FileContent(), cut(file)).apply()
    (found,) = FileContent().scan(None, (str(file.parent),))
    assert (found.uid, found.index, found.where) == ("u1", 0, str(file.parent))
    again = case(FileContent(), found.change.spec, prior=found.prior)
    assert again.undo().end is Undone.UNDONE
    assert state(file) == before
    assert list(FileContent().scan(None, (str(file.parent), "/nowhere"))) == []


@pytest.mark.needs_root
def test_a_note_that_others_could_have_written_is_not_believed(file, case):
    case(FileContent(), cut(file)).apply()
    note = file.parent / ".faultline-u1-0.json"
    for spoil in (lambda: note.chmod(0o666), lambda: os.chown(note, 1234, 0)):
        note.chmod(0o600)
        spoil()
        assert list(FileContent().scan(None, (str(file.parent),))) == []
    os.chown(note, 0, 0)
    note.with_name("linked").hardlink_to(note)
    assert list(FileContent().scan(None, (str(file.parent),))) == []
    note.with_name("linked").unlink()
    note.chmod(0o600)
    assert len(list(FileContent().scan(None, (str(file.parent),)))) == 1
    other = file.parent / "other"
    other.mkdir()
    note.rename(other / note.name)
    assert list(FileContent().scan(None, (str(other),))) == []
