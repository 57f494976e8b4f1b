"""Files recorded and put back, and space taken, on real file systems."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.errors import InvalidParameter, Refused
from faultline.kernel import files, filesystem
from faultline.kernel.files import Aspect, FileState
from faultline.kernel.filesystem import Method, Space

pytestmark = pytest.mark.both_kernels

# user:: rw-, user:1 r--, group:: r--, mask:: rw-, other:: --- (linux/posix_acl_xattr.h)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, perm, who)
    for tag, perm, who in (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 1),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 6, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = files.open_folder(str(tmp_path))
    yield fd
    os.close(fd)


@pytest.fixture
def ext4(disk: tuple[Path, object], tmp_path: Path) -> Iterator[Path]:
    """A small ext4 with a reserve for root, mounted in the test's folder."""
    node, _ = disk
    command = ["mkfs.ext4", "-q", "-m", "10", "-E", "lazy_itable_init=0", str(node)]
    subprocess.run(command, check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-t", "ext4", str(node), str(point)], check=True)
    yield point
    subprocess.run(["umount", str(point)], check=True)


def _try_xattr(path: Path, name: str, value: bytes) -> bool:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise
    return True


def test_every_attribute_comes_back(tmp_path: Path, folder: int) -> None:
    path = tmp_path / "app.conf"
    path.write_text("one\n")
    _try_xattr(path, "user.colour", b"blue")
    acl = _try_xattr(path, "system.posix_acl_access", ACL)
    path.chmod(0o4660)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    before = files.snapshot(folder, "app.conf")
    assert before.mode == 0o4660
    assert acl == ("system.posix_acl_access" in before.xattrs)

    path.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(path, 1, 2)
    for name in os.listxattr(path):
        os.removexattr(path, name)
    _try_xattr(path, "user.other", b"red")
    path.write_text("two, longer\n")
    changed = files.snapshot(folder, "app.conf")
    assert before.differences(changed) >= {Aspect.MODE, Aspect.CONTENT, Aspect.SIZE, Aspect.TIMES}
    assert before.same_file(changed)

    path.write_text("one\n")
    fd = files.open_regular(folder, "app.conf", os.O_RDWR)
    assert files.restore_attributes(fd, before) == {}
    os.close(fd)
    after = files.snapshot(folder, "app.conf")
    assert before.differences(after) == frozenset()
    assert after == before


def test_a_state_survives_json(tmp_path: Path, folder: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    _try_xattr(path, "user.raw", b"\0\xff")
    state = files.snapshot(folder, "file")
    assert FileState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_reading_a_snapshot_leaves_the_access_time(tmp_path: Path, folder: int) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    os.utime(path, ns=(10**18, 10**18 + 5))
    before = path.stat()
    files.snapshot(folder, "file")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ctime_ns == before.st_ctime_ns
    assert path.stat().st_atime_ns == before.st_atime_ns


def test_a_file_that_was_replaced_is_another_one(tmp_path: Path, folder: int) -> None:
    path = tmp_path / "file"
    path.write_text("same")
    before = files.snapshot(folder, "file")
    (tmp_path / "new").write_text("same")
    (tmp_path / "new").rename(path)
    after = files.snapshot(folder, "file")
    assert not before.same_file(after)
    assert Aspect.INODE in before.differences(after)
    assert Aspect.CONTENT not in before.differences(after)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_regular_file_is_refused_unopened(
    tmp_path: Path, folder: int, kind: str
) -> None:
    path = tmp_path / "odd"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/etc/passwd"),
    }[kind]()
    with pytest.raises(Refused):
        files.snapshot(folder, "odd")  # opening a pipe for reading would wait for a writer


def test_a_backup_is_private_exact_and_never_over_another(tmp_path: Path, folder: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(3_000_000))
    path.chmod(0o644)
    name = files.hidden_name("u1", 3)
    state = files.backup(folder, "data", name)
    copy = tmp_path / name
    assert copy.read_bytes() == path.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert files.read_hidden_name(name) == ("u1", 3)
    assert files.snapshot(folder, "data").differences(state) == frozenset()
    with pytest.raises(FileExistsError):
        files.backup(folder, "data", name)
    assert copy.read_bytes() == path.read_bytes()
    copy.unlink()


def test_a_failed_backup_leaves_no_copy(tmp_path: Path, folder: int) -> None:
    with pytest.raises(FileNotFoundError):
        files.backup(folder, "absent", ".faultline-u-0")
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_walked_within_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "real").write_text("container")
    (root / "abs").symlink_to("/etc/real")
    (root / "out").symlink_to("../../secret")
    (root / "loop").symlink_to("loop")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        folder, name = files.locate("/abs", fd)
        assert files.snapshot(folder, name).size == len("container")
        os.close(folder)
        folder, name = files.locate("/out", fd)  # '..' of the root is the root
        with pytest.raises(FileNotFoundError):
            files.snapshot(folder, name)
        os.close(folder)
        with pytest.raises(OSError, match="loop"):
            files.locate("/loop", fd)
    finally:
        os.close(fd)


def test_a_link_on_the_host_is_followed_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    folder, name = files.locate(str(tmp_path / "link"))
    assert name == "real"
    os.close(folder)


@pytest.mark.needs_root
def test_an_immutable_file_is_opened_up_and_closed_again(ext4: Path) -> None:
    path = ext4 / "fixed"
    path.write_text("x")
    folder = files.open_folder(str(ext4))
    fd = files.open_regular(folder, "fixed")
    try:
        files.set_flags(fd, 0x10)
        before = files.state_of(fd)
        with pytest.raises(PermissionError):
            path.chmod(0o600)
        files.set_flags(fd, 0)
        path.chmod(0o600)
        assert before.differences(files.state_of(fd)) == {Aspect.MODE, Aspect.FLAGS}
        assert files.restore_attributes(fd, before) == {}
        assert files.state_of(fd) == before
        assert files.restore_attributes(fd, before) == {}  # immutable now: as good as once
        assert files.state_of(fd) == before
    finally:
        files.set_flags(fd, 0)
        os.close(fd)
        os.close(folder)


@pytest.mark.needs_root
def test_a_percentage_is_what_users_can_reach(ext4: Path) -> None:
    before = filesystem.space(str(ext4))
    assert before.reserved > 0
    size = before.bytes_to_reach(80)
    with (ext4 / "fill").open("wb") as file:
        taken = filesystem.take(file.fileno(), size)
    assert (taken.method, taken.full, taken.size) == (Method.ALLOCATED, False, size)
    after = filesystem.space(str(ext4))
    assert after.percent == pytest.approx(80, abs=0.5)
    assert after.bytes_to_reach(50) == 0
    (ext4 / "fill").unlink()
    assert filesystem.space(str(ext4)).used == before.used


@pytest.mark.needs_root
def test_a_full_file_system_ends_the_growth_and_is_said(ext4: Path) -> None:
    with (ext4 / "fill").open("wb") as file:
        taken = filesystem.take(file.fileno(), 1 << 40)
        assert taken.full
        assert os.fstat(file.fileno()).st_size == taken.size
        # What is still free is the file system's own reserve, which nobody can take.
        assert filesystem.space(str(ext4)).available == 0
        with pytest.raises(OSError, match="space"):
            (ext4 / "more").write_bytes(bytes(64 << 10))


def test_where_nothing_can_be_allocated_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(filesystem.syscalls, "fallocate", refuse)
    with (tmp_path / "fill").open("w+b") as file:
        taken = filesystem.take(file.fileno(), 2_500_000)
        assert (taken.size, taken.method) == (2_500_000, Method.WRITTEN)
        assert os.fstat(file.fileno()).st_size == 2_500_000
        assert file.read(4096).count(0) < 100


def test_growth_stops_when_told(tmp_path: Path) -> None:
    with (tmp_path / "fill").open("wb") as file:
        assert filesystem.take(file.fileno(), 1 << 40, lambda: False).size == 0
        with pytest.raises(InvalidParameter):
            filesystem.take(file.fileno(), 0)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.1, 100))
def test_filling_reaches_the_percentage_to_a_block(
    used: int, available: int, reserve: int, percent: float
) -> None:
    def at(taken: int) -> Space:
        free = (available + reserve) * 4096 - taken
        total = (used + available + reserve) * 4096
        return Space(4096, total, free, available * 4096 - taken, 0, 0, 0, False)

    size = at(0).bytes_to_reach(percent)
    assert 0 <= size <= available * 4096
    assert size % 4096 == 0
    if size:
        assert at(size).percent >= percent - 1e-6
        assert at(size - 4096).percent < percent + 1e-6
    else:
        assert at(0).percent >= percent - 1e-6 or available == 0
