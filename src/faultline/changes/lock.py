"""One owner of undo: a lock per fault with a fencing number.

The command, two keepers, and later the agent and the operator may all want to undo one fault. The
lock is a flock(2) on a file in memory; it falls free when its holder dies. A holder that is only
*stopped* keeps the flock, so after `STEAL` the next one takes a higher number and goes on: whoever
holds an older number must not make another change.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Self

STEAL = 1.5  # seconds a live but silent holder is waited for
_FENCE = struct.Struct("<QQ")  # a number that grows, and a random one of whoever took it


def held(path: Path) -> bool:
    """Whether somebody alive holds the lock of this file; not, if it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class FaultLock:
    """The lock of one fault. Its descriptor is opened before the fault."""

    def __init__(self, path: Path, patience: float = STEAL) -> None:
        self.path = path
        self.patience = patience
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size < _FENCE.size:
            os.pwrite(self._fd, _FENCE.pack(0, 0), 0)  # so that no page is needed later
        self.fence = (0, 0)

    def acquire(self) -> Self:
        """Take the lock, or after `patience` seconds the next fencing number without it."""
        until = time.monotonic() + self.patience
        while not self._try() and time.monotonic() < until:
            time.sleep(0.01)
        # Two that steal at once take the same number; the random part leaves one of them the owner.
        self.fence = (self._read()[0] + 1, int.from_bytes(os.urandom(8)))
        os.pwrite(self._fd, _FENCE.pack(*self.fence), 0)
        return self

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self) -> tuple[int, int]:
        number, token = _FENCE.unpack(os.pread(self._fd, _FENCE.size, 0))
        return number, token

    @property
    def ours(self) -> bool:
        """Whether nobody has taken a higher number since `acquire`."""
        return self._read() == self.fence

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.close()  # which releases it
