"""Raise the load average without using the processor: tasks in uninterruptible sleep.

A process that made a child by clone(2) with CLONE_VFORK sleeps uninterruptibly until the child
ends, and the load average counts it. A chain of them, each the child of the one before, holds
`count` tasks in that state. Only SIGKILL wakes them; the parent of the chain sends it, and the
kernel does when a parent dies or the deadline comes. The average has a memory of a minute, so the
proof of effect is the number of tasks that wait now.

Order (spec), beside `deadline` and `stats`: `count`, 1 to 4096; `join`, folders of control groups
that the chain stands in.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from faultline.errors import InvalidParameter
from faultline.kernel import cpustat, procfs, syscalls
from faultline.workers.figures import Figures
from faultline.workers.join import join_groups
from faultline.workers.lifetime import Lifetime, end_children

LIMIT: Final = 4096
_SLOT: Final = struct.Struct("i")
_BUILD: Final = 20.0  # seconds that the chain may take to stand


class Chain:
    """The pids of all links, in memory that they share."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._memory = mmap.mmap(-1, (count + 1) * _SLOT.size)

    def pids(self) -> list[int]:
        """The links that have reported, the first first; `count` of them wait."""
        slots = (_SLOT.unpack_from(self._memory, i * _SLOT.size)[0] for i in range(self._count + 1))
        return [pid for pid in slots if pid]

    def link(self, lifetime: Lifetime) -> int:
        """The body of the first link and, as its descendants, of all others; never returns to
        Python code of the caller in more than one process that goes on.
        """
        for index in range(self._count):
            parent = os.getpid()
            _SLOT.pack_into(self._memory, index * _SLOT.size, parent)
            if syscalls.fork_and_wait():
                return 0  # our child has ended: so do we
            lifetime.adopt(parent)
        _SLOT.pack_into(self._memory, self._count * _SLOT.size, os.getpid())
        while True:
            signal.pause()


def waiting(pids: list[int]) -> int:
    """How many of these processes are in uninterruptible sleep."""
    return procfs.thread_states(pids)["D"]


def _figures(chain: Chain, count: int) -> dict[str, Any]:
    average = cpustat.load_average()
    return {
        "asked": count,
        "waiting": waiting(chain.pids()),
        "load": [average.one, average.five, average.fifteen],
    }


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Hold `count` waiting tasks until the deadline or SIGTERM."""
    count = int(spec["count"])
    if not 1 <= count <= LIMIT:
        raise InvalidParameter("count", count, f"1 to {LIMIT}")
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    chain = Chain(count)
    join: list[str] = spec.get("join", [])

    def stand() -> int:
        join_groups(join)
        return chain.link(lifetime)

    syscalls.set_child_subreaper()  # links whose parent died become ours to wait for
    first = lifetime.fork("fl-load", stand)
    try:
        begin = time.monotonic()
        while len(chain.pids()) <= count or waiting(chain.pids()) < count:
            if time.monotonic() > begin + _BUILD:
                raise TimeoutError(f"only {waiting(chain.pids())} of {count} tasks wait")
            if lifetime.wait(0.01):
                return 0
        now = _figures(chain, count)
        figures.publish(now)
        ready(now)
        while not lifetime.wait(1.0):
            figures.publish(_figures(chain, count))
    finally:
        end_children([first, *chain.pids()[1:]])
        _reap_all()
    return 0


def _reap_all() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
