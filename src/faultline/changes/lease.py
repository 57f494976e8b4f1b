"""Leases: faults that end when nobody says any more that they are still wanted.

Whoever wants them (an agent) writes into a file in memory until when he can be relied upon, an
instant of CLOCK_BOOTTIME, and moves it forward again and again. Keepers hold that file open from
before the fault and read it at every turn: when the instant has passed they undo all that names the
lease, whether or not anybody else is alive. It shortens a fault, it never lengthens one.
"""

from __future__ import annotations

import os
from pathlib import Path

_DIGITS = 20
_LENGTH = 2 * _DIGITS + 2
_LOOKS = 3  # at a file that is just being written


def path(run: Path, name: str) -> Path:
    """Where the lease of this name lies in the run folder of a store."""
    return run / "leases" / name


def renew(run: Path, name: str, until: int) -> None:
    """Say that what names this lease is wanted until then, nanoseconds of CLOCK_BOOTTIME.

    The file is written in place, since keepers hold it open. Raises OSError.
    """
    file = path(run, name)
    try:
        fd = _open(file)
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        fd = _open(file)
    try:
        # Twice, so that a reader sees whether it came in the middle.
        os.pwrite(fd, f"{until:0{_DIGITS}d} {until:0{_DIGITS}d}\n".encode(), 0)
    finally:
        os.close(fd)


def _open(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class Lease:
    """A lease, held open by whoever ends faults with it. One that does not exist is over."""

    def __init__(self, run: Path, name: str) -> None:
        self.name = name
        self._seen = 0
        try:
            self._fd = os.open(path(run, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1

    def until(self) -> int:
        """Until when it holds, as it was last said."""
        if self._fd < 0:
            return 0
        for _ in range(_LOOKS):
            one, _, two = os.pread(self._fd, _LENGTH, 0).decode().strip().partition(" ")
            if one == two and one.isdigit():
                self._seen = int(one)
                break
        return self._seen

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
