"""Where the lines stand that we appended to somebody's file: one slot per line, written before
and after.

The file of slots is allocated when it is made, so that a full disk stops the lines and not the
book. A slot says before the write where the file ended then, and after it where the line really
begins; a writer that is killed in between leaves a slot from which the line is found again.

Each file that lines went to has a book of its own: a log that is rotated while we write gets one
more (`role`).
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Final

# magic, inode, device, birth, size before, slots, when the first line was written
_HEAD: Final = struct.Struct("<4sQQQQQQ")
_BEGUN: Final = struct.Struct("<Q")
_SLOT: Final = struct.Struct("<QQII")  # offset, length, checksum, state
_MAGIC: Final = b"FLl2"
_EMPTY, _BEFORE, _DONE = range(3)
_SEARCH: Final = 1 << 20  # bytes behind a noted end in which an unfinished line is looked for
MOST_FILES: Final = 8  # that lines are followed to; in the last one they go on


def role(what: str, number: int) -> str:
    """The role of a file of ours that belongs to file number `number` of those written to."""
    return what + (chr(ord("a") + number) if number else "")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of ours; `exact` says that it begins at `offset` and not somewhere behind."""

    offset: int
    length: int
    checksum: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """An open file of slots."""

    fd: int
    inode: int
    device: int
    birth: int  # with the inode it tells the file from others
    size: int  # of the target before the first line
    slots: int
    begun: int = 0  # when the first line was written, CLOCK_BOOTTIME ns; 0: not yet

    @classmethod
    def create(cls, fd: int, target: os.stat_result, birth: int, slots: int) -> Ledger:
        """Make the slots in an empty file; raises OSError (ENOSPC) when there is no room for
        them.
        """
        os.posix_fallocate(fd, 0, _HEAD.size + slots * _SLOT.size)
        made = cls(fd, target.st_ino, target.st_dev, birth, target.st_size, slots)
        head = _HEAD.pack(_MAGIC, made.inode, made.device, birth, made.size, slots, 0)
        os.pwrite(fd, head, 0)
        os.fsync(fd)
        return made

    def begin(self, now: int) -> None:
        """Note when the first line is written."""
        os.pwrite(self.fd, _BEGUN.pack(now), _HEAD.size - _BEGUN.size)

    @classmethod
    def open(cls, fd: int) -> Ledger | None:
        """The ledger in this file, or None if it was never finished."""
        head = os.pread(fd, _HEAD.size, 0)
        if len(head) < _HEAD.size:
            return None
        magic, *rest = _HEAD.unpack(head)
        return cls(fd, *rest) if magic == _MAGIC else None

    def append(self, slot: int, target: int, line: bytes) -> None:
        """Append one line to `target` (opened with O_APPEND) and note it in `slot`."""
        checksum = zlib.crc32(line)
        at = _HEAD.size + slot * _SLOT.size
        end = os.fstat(target).st_size
        os.pwrite(self.fd, _SLOT.pack(end, len(line), checksum, _BEFORE), at)
        try:
            done = os.write(target, line)
        except OSError:
            os.pwrite(self.fd, bytes(_SLOT.size), at)
            raise
        # With O_APPEND the kernel leaves our position at the end of what it wrote.
        begin = os.lseek(target, 0, os.SEEK_CUR) - done
        if done < len(line):  # the disk is full: what got there is ours as well
            checksum = zlib.crc32(line[:done])
        os.pwrite(self.fd, _SLOT.pack(begin, done, checksum, _DONE), at)

    def lines(self) -> list[Line]:
        """Every noted line, in the order of writing."""
        found: list[Line] = []
        for first in range(0, self.slots, 4096):
            count = min(4096, self.slots - first)
            data = os.pread(self.fd, count * _SLOT.size, _HEAD.size + first * _SLOT.size)
            for offset, length, checksum, state in _SLOT.iter_unpack(data):
                if state == _EMPTY:
                    return found
                found.append(Line(offset, length, checksum, state == _DONE))
        return found


def located(line: Line, target: int) -> tuple[int, int] | None:
    """The range of a line in the file now; None if it is not there as we wrote it."""
    if line.exact:
        data = os.pread(target, line.length, line.offset)
        same = len(data) == line.length and zlib.crc32(data) == line.checksum
        return (line.offset, line.offset + line.length) if same and line.length else None
    data = os.pread(target, _SEARCH, line.offset)
    at = 0
    while at + line.length <= len(data):
        if zlib.crc32(data[at : at + line.length]) == line.checksum:
            return line.offset + at, line.offset + at + line.length
        following = data.find(b"\n", at)
        if following < 0:
            return None
        at = following + 1
    return None
