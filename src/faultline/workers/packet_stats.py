"""What the packet engine measures of itself, in shared memory that any process can read.

Layout (native 64-bit words): a sequence number that is odd while the writer writes, a magic, the
fields of `FIELDS`, then two histograms: how late packets were released, and how long they were
held. The buckets are logarithmic with 16 steps an octave, so a percentile is right within 3 %.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

MAGIC: Final = 0x464C504B54535431  # "FLPKTST1"
FIELDS: Final = (
    "pid",
    "beat",  # CLOCK_BOOTTIME, nanoseconds: when this was written
    "started",
    "matched",
    "passed",  # seen and not matched: sent on at once
    "released",
    "lost",
    "duplicated",
    "corrupted",
    "reordered",
    "overflowed",
    "refused",  # the kernel did not take the packet back
    "held",  # packets held now
    "held_bytes",
    "worst",  # the largest error, nanoseconds
)
BUCKETS: Final = 640  # 16 an octave up to 2**42 nanoseconds (more than an hour)
_FIRST: Final = 2 + len(FIELDS)
WORDS: Final = _FIRST + 2 * BUCKETS
SIZE: Final = WORDS * 8
_TRIES: Final = 1000
_BEAT: Final = struct.Struct("=QQQ")  # behind the sequence number: magic, pid, beat


def bucket(value: int) -> int:
    """The bucket of a duration in nanoseconds."""
    if value < 32:
        return max(0, value)
    octave = value.bit_length() - 5
    return min(BUCKETS - 1, octave * 16 + (value >> octave))


def bucket_value(index: int) -> int:
    """The middle of a bucket, in nanoseconds."""
    if index < 32:
        return index
    octave, step = divmod(index - 16, 16)
    return ((step + 16) << octave) + (1 << octave) // 2


def percentile(counts: Sequence[int], share: float) -> int | None:
    """The duration that `share` (0 to 1) of the counted ones do not exceed; None of none."""
    total = sum(counts)
    if not total:
        return None
    wanted, seen = share * total, 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= wanted and count:
            return bucket_value(index)
    return None


@dataclass(frozen=True, slots=True)
class Statistics:
    """One consistent reading."""

    fields: dict[str, int]
    error: tuple[int, ...]  # histogram: distance of the release from its time
    holding: tuple[int, ...]  # histogram: release minus arrival

    def as_dict(self) -> dict[str, int | None]:
        """The fields and the percentiles, nanoseconds, for JSON."""
        out: dict[str, int | None] = dict(self.fields)
        for name, counts in (("error", self.error), ("holding", self.holding)):
            for share in (50, 95, 99):
                out[f"{name}_p{share}"] = percentile(counts, share / 100)
        return out


class Told(Protocol):
    """Where an engine tells what it did."""

    error: list[int]
    holding: list[int]

    def publish(self, fields: dict[str, int]) -> None:
        """Replace what readers see."""
        ...


class Page:
    """The writer's side: plain lists that are copied into the shared memory now and then."""

    def __init__(self, path: str) -> None:
        """Make the file (mode 0644); with an empty path the memory is private to this process."""
        if path:
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
            )
        else:
            fd = os.memfd_create("packets", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, SIZE)
            self._memory = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self.error = [0] * BUCKETS
        self.holding = [0] * BUCKETS
        self._sequence = 0
        self._layout = struct.Struct(f"={WORDS - 1}Q")

    def publish(self, fields: dict[str, int]) -> None:
        """Replace what readers see."""
        values = [fields[name] for name in FIELDS]
        struct.pack_into("=Q", self._memory, 0, self._sequence + 1)
        self._layout.pack_into(self._memory, 8, MAGIC, *values, *self.error, *self.holding)
        self._sequence += 2
        struct.pack_into("=Q", self._memory, 0, self._sequence)


def read(path: str) -> Statistics | None:
    """What the engine published last; None when there is nothing whole to read (yet)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size < SIZE:
            return None
        with mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as memory:
            return _read(memory)
    finally:
        os.close(fd)


def beat(path: str) -> int | None:
    """When the engine published last (CLOCK_BOOTTIME, ns); None when there is no such page."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.pread(fd, _BEAT.size, 8)
    finally:
        os.close(fd)
    if len(found) < _BEAT.size:
        return None
    magic, _, value = _BEAT.unpack(found)
    return value if magic == MAGIC else None


def _read(memory: mmap.mmap) -> Statistics | None:
    for _ in range(_TRIES):
        before = memory[:8]
        words = struct.unpack(f"={WORDS}Q", memory[:SIZE])
        if words[0] % 2 == 0 and words[1] == MAGIC and memory[:8] == before:
            return Statistics(
                dict(zip(FIELDS, words[2:_FIRST], strict=True)),
                words[_FIRST : _FIRST + BUCKETS],
                words[_FIRST + BUCKETS :],
            )
    return None
