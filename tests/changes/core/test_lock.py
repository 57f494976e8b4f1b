"""One owner of undo at a time: the lock of a fault and its fencing number."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from faultline.changes.lock import FaultLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def _holder(path: Path) -> int:
    """A child that takes the lock, says so, and keeps it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        FaultLock(path).acquire()
        os.write(write, b"x")
        time.sleep(60)
        os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    return pid


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_number_grows_and_only_the_last_one_owns(path: Path) -> None:
    first, second = FaultLock(path), FaultLock(path)
    first.acquire()
    assert first.ours
    first.release()
    second.acquire()
    assert second.ours
    assert not first.ours
    assert second.fence[0] == first.fence[0] + 1
    first.close()
    second.close()


def test_a_stopped_holder_is_passed_over_and_knows_it(path: Path) -> None:
    pid = _holder(path)
    try:
        os.kill(pid, signal.SIGSTOP)
        with FaultLock(path, patience=0.2) as lock:
            assert lock.ours
            assert lock.fence[0] == 2
    finally:
        _end(pid)


def test_a_live_holder_is_waited_for(path: Path) -> None:
    pid = _holder(path)
    try:
        began = time.monotonic()
        with FaultLock(path, patience=0.4) as lock:
            assert time.monotonic() - began >= 0.4
            assert lock.ours
    finally:
        _end(pid)


def test_the_lock_falls_free_when_its_holder_dies(path: Path) -> None:
    _end(_holder(path))
    began = time.monotonic()
    with FaultLock(path, patience=30.0) as lock:
        assert lock.ours
    assert time.monotonic() - began < 15.0


def test_two_that_steal_at_the_same_instant_are_not_both_the_owner(path: Path) -> None:
    pid = _holder(path)
    one, two = FaultLock(path, patience=0.0), FaultLock(path, patience=0.0)
    try:
        one.acquire()
        # The other one had read the number before this one wrote it.
        two.fence = (one.fence[0], one.fence[1] ^ 1)
        os.pwrite(two._fd, two.fence[0].to_bytes(8, "little"), 0)
        os.pwrite(two._fd, two.fence[1].to_bytes(8, "little"), 8)
        assert [one.ours, two.ours] == [False, True]
    finally:
        _end(pid)
        one.close()
        two.close()


def test_leaving_the_block_gives_the_descriptor_back(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with FaultLock(path):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
