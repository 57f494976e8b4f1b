"""Space and inodes of a file system, and taking space quickly.

Blocks that are kept for root make three different answers to "how much is free"; each has its name
here. `df` counts what users can take, and so do we when a percentage is asked for.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from faultline.errors import InvalidParameter
from faultline.kernel import syscalls
from faultline.kernel.mounts import mount_of, mount_of_fd

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Space:
    """A file system at one instant, in bytes (statvfs(3))."""

    block: int
    total: int
    free: int  # for root, the reserve included
    available: int  # for everybody else
    inodes: int  # 0: the file system has no fixed number
    inodes_free: int
    inodes_available: int
    read_only: bool

    @property
    def used(self) -> int:
        return self.total - self.free

    @property
    def reserved(self) -> int:
        """What only root can still take."""
        return self.free - self.available

    @property
    def percent(self) -> float:
        """The used share of what users can ever take, as `df` computes it (which rounds up)."""
        reachable = self.used + self.available
        return 100 * self.used / reachable if reachable else 100.0

    @property
    def inode_percent(self) -> float:
        taken = self.inodes - self.inodes_free
        reachable = taken + self.inodes_available
        return 100 * taken / reachable if reachable else 0.0

    def bytes_to_reach(self, percent: float) -> int:
        """How many bytes to take until `percent` is used, rounded up to blocks; 0 if it is already.

        100 percent takes what is available to users and leaves root's reserve alone.
        """
        wanted = math.ceil((self.used + self.available) * percent / 100) - self.used
        blocks = -(-max(0, wanted) // self.block)
        return min(blocks * self.block, self.available)


def space(place: str | int) -> Space:
    """The file system that holds a path or an open descriptor."""
    found = os.statvfs(place)
    block = found.f_frsize
    return Space(
        block=block,
        total=found.f_blocks * block,
        free=found.f_bfree * block,
        available=found.f_bavail * block,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
        inodes_available=found.f_favail,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def type_of(path: str | os.PathLike[str]) -> str:
    """The type of the file system that holds `path`, such as ext4 or tmpfs."""
    return mount_of(path).type


def type_of_fd(fd: int, pid: int = 0) -> str:
    """The same of an open file, perhaps in the mounts of process `pid`; '' if nothing tells."""
    mount = mount_of_fd(fd, pid)
    return mount.type if mount else ""


class Method(StrEnum):
    """How space was taken."""

    ALLOCATED = "allocated"  # fallocate: no data is written
    WRITTEN = "written"


@dataclass(frozen=True, slots=True)
class Taken:
    """How much a file grew, how, and whether the file system ended before the size was reached."""

    size: int
    method: Method
    full: bool


def take(fd: int, size: int, keep_going: Callable[[], bool] = lambda: True) -> Taken:
    """Let the file grow by `size` bytes of real space; smaller steps when it runs out before.

    Allocates without writing where the file system can, else writes data that no file system can
    compress away. Between two steps `keep_going` is asked. Quota counts like a full file system.
    """
    if size <= 0:
        raise InvalidParameter("size", size, "a number of bytes above 0")
    start = os.fstat(fd).st_size
    try:
        taken, full = _allocate(fd, start, size, keep_going)
        method = Method.ALLOCATED
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        taken, full = _write(fd, start, size, keep_going)
        method = Method.WRITTEN
    return Taken(taken, method, full)


def _allocate(fd: int, start: int, size: int, keep_going: Callable[[], bool]) -> tuple[int, bool]:
    done, full = 0, False
    step = min(size, 1 << 30)
    while done < size and keep_going():
        step = min(step, size - done)
        try:
            syscalls.fallocate(fd, syscalls.Fallocate.ALLOCATE, start + done, step)
            done += step
        except InterruptedError:
            continue
        except OSError as error:
            if error.errno not in _FULL:
                raise
            full = True
            if step <= 4096:
                break
            step = max(4096, step // 2 // 4096 * 4096)
    # A failed step may have allocated a part of itself beyond what counts: cut it off.
    os.ftruncate(fd, start + done)
    return done, full


def _write(fd: int, start: int, size: int, keep_going: Callable[[], bool]) -> tuple[int, bool]:
    data = os.urandom(_CHUNK)
    done = 0
    while done < size and keep_going():
        try:
            # Each chunk begins elsewhere in the random data, so that deduplication finds no pair.
            shift = done // _CHUNK % 4096
            piece = (data[shift:] + data[:shift])[: min(_CHUNK, size - done)]
            done += os.pwrite(fd, piece, start + done)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return done, True
    return done, False
