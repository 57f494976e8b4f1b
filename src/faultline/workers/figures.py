"""What a worker measures while it works, readable by any other process at any time.

A small mapped file with two places that are written in turn, each with a number, a length and a
checksum. A reader takes the newest place that is whole, so it needs no lock and a worker that is
killed in the middle of writing leaves the figures before. The file is allocated when it is made, so
that a full disk cannot break the worker later.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import zlib
from typing import Any

_PLACE = 8192
_HEAD = struct.Struct("QII")  # number, length, checksum of number and text


class Figures:
    """The writer's end. An empty path keeps the figures to the worker itself."""

    def __init__(self, path: str) -> None:
        self._number = 0
        if not path:
            self._memory = mmap.mmap(-1, 2 * _PLACE)
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, bytes(2 * _PLACE))
            self._memory = mmap.mmap(fd, 2 * _PLACE)
        finally:
            os.close(fd)

    def publish(self, figures: dict[str, Any]) -> None:
        """Replace what readers see; raises ValueError above 8 KiB."""
        data = json.dumps(figures, separators=(",", ":")).encode()
        if len(data) > _PLACE - _HEAD.size:
            raise ValueError(f"{len(data)} bytes of figures do not fit")
        self._number += 1
        begin = self._number % 2 * _PLACE
        check = zlib.crc32(data, self._number)
        self._memory[begin + _HEAD.size : begin + _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._memory, begin, self._number, len(data), check)


def _newest(page: bytes) -> bytes | None:
    found: tuple[int, bytes] | None = None
    for begin in (0, _PLACE):
        number, length, check = _HEAD.unpack_from(page, begin)
        data = page[begin + _HEAD.size : begin + _HEAD.size + length]
        whole = number and len(data) == length and zlib.crc32(data, number) == check
        if whole and (found is None or number > found[0]):
            found = (number, data)
    return found[1] if found else None


def read(path: str, tries: int = 50) -> dict[str, Any] | None:
    """What the worker published last; None when there is no file or nothing was published yet."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        for _ in range(tries):
            page = os.pread(fd, 2 * _PLACE, 0)
            if len(page) < 2 * _PLACE or page == bytes(2 * _PLACE):
                return None
            data = _newest(page)
            if data is not None:
                return json.loads(data)
            # Both places changed while they were read, or the first is being written: once more.
            time.sleep(0.001)
        return None
    finally:
        os.close(fd)
