"""A log file from the moment at which a run began: over rotation and truncation, with the time at
which each line was written.

While the run goes on only the size of the file is looked at, once a second; it is read when the run
has ended. What was written between two looks was written then.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faultline.errors import ObserveFailed

LARGEST = 32 << 20
"""Bytes that are read of one log; of more, the first half and the last."""
_MEMORY = 64  # bytes by which a file is known
_KEPT = 20_000  # looks at which it had grown


@dataclass(frozen=True, slots=True)
class Piece:
    """A line with where it ends, of which file."""

    inode: int
    end: int
    text: bytes


class Growth:
    """How large a file was, and when. One thread looks, any may ask."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._sizes: list[tuple[int, int, float]] = []  # inode, size, unix time

    def look(self) -> None:
        """Note its size, if it is another one than before."""
        try:
            found = Path(self.path).stat()
        except OSError:
            return
        last = self._sizes[-1][:2] if self._sizes else None
        if last != (found.st_ino, found.st_size) and len(self._sizes) < _KEPT:
            self._sizes.append((found.st_ino, found.st_size, time.time()))

    def when(self, inode: int, end: int) -> float | None:
        """When the file had first grown as far; None if that was not seen."""
        sizes = [(size, at) for found, size, at in self._sizes if found == inode]
        place = bisect_left(sizes, (end, 0.0))
        return sizes[place][1] if place < len(sizes) else None


def mark(path: str) -> dict[str, int | str]:
    """Where a file ends now; it need not exist yet.

    An inode is used again at once, so a digest of what stands before that place is kept as well.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return {"path": path, "inode": 0, "offset": 0, "before": ""}
    try:
        found = os.fstat(fd)
        size = found.st_size if stat.S_ISREG(found.st_mode) else 0
        return {"path": path, "inode": found.st_ino, "offset": size, "before": _before(fd, size)}
    finally:
        os.close(fd)


def _before(fd: int, offset: int) -> str:
    """A digest of the last bytes before a place; '' where there are none."""
    length = min(offset, _MEMORY)
    data = os.pread(fd, length, offset - length) if length else b""
    return hashlib.sha256(data).hexdigest()[:16] if data else ""


def pieces(begin: dict[str, int | str], notes: list[str]) -> Iterator[Piece]:
    """The lines that were written since the mark, oldest first. What is missing is told in `notes`.

    Raises ObserveFailed if the file cannot be read.
    """
    path = Path(str(begin["path"]))
    left = LARGEST
    for file, start in _parts(path, int(begin["inode"]), int(begin["offset"]), notes):
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ObserveFailed(f"{file}: {error.strerror}") from error
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise ObserveFailed(f"{file} is not a regular file")
            same = not start or _before(fd, start) == begin["before"]
            offset = start if same and found.st_size >= start else 0
            if offset < start:
                notes.append("it was emptied or replaced meanwhile; what it held before is gone")
            size = found.st_size - offset
            if size > left:
                notes.append(f"{size - left} bytes in the middle of it were not read")
            yield from _lines(fd, found.st_ino, offset, min(size, left), size)
            left = max(0, left - size)
        finally:
            os.close(fd)


def _parts(path: Path, inode: int, offset: int, notes: list[str]) -> list[tuple[Path, int]]:
    """The files that hold what was written since: the marked one, wherever it has been moved, those
    that came after it, and the present one.
    """
    try:
        now = path.stat()
    except OSError as error:
        raise ObserveFailed(f"{path}: {error.strerror}") from error
    if not inode:
        return [(path, 0)]
    if now.st_ino == inode:
        return [(path, offset)]
    around: list[tuple[float, int, Path]] = []
    for each in path.parent.iterdir():
        # access.log.1, access-20260101.log; what is packed is not looked into
        if each != path and each.name.startswith(path.stem) and each.suffix not in (".gz", ".xz"):
            found = each.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                around.append((found.st_mtime, found.st_ino, each))
    around.sort()
    old = next((number for number, each in enumerate(around) if each[1] == inode), None)
    if old is None:
        notes.append("it was replaced meanwhile, and the file of before is not beside it")
        return [(path, 0)]
    moved = [(each[2], 0) for each in around[old + 1 :]]
    return [(around[old][2], offset), *moved, (path, 0)]


def _lines(fd: int, inode: int, offset: int, wanted: int, size: int) -> Iterator[Piece]:
    """Lines of a stretch; if less of it is wanted than there is, of its beginning and its end."""
    if wanted >= size:
        yield from _stretch(fd, inode, offset, size)
    else:
        half = wanted // 2
        yield from _stretch(fd, inode, offset, half)
        yield from _stretch(fd, inode, offset + size - half, half)


def _stretch(fd: int, inode: int, start: int, length: int) -> Iterator[Piece]:
    at, rest, stop = start, b"", start + length
    while at < stop and (data := os.pread(fd, min(1 << 20, stop - at), at)):
        base = at - len(rest)
        at += len(data)
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            base += len(line) + 1
            if line:
                yield Piece(inode, base, line)
        if len(rest) > 1 << 16:  # a line that never ends
            yield Piece(inode, at, rest)
            rest = b""
    if rest:
        yield Piece(inode, at, rest)
