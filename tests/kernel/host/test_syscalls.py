"""System calls by ctypes, each against what it does to a real process, file or path."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from faultline.kernel import clock, procfs, syscalls
from faultline.kernel.syscalls import Fallocate, Rename, Resolve

pytestmark = pytest.mark.both_kernels


def _child(work: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            assert callable(work)
            work()
        finally:
            os._exit(0)
    return pid


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_kernel_kills_a_stopped_process_at_its_deadline() -> None:
    def stopped() -> None:
        syscalls.arm_kill_timer(clock.now() + 150_000_000)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(30)

    begin = clock.now()
    assert _status(_child(stopped)) == -signal.SIGKILL
    assert clock.now() - begin >= 150_000_000


def test_a_deadline_in_the_past_kills_at_once() -> None:
    def late() -> None:
        syscalls.arm_kill_timer(clock.now() - 10**9)
        time.sleep(30)

    assert _status(_child(late)) == -signal.SIGKILL


def test_a_disarmed_timer_does_nothing() -> None:
    def spared() -> None:
        syscalls.disarm_kill_timer(syscalls.arm_kill_timer(clock.now() + 50_000_000))
        time.sleep(0.15)

    assert _status(_child(spared)) == 0


def test_a_child_dies_with_its_parent() -> None:
    reader, writer = os.pipe()

    def parent() -> None:
        def orphan() -> None:
            syscalls.set_parent_death_signal()
            os.write(writer, str(os.getpid()).encode())
            time.sleep(30)

        _child(orphan)
        time.sleep(30)

    middle = _child(parent)
    child = procfs.ProcessId.of(int(os.read(reader, 16)))
    assert child.alive()
    os.kill(middle, signal.SIGKILL)
    _status(middle)
    assert child.wait(5)
    os.close(reader)
    os.close(writer)


def test_a_vfork_parent_sleeps_uninterruptibly_until_the_child_ends() -> None:
    def waits() -> None:
        if syscalls.fork_and_wait() == 0:
            time.sleep(0.3)
            os._exit(0)
        os._exit(7)

    pid = _child(waits)
    states = set()
    for _ in range(20):
        states.add(procfs.process(pid).state)
        time.sleep(0.01)
    assert "D" in states
    assert _status(pid) == 7


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host")
    root = tmp_path / "root"
    root.mkdir()
    (root / "absolute").symlink_to(secret)
    (root / "upwards").symlink_to("../secret")
    (root / "inside").write_text("container")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in ("absolute", "upwards"):
            with pytest.raises(FileNotFoundError) as caught:
                syscalls.openat2(fd, name, os.O_RDONLY, Resolve.IN_ROOT)
            assert caught.value.filename == name
        inside = syscalls.openat2(fd, "/inside", os.O_RDONLY, Resolve.IN_ROOT)
        assert os.read(inside, 20) == b"container"
        assert not os.get_inheritable(inside)
        os.close(inside)
    finally:
        os.close(fd)


def test_space_is_taken_and_punched_out_without_writing() -> None:
    fd = os.memfd_create("test")
    syscalls.fallocate(fd, Fallocate.ALLOCATE, 0, 1 << 20)
    assert os.fstat(fd).st_blocks * 512 >= 1 << 20
    syscalls.fallocate(fd, Fallocate.PUNCH_HOLE | Fallocate.KEEP_SIZE, 0, 1 << 20)
    assert (os.fstat(fd).st_size, os.fstat(fd).st_blocks) == (1 << 20, 0)
    os.close(fd)


def test_a_rename_never_replaces_unless_asked_to_exchange(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.renameat2(fd, "one", fd, "two", Rename.NOREPLACE)
        syscalls.renameat2(fd, "one", fd, "two", Rename.EXCHANGE)
        assert (one.read_text(), two.read_text()) == ("2", "1")
    except OSError as error:
        if error.errno == errno.EINVAL:
            pytest.skip("this file system has no renames with flags")
        raise
    finally:
        os.close(fd)


def test_statx_agrees_with_stat(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    found = syscalls.statx(-100, str(path))
    assert found.inode == path.stat().st_ino
    assert os.makedev(*found.device) == path.stat().st_dev
    with path.open() as file:
        assert syscalls.statx(file.fileno()) == found
    if found.birth:
        assert abs(found.birth - path.stat().st_ctime_ns) < 10**9


@pytest.mark.needs_root
def test_a_new_network_namespace_is_entered_again_by_descriptor() -> None:
    def moved() -> None:
        ours = os.open("/proc/self/ns/net", os.O_RDONLY)
        before = Path("/proc/self/ns/net").readlink()
        syscalls.unshare(syscalls.Namespace.NET)
        assert Path("/proc/self/ns/net").readlink() != before
        syscalls.setns(ours, syscalls.Namespace.NET)
        os._exit(9 if Path("/proc/self/ns/net").readlink() == before else 1)

    assert _status(_child(moved)) == 9


def test_a_failing_call_raises_the_error_of_the_os() -> None:
    with pytest.raises(OSError, match="setns") as caught:
        syscalls.setns(-1)
    assert caught.value.errno == errno.EBADF


def test_a_descriptor_of_another_process_is_copied() -> None:
    reader, writer = os.pipe()
    pid = _child(lambda: time.sleep(30))
    pidfd = os.pidfd_open(pid)
    try:
        copy = syscalls.pidfd_getfd(pidfd, writer)
        os.write(copy, b"through")
        assert os.read(reader, 10) == b"through"
        os.close(copy)
        assert not syscalls.pidfd_wait(pidfd, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        _status(pid)
        for fd in (reader, writer, pidfd):
            os.close(fd)


def test_pages_are_locked_and_let_go() -> None:
    def locks() -> None:
        syscalls.mlockall()
        status = Path("/proc/self/status").read_text()
        syscalls.munlockall()
        after = Path("/proc/self/status").read_text()
        os._exit(3 if _locked(status) > 0 and _locked(after) == 0 else 4)

    assert _status(_child(locks)) == 3


def _locked(status: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck"))
