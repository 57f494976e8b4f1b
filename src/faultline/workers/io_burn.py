"""Keep a disk busy with direct reads or writes on a file that has no name.

The file is made with O_TMPFILE (open(2)) or unlinked as soon as it is open, so that SIGKILL leaves
nothing behind. Direct I/O goes past the page cache; a file system that cannot do it is refused,
since reads from the cache would burn nothing. A read needs blocks with data, so the file is written
first.

Order (spec), beside `deadline`, `stats` and `mark`: `mode`: "read" or "write"; `folder`, walked
from `root` where that is given; `block` and `size` in bytes, both multiples of 4096, size at least
block; `jobs`: how many at once (default 1); `join`: folders of control groups to be in; `rate`:
bytes a second of all jobs together, 0 for as fast as it goes; `amount`: bytes of all jobs together
after which they rest, 0 for no end.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from faultline.errors import InvalidParameter, Unsupported
from faultline.kernel import files, filesystem
from faultline.workers.figures import Figures
from faultline.workers.join import join_groups, root_of
from faultline.workers.lifetime import Lifetime, end_children, reap

ALIGNMENT: Final = 4096
_KEPT_FREE: Final = 0.5  # of what users can still take: the file never fills the disk
_CELL: Final = struct.Struct("qqq")  # bytes, requests, nanoseconds in requests
_IN_MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)


def _open(folder: int, where: str, mark: str, pid: int) -> int:
    """A file without a name in the open folder, whose path in the mounts of `pid` is `where`."""
    kind = filesystem.type_of_fd(folder, pid)
    if kind in _IN_MEMORY:  # newer kernels accept O_DIRECT there
        raise _no_direct(where, kind)
    flags = os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _no_direct(where, kind) from error
        if error.errno not in _NO_TMPFILE:
            raise
    name = f".{mark.replace(':', '-')}.burn"
    try:
        fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            os.unlink(name, dir_fd=folder)  # made before direct I/O was refused
            raise _no_direct(where, kind) from error
        raise
    os.unlink(name, dir_fd=folder)
    return fd


def _no_direct(folder: str, kind: str) -> Unsupported:
    return Unsupported(
        f"the {kind} file system of {folder} does no direct I/O to a disk",
        hint="name a folder on a disk, for example on ext4 or xfs",
    )


class Cells:
    """What each job has done, in memory that they share."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._memory = mmap.mmap(-1, jobs * _CELL.size)

    def add(self, job: int, size: int, nanoseconds: int) -> None:
        total, requests, spent = _CELL.unpack_from(self._memory, job * _CELL.size)
        cell = (total + size, requests + 1, spent + nanoseconds)
        _CELL.pack_into(self._memory, job * _CELL.size, *cell)

    def total(self) -> tuple[int, int, int]:
        """Bytes, requests and nanoseconds in requests, of all jobs."""
        cells = [_CELL.unpack_from(self._memory, job * _CELL.size) for job in range(self._jobs)]
        return sum(c[0] for c in cells), sum(c[1] for c in cells), sum(c[2] for c in cells)


class Burner:
    """One file and the jobs that work on it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._block, self._size = int(spec["block"]), int(spec["size"])
        self._write = _mode(spec["mode"])
        self._jobs = int(spec.get("jobs", 1))
        for name, value in (("block", self._block), ("size", self._size)):
            if value < ALIGNMENT or value % ALIGNMENT:
                raise InvalidParameter(name, value, f"a multiple of {ALIGNMENT} bytes")
        if not 1 <= self._jobs <= 64:
            raise InvalidParameter("jobs", self._jobs, "1 to 64")
        self._rate, self._amount = int(spec.get("rate", 0)), int(spec.get("amount", 0))
        join_groups(spec.get("join", ()))
        folder = files.open_folder(spec["folder"], root_of(spec))
        free = int(filesystem.space(folder).available * _KEPT_FREE)
        self._size = min(self._size, free) // self._block * self._block
        if self._size < self._block:
            raise InvalidParameter(
                "size", spec["size"], f"at least a block; {free} bytes may be taken"
            )
        self.lifetime = Lifetime(spec["deadline"])
        pid = spec["root"]["pid"] if spec.get("root") else 0
        self._fd = _open(folder, spec["folder"], spec["mark"], pid)
        os.close(folder)
        self.cells = Cells(self._jobs)

    def prepare(self) -> bool:
        """Write the file once where it is to be read; False when it is time to end already."""
        if self._write:
            return True
        buffer = _buffer(self._block)
        for offset in range(0, self._size, self._block):
            if self.lifetime.over():
                return False
            os.pwrite(self._fd, buffer, offset)
        os.fsync(self._fd)
        return True

    def work(self, job: int) -> int:
        """Read or write block after block; jobs begin at different places.

        At its share of the amount a job rests: it ends with the fault, as the others do.
        """
        buffer = _buffer(self._block)
        blocks = self._size // self._block
        number = blocks * job // self._jobs
        share = -(-self._amount // self._jobs)
        moved, started = 0, time.monotonic_ns()
        while not share or moved < share:
            offset = number % blocks * self._block
            begin = time.monotonic_ns()
            done = (
                os.pwrite(self._fd, buffer, offset)
                if self._write
                else os.preadv(self._fd, [buffer], offset)
            )
            self.cells.add(job, done, time.monotonic_ns() - begin)
            number, moved = number + 1, moved + done
            if self._rate:
                due = started + moved * self._jobs * 10**9 // self._rate
                time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        if self._write:
            os.fsync(self._fd)
        while True:
            signal.pause()

    def start(self) -> list[int]:
        """Fork the jobs."""
        return [
            self.lifetime.fork("fl-io-burn", lambda job=job: self.work(job))
            for job in range(self._jobs)
        ]

    def figures(self, begin: int) -> dict[str, Any]:
        """Totals since `begin` (monotonic nanoseconds), and rates."""
        size, requests, spent = self.cells.total()
        seconds = max(1, time.monotonic_ns() - begin) / 1e9
        return {
            "mode": "write" if self._write else "read",
            "file": self._size,
            "bytes": size,
            "requests": requests,
            "seconds": round(seconds, 3),
            "rate": round(size / seconds),
            "latency": round(spent / requests) if requests else 0,
        }


def _mode(text: str) -> bool:
    if text not in ("read", "write"):
        raise InvalidParameter("mode", text, "read or write")
    return text == "write"


def _buffer(size: int) -> mmap.mmap:
    """Memory aligned to a page, with data that nothing can compress."""
    buffer = mmap.mmap(-1, size)
    block = os.urandom(min(size, 1 << 20))
    for offset in range(0, size, len(block)):
        buffer[offset : offset + len(block)] = block[: size - offset]
    return buffer


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Burn until the deadline or SIGTERM; `ready` is told once a request was done."""
    figures = Figures(spec.get("stats", ""))
    burner = Burner(spec)
    if not burner.prepare():
        return 0
    begin = time.monotonic_ns()
    children = burner.start()
    told = False
    try:
        while not burner.lifetime.wait(1.0 if told else 0.02):
            for status in reap(children).values():
                if status and not burner.lifetime.over():
                    raise OSError(max(status, 0), f"a job ended with {status}", spec["folder"])
            now = burner.figures(begin)
            figures.publish(now)
            if not told and now["requests"]:
                ready(now)
                told = True
    finally:
        end_children(children)
    return 0
