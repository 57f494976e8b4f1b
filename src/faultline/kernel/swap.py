"""What the kernel swaps to: /proc/swaps, and turning each on and off (swapon(2))."""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass
from typing import Final

from faultline.kernel import syscalls
from faultline.kernel.procfs import PROC

_PREFER: Final = 0x8000
_HIGHEST: Final = 0x7FFF
_SIGNATURE: Final = b"SWAPSPACE2"  # mkswap(8) writes it at the end of the first page


@dataclass(frozen=True, slots=True)
class Area:
    """A device or a file that is swapped to; sizes in bytes.

    A priority below zero was given by the kernel itself, in the order of turning them on.
    """

    path: str
    type: str  # partition, file
    size: int
    used: int
    priority: int

    def on(self, path: str = "") -> None:
        """Swap to it again, by its own path or another one that leads to it; raises OSError."""
        flags = _PREFER | min(self.priority, _HIGHEST) if self.priority >= 0 else 0
        syscalls.swapon(path or self.path, flags)

    def formatted(self) -> bool:
        """Whether it is there and still has the signature that swapon(2) asks for."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.pread(fd, len(_SIGNATURE), mmap.PAGESIZE - len(_SIGNATURE)) == _SIGNATURE
        except OSError:
            return False
        finally:
            os.close(fd)

    def off(self) -> None:
        """Swap to it no more; raises OSError, ENOMEM where what is in it does not fit."""
        syscalls.swapoff(self.path)


def parse(text: str) -> list[Area]:
    """Read /proc/swaps (proc_swaps(5)); blanks in a path are written in octal."""
    found: list[Area] = []
    for line in text.splitlines()[1:]:
        path, kind, size, used, priority = line.split()
        path = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)
        found.append(Area(path, kind, int(size) * 1024, int(used) * 1024, int(priority)))
    return found


def areas() -> list[Area]:
    """Everything that is swapped to now, the first turned on first."""
    return parse((PROC / "swaps").read_text())
