"""Copying a file's content aside and writing it back in place, also on a full file system.

The inode stays, since programs hold it open. Three things make writing back safe: the blocks that
the change freed stay reserved for the file beyond its end (fallocate(2), FALLOC_FL_KEEP_SIZE);
what the file shall hold in the end is fixed in a small file before the first byte is written, so
that a killed undo is finished by the next; and only what differs is written.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from faultline.errors import ApplyFailed
from faultline.kernel import files, syscalls
from faultline.kernel.syscalls import Fallocate

CHUNK: Final = 1 << 16
_BLOCK: Final = 1 << 12
SLACK: Final = 1 << 18  # bytes kept ready for what a program may append meanwhile
MOST: Final = 16 << 20  # bytes of merged content that are handled in memory
_HEAD: Final = struct.Struct("<4sqqq")
_MAGIC: Final = b"FLr1"
_RESERVED: Final = b"R"
_NO_FALLOCATE: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Goal:
    """What the file shall hold: the original's first `at` bytes, then `payload`.

    A payload of None leaves what stands behind `at`. `source` names
    ranges of the file to be used as a payload that is too large for memory.
    """

    at: int
    payload: bytes | None = b""
    source: tuple[tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        """Of the payload; -1 where what stands there stays."""
        if self.source:
            return sum(high - low for low, high in self.source)
        return -1 if self.payload is None else len(self.payload)


def segments(fd: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """The ranges of a file that hold data, holes left out (lseek(2), SEEK_DATA)."""
    size = os.fstat(fd).st_size
    while start < size:
        try:
            low = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        high = os.lseek(fd, low, os.SEEK_HOLE)
        yield low, high
        start = high


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write at an offset, however often the kernel takes less."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        offset += done
        view = view[done:]


def copy_sparse(source: int, target: int) -> None:
    """Copy the content into an empty file with real blocks for data and none for holes.

    Blocks are not shared (reflink): writing to a shared block needs a new one, and there may be
    none.
    """
    for low, high in segments(source):
        for offset in range(low, high, CHUNK):
            data = os.pread(source, min(CHUNK, high - offset), offset)
            write_all(target, data, offset)
    os.ftruncate(target, os.fstat(source).st_size)
    os.fsync(target)


def keep_blocks(fd: int, backup: int, start: int) -> bool:
    """Reserve blocks for putting the backup's data from `start` on back, and a little more.

    False where the file system cannot reserve. Raises OSError (ENOSPC) when there is no room.
    """
    size = os.fstat(backup).st_size
    end = max(size, os.fstat(fd).st_size)
    try:
        for low, high in segments(backup, start):
            syscalls.fallocate(fd, Fallocate.KEEP_SIZE, low, high - low)
        syscalls.fallocate(fd, Fallocate.KEEP_SIZE, end, SLACK)
    except OSError as error:
        if error.errno in _NO_FALLOCATE:
            return False
        raise
    return True


def prepare(fd: int) -> None:
    """Reserve the blocks of the small file that an undo fixes its goal in."""
    files.reserve(fd, SLACK + _HEAD.size)


def note_reserved(fd: int) -> None:
    """Remember in the small file that the blocks are reserved."""
    write_all(fd, _RESERVED, 0)


def reserved(fd: int) -> bool:
    """Whether `note_reserved` was reached."""
    return os.pread(fd, 1, 0) == _RESERVED


@dataclass(frozen=True, slots=True)
class Fixed:
    """A goal that was written down: the original's first `at` bytes, then `length` more, -1 for
    as it is.

    `seen` is how large the file was then: what lies beyond was appended later and is kept.
    """

    at: int
    length: int
    seen: int

    @property
    def size(self) -> int:
        return self.at + max(0, self.length)


def fix(fd: int, goal: Goal, file: int, seen: int) -> None:
    """Write the goal into the small file, durably."""
    if os.fstat(fd).st_size > 1:
        os.ftruncate(fd, 0)
    if goal.source:
        end = _HEAD.size
        for low, high in goal.source:
            for offset in range(low, high, CHUNK):
                data = os.pread(file, min(CHUNK, high - offset), offset)
                write_all(fd, data, end)
                end += len(data)
    elif goal.payload:
        write_all(fd, goal.payload, _HEAD.size)
    write_all(fd, _HEAD.pack(_MAGIC, goal.at, goal.length, seen), 0)
    os.fsync(fd)


def fixed(fd: int) -> Fixed | None:
    """The goal in the small file."""
    head = os.pread(fd, _HEAD.size, 0)
    if len(head) < _HEAD.size:
        return None
    magic, *rest = _HEAD.unpack(head)
    return Fixed(*rest) if magic == _MAGIC else None


def begun(fd: int, goal: Fixed) -> bool:
    """Whether writing back may have begun: a file that must grow is given its size before all
    else.
    """
    return goal.size <= goal.seen or os.fstat(fd).st_size >= goal.size


def write_back(fd: int, backup: int, redo: int, goal: Fixed) -> None:
    """Bring the file to its goal; may be done again after it was cut off anywhere.

    `backup` is the file itself where its first bytes stay as they are.
    """
    if os.fstat(fd).st_size < goal.size:
        os.ftruncate(fd, goal.size)  # what is a hole stays one
    if backup != fd:
        _copy_differing(backup, fd, 0, 0, goal.at)
    if goal.length > 0:
        _copy_differing(redo, fd, _HEAD.size, goal.at, goal.length)
    now = end = os.fstat(fd).st_size
    if goal.length >= 0 and goal.size < goal.seen <= now:
        more = os.pread(fd, now - goal.seen, goal.seen)
        write_all(fd, more, goal.size)
        end = goal.size + len(more)
    os.ftruncate(fd, end)  # also lets go of the blocks reserved beyond the end
    os.fsync(fd)


def _copy_differing(source: int, target: int, low: int, offset: int, length: int) -> None:
    for done in range(0, length, CHUNK):
        size = min(CHUNK, length - done)
        data = os.pread(source, size, low + done)
        if len(data) != size:
            raise ApplyFailed(
                f"a file of ours is shorter than it was: {size} bytes at {low + done}"
            )
        found = os.pread(target, size, offset + done)
        if found == data:
            continue
        for at in range(0, size, _BLOCK):  # block by block, so that holes stay holes
            if found[at : at + _BLOCK] != data[at : at + _BLOCK]:
                write_all(target, data[at : at + _BLOCK], offset + done + at)


def same_head(one: int, two: int, length: int) -> bool:
    """Whether two files begin with the same `length` bytes."""
    for offset in range(0, length, CHUNK):
        size = min(CHUNK, length - offset)
        if os.pread(one, size, offset) != os.pread(two, size, offset):
            return False
    return True


def is_blank(fd: int, low: int, high: int) -> bool:
    """Whether a range holds zeros only, written or not."""
    return all(
        not any(os.pread(fd, min(CHUNK, high - offset), offset))
        for offset in range(low, high, CHUNK)
    )
