"""Time direct reads or writes of a task inside a control group: the proof of a limit on block I/O.

A child opens what it works on and times a few requests outside the group, then joins the group
and goes on. A child whose request is throttled cannot be killed before the limit is lifted, so the
parent stays outside, tells what was done by then, and leaves the child with SIGKILL pending: it
ends as soon as it is let go.

Order (spec): `join`: folders of control groups; `mode`: "read" from the block device `node`, which
changes nothing, or "write" to a file without a name in `folder`, walked from `root` where that is
given; `block`: bytes of a request; `seconds`: how long to measure inside the group.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from faultline.kernel import files
from faultline.workers.join import join_groups, root_of
from faultline.workers.lifetime import Lifetime, reap

_FREE: Final = 0.3  # seconds outside the group, at most
_CELL: Final = struct.Struct("qqqqqq")


class Account:
    """What the child has done, in memory that it shares with the parent."""

    FREE_BYTES, FREE_TIME, JOINED, DONE, REQUESTS, BEGUN = range(6)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _CELL.size)

    def __getitem__(self, place: int) -> int:
        return _CELL.unpack_from(self._memory)[place]

    def __setitem__(self, place: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, value)


class Requests:
    """Direct requests of one size, at places chosen at random."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._block = int(spec["block"])
        self._buffer = mmap.mmap(-1, self._block)
        self._write = spec["mode"] == "write"
        if self._write:
            flags = os.O_RDWR | os.O_DIRECT | os.O_TMPFILE | os.O_CLOEXEC
            folder = files.open_folder(spec["folder"], root_of(spec))
            self._fd = os.open(".", flags, 0o600, dir_fd=folder)
            os.close(folder)
            # Written once before: a request then needs no new block, and so no journal.
            os.pwrite(self._fd, self._buffer, 0)
            os.fsync(self._fd)
            self._blocks = 1
        else:
            self._fd = os.open(spec["node"], os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            self._blocks = max(1, os.lseek(self._fd, 0, os.SEEK_END) // self._block)

    def one(self) -> int:
        """Do one request; its bytes."""
        offset = random.randrange(self._blocks) * self._block
        if self._write:
            return os.pwrite(self._fd, self._buffer, offset)
        return os.preadv(self._fd, [self._buffer], offset)


def _work(spec: dict[str, Any], account: Account) -> int:
    requests = Requests(spec)
    begin = time.monotonic_ns()
    while not account[Account.FREE_BYTES] or time.monotonic_ns() - begin < _FREE * 1e9:
        account[Account.FREE_BYTES] += requests.one()
        account[Account.FREE_TIME] = time.monotonic_ns() - begin
    join_groups(spec["join"])
    account[Account.JOINED] = time.monotonic_ns()
    while True:
        account[Account.BEGUN] = time.monotonic_ns()
        account[Account.DONE] += requests.one()
        account[Account.REQUESTS] += 1


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Measure once and tell; the child may stay behind until the limit is lifted."""
    lifetime = Lifetime(spec["deadline"])
    account = Account()
    child = lifetime.fork("fl-io-probe", lambda: _work(spec, account))
    seconds = float(spec["seconds"])
    while not lifetime.wait(0.01):
        for status in reap([child]).values():
            raise OSError(max(status, 0), os.strerror(max(status, 0)), spec.get("node", ""))
        joined, now = account[Account.JOINED], time.monotonic_ns()
        if joined and now - joined >= seconds * 1e9:
            break
    now = time.monotonic_ns()
    ready(
        {
            "free": account[Account.FREE_BYTES] / max(1, account[Account.FREE_TIME]) * 1e9,
            "bytes": account[Account.DONE],
            "requests": account[Account.REQUESTS],
            "seconds": (now - account[Account.JOINED]) / 1e9,
            "waiting": (now - account[Account.BEGUN]) / 1e9,
        }
    )
    os.kill(child, signal.SIGKILL)
    return 0
