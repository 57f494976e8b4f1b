"""File systems that are really full, and really free again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faultline.changes.disk_fill import DiskFill
from faultline.changes.disk_inodes import DiskInodes
from faultline.changes.model import Presence, Undone
from faultline.errors import Refused

pytestmark = pytest.mark.needs_root
EVERYWHERE = pytest.mark.parametrize("where", ["small_ext4", "small_tmpfs"])


def fill(folder: Path, percent: float = 0.0, size: int = 0, leave: int = 0, reserve: bool = False):
    asked = {"percent": percent, "bytes": size, "leave": leave, "reserve": reserve}
    return {"folder": str(folder), **asked}


def as_nobody(action) -> int:
    """What an ordinary user gets: 0 or an errno."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65533, 65533, 65533)
        status = 0
        try:
            action()
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def used(folder: Path) -> float:
    info = os.statvfs(folder)
    taken = info.f_blocks - info.f_bfree
    return 100 * taken / (taken + info.f_bavail)


@EVERYWHERE
def test_a_full_disk_is_full_for_others_and_free_again(request, case, ours, where):
    folder: Path = request.getfixturevalue(where)
    open_to_all = folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for parent in folder.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    before = os.statvfs(folder).f_bfree
    one = case(DiskFill(), fill(folder, percent=100))
    one.apply()
    assert os.statvfs(folder).f_bavail == 0
    status = as_nobody(lambda: (open_to_all / "x").write_bytes(b"x" * 65536))
    assert status == 28
    assert one.presence() is Presence.OURS
    assert one.undo().end is Undone.UNDONE
    (open_to_all / "x").unlink(missing_ok=True)
    assert abs(os.statvfs(folder).f_bfree - before) <= 2
    assert ours(folder) == []
    assert one.undo().end is Undone.ABSENT


def test_the_reserve_of_root_is_taken_only_when_asked(small_ext4, case):
    one = case(DiskFill(), fill(small_ext4, percent=100))
    one.apply()
    assert os.statvfs(small_ext4).f_bfree > 0
    one.undo()
    two = case(DiskFill(), fill(small_ext4, percent=100, reserve=True))
    two.apply()
    info = os.statvfs(small_ext4)
    assert info.f_bfree < 0.03 * info.f_blocks  # ext4 keeps 2 % from everybody
    with pytest.raises(OSError, match="space"):
        (small_ext4 / "x").write_bytes(b"x" * 8192)
    assert two.undo().end is Undone.UNDONE


@EVERYWHERE
@pytest.mark.parametrize("percent", [40.0, 85.0])
def test_a_share_is_reached_as_df_counts_it(request, case, where, percent):
    folder: Path = request.getfixturevalue(where)
    one = case(DiskFill(), fill(folder, percent=percent))
    one.apply()
    assert used(folder) == pytest.approx(percent, abs=0.5)
    one.undo()


@EVERYWHERE
def test_what_is_to_be_left_is_left(request, case, where):
    folder: Path = request.getfixturevalue(where)
    one = case(DiskFill(), fill(folder, percent=100, leave=1 << 20))
    one.apply()
    info = os.statvfs(folder)
    assert info.f_bavail * info.f_frsize == pytest.approx(1 << 20, abs=65536)
    one.undo()


def test_a_number_of_bytes_is_taken(small_ext4, case):
    one = case(DiskFill(), fill(small_ext4, size=1 << 20))
    one.apply()
    info = (small_ext4 / ".faultline-u1-0.fill").stat()
    assert (info.st_blocks * 512, info.st_mode & 0o777) == (pytest.approx(1 << 20, abs=4096), 0o600)
    one.undo()


def test_a_disk_that_is_full_enough_is_told_apart(small_tmpfs, case):
    (small_tmpfs / "data").write_bytes(b"x" * (2 << 20))
    with pytest.raises(Refused, match="already"):
        case(DiskFill(), fill(small_tmpfs, percent=20)).capture()
    with pytest.raises(Refused, match="only"):
        case(DiskFill(), fill(small_tmpfs, size=100 << 20)).capture()


def test_a_link_at_our_name_is_neither_written_nor_removed(small_tmpfs, case):
    victim = small_tmpfs / "victim"
    victim.write_text("mine")
    (small_tmpfs / ".faultline-u1-0.fill").symlink_to(victim)
    one = case(DiskFill(), fill(small_tmpfs, percent=50))
    with pytest.raises(FileExistsError):
        one.apply()
    assert one.undo().end is Undone.LEFT
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["fill", "inodes"])
def test_killed_anywhere_the_disk_is_free_again(small_tmpfs, case, ours, crash_points, kind):
    before = os.statvfs(small_tmpfs)
    if kind == "fill":
        one = case(DiskFill(), fill(small_tmpfs, percent=100))
    else:
        one = case(DiskInodes(), {"folder": str(small_tmpfs), "percent": 0.0, "count": 12})
    one.capture()
    for action in (one.apply, one.undo):
        prepare = one.apply if action == one.undo else lambda: None
        for step in crash_points(prepare, action):
            assert one.undo().settled, step
            assert ours(small_tmpfs) == [], step
            after = os.statvfs(small_tmpfs)
            assert (after.f_bfree, after.f_ffree) == (before.f_bfree, before.f_ffree), step
        one.undo()


@EVERYWHERE
def test_no_inode_is_left_and_all_come_back(request, case, ours, where):
    folder: Path = request.getfixturevalue(where)
    before = os.statvfs(folder).f_ffree
    one = case(DiskInodes(), {"folder": str(folder), "percent": 100.0, "count": 0})
    one.apply()
    assert os.statvfs(folder).f_favail == 0
    with pytest.raises(OSError, match="space"):
        (folder / "x").touch()
    assert one.presence() is Presence.OURS
    assert one.undo().end is Undone.UNDONE
    assert os.statvfs(folder).f_ffree == before
    assert ours(folder) == []
    assert one.undo().end is Undone.ABSENT


def test_a_number_of_inodes_is_taken(small_ext4, case):
    before = os.statvfs(small_ext4).f_ffree
    one = case(DiskInodes(), {"folder": str(small_ext4), "percent": 0.0, "count": 100})
    one.apply()
    assert before - os.statvfs(small_ext4).f_ffree == pytest.approx(100, abs=2)
    one.undo()


@EVERYWHERE
def test_a_scan_frees_the_disk_without_a_journal(request, case, ours, where):
    folder: Path = request.getfixturevalue(where)
    case(DiskFill(), fill(folder, percent=90)).apply()
    inodes = {"folder": str(folder), "percent": 50.0, "count": 0}
    case(DiskInodes(), inodes, uid="u-2", index=3).apply()
    for kind in (DiskFill(), DiskInodes()):
        (found,) = kind.scan(None, (str(folder),))
        again = case(kind, found.change.spec, prior=found.prior, uid=found.uid, index=found.index)
        assert again.undo().end is Undone.UNDONE
    assert ours(folder) == []
