"""Faults of processes: ended by a signal, crashed, stopped, slowed down, limited, too many.

Targets are found while planning and kept by pid and start time, so that nobody who is given the
same pid later is ever hit. What keeps the machine and the way to it running is refused unless
allowed by name.
"""

from __future__ import annotations

from faultline.faults.process.attributes import ProcessLimit, ProcessPriority
from faultline.faults.process.children import ProcessFork, ProcessZombie
from faultline.faults.process.signals import ProcessCrash, ProcessKill, ProcessStop

__all__ = [
    "ProcessCrash",
    "ProcessFork",
    "ProcessKill",
    "ProcessLimit",
    "ProcessPriority",
    "ProcessStop",
    "ProcessZombie",
]
