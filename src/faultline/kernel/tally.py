"""What single processes have used so far, with one short read of each file (proc_pid_stat(5),
proc_pid_io(5)).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from faultline.kernel.cpustat import TICKS_PER_SECOND
from faultline.kernel.procfs import PROC

_PAGE = os.sysconf("SC_PAGE_SIZE")
_NS = 1_000_000_000 // TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one instant; `cpu` (ns) holds the ended children that it has waited for."""

    ppid: int
    start: int
    cpu: int
    resident: int  # bytes


def usage(pid: int) -> Usage | None:
    """What a process has used; None when it is gone or a zombie whose parent has not looked."""
    try:
        with open(PROC / str(pid) / "stat", "rb", buffering=0) as file:
            text = file.read(2048)
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(b")")[2].split()
    cpu = sum(map(int, fields[11:15])) * _NS  # user, system, and both of its children
    return Usage(int(fields[1]), int(fields[19]), cpu, int(fields[21]) * _PAGE)


def transfers(pid: int) -> tuple[int, int] | None:
    """Bytes that a process had read from and written to block devices, with the ended children that
    it has waited for; None when it is gone, or not ours to see.
    """
    try:
        with open(PROC / str(pid) / "io", "rb", buffering=0) as file:
            text = file.read(1024)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    values = [int(line.rpartition(b" ")[2]) for line in text.splitlines()]
    return values[4], values[5]


def tree(pid: int) -> list[int]:
    """A process and all that it started, as far as they have parents; [] when it is gone.

    Reads one file of every process there is.
    """
    found: dict[int, list[int]] = {}
    alive = False
    for name in os.listdir(PROC):
        if name.isdigit() and (one := usage(int(name))) is not None:
            found.setdefault(one.ppid, []).append(int(name))
            alive = alive or int(name) == pid
    members = [pid] if alive else []
    for member in members:  # grows as it is walked
        members += found.get(member, [])
    return members
