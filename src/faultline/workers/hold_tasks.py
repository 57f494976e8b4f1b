"""Fill a limit of tasks with threads that sleep: of a control group, of a user, or of the host.

A limit counts threads as it counts processes, and a thread costs a tenth. A child holds them and
tries again and again to start one more, which the kernel must refuse as it refuses everybody who is
held to that limit; the parent only watches.

Order (spec), beside `deadline` and `stats`: `count`, at most so many of ours; `leave`, so many are
left; `join`, folders of control groups; and one of `group` {version, folder}, the control group
with the limit; `user` {uid, gid, limit}; neither for the host.
"""

from __future__ import annotations

import _thread
import mmap
import os
import resource
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from faultline.errors import Refused
from faultline.kernel import cgroup_limits, tables
from faultline.workers.figures import Figures
from faultline.workers.join import group_from, join_groups
from faultline.workers.lifetime import Lifetime, become, end_children, reap

LIMIT: Final = 30_000  # threads of one process: each has two mappings, of 65530
_LOOK: Final = 0.2  # seconds between two tries once it is full
_BATCH: Final = 500  # threads between two looks
_STACK: Final = 65536  # bytes


class Report:
    """What the child tells the parent, in memory that they share."""

    _CELL = struct.Struct("qqq")  # threads held, tries refused, whether all that was asked is there

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._CELL.size)

    def tell(self, held: int, refused: int, done: bool) -> None:
        self._CELL.pack_into(self._memory, 0, held, refused, done)

    def told(self) -> tuple[int, int, bool]:
        held, refused, done = self._CELL.unpack_from(self._memory)
        return held, refused, bool(done)


class Holder:
    """The child: takes what room there is, and asks for one more now and then."""

    def __init__(self, spec: dict[str, Any], report: Report) -> None:
        self._report = report
        self._count, self._leave = int(spec["count"]), int(spec["leave"])
        self._group = group_from(spec["group"]) if spec.get("group") else None
        self._user = spec.get("user")
        self._gate = _thread.allocate_lock()
        self._gate.acquire()
        self._held = self._refused = 0
        join_groups(spec.get("join", ()))

    def run(self) -> int:
        """Hold, for ever."""
        threading.stack_size(_STACK)
        if self._user:
            limit = max(1, int(self._user["limit"]) - self._leave)
            resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
            become(self._user["uid"], self._user["gid"])
        while True:
            room = self._room()
            wanted = min(self._count - self._held, room, _BATCH)
            started = self._start(wanted)
            full = started < wanted
            done = full or self._held >= self._count or room <= 0
            self._report.tell(self._held, self._refused, done)
            if done or not started:
                time.sleep(_LOOK)

    def _room(self) -> int:
        """How many more shall be taken; one beyond the limit is tried where none is to be left."""
        if self._user:  # its own limit says so
            return _BATCH
        if self._group is None:
            left = tables.task_limit() - tables.tasks()
        else:
            limit = self._group.read("pids.max")
            left = LIMIT if limit == "max" else int(limit) - cgroup_limits.pids_current(self._group)
        return left + 1 if self._leave == 0 else left - self._leave

    def _start(self, wanted: int) -> int:
        for number in range(wanted):
            try:
                _thread.start_new_thread(self._gate.acquire, ())
            except RuntimeError:  # the kernel has refused it
                self._refused += 1
                return number
            self._held += 1
        return max(0, wanted)


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Fill until the deadline or SIGTERM."""
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    report = Report()
    child = lifetime.fork("fl-hold-tasks", lambda: Holder(spec, report).run())
    told = False
    try:
        while not lifetime.wait(_LOOK if told else 0.02):
            for status in reap([child]).values():
                if status > 0:
                    raise OSError(status, f"tasks could not be held: {os.strerror(status)}")
                raise Refused("somebody has ended the process that held the tasks")
            held, refused, done = report.told()
            now = {"held": held, "refused": refused, "holder": child}
            figures.publish(now)
            if done and not told:
                ready({**now, "stats": spec.get("stats", "")})
                told = True
    finally:
        end_children([child])
    return 0
