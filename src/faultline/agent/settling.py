"""Giving back what starting and working took, so that an idle agent stays small."""

from __future__ import annotations

import ctypes
import gc
import re
from contextlib import suppress

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) ")
_DONTNEED = 4  # madvise(2)


def settle() -> None:
    """Free memory goes back to the kernel, and so do pages of programs and libraries.

    Only mappings of files in which no page was ever changed (proc_pid_smaps(5)): what is used again
    comes from the page cache.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if trim := getattr(libc, "malloc_trim", None):  # glibc only
        trim(0)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with suppress(OSError):  # a kernel without smaps
        for start, end in _clean():
            libc.madvise(start, end - start, _DONTNEED)


def _clean() -> list[tuple[int, int]]:
    """The mappings that may be dropped."""
    found: list[tuple[int, int]] = []
    mapping = None
    with open("/proc/self/smaps") as lines:
        for line in lines:
            if about := _MAPPING.match(line):
                mapping = about
            elif mapping is not None and line.startswith("Anonymous:"):
                unchanged = line.split()[1] == "0"
                if unchanged and mapping[4] != "0" and "w" not in mapping[3]:
                    found.append((int(mapping[1], 16), int(mapping[2], 16)))
    return found
