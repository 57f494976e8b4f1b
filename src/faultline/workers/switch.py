"""Make the kernel switch between tasks as often as it can: pairs that hand a token to and fro.

The two of a pair are pinned to one core and wait for each other, so that each step of the token is
a switch from one to the other; there is no arithmetic in between.

Order (spec), beside `deadline` and `stats`: `count` pairs, 1 to 1024; `cores`, over which they are
spread; `join`, folders of control groups that the pairs work in.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from faultline.errors import InvalidParameter
from faultline.kernel import procfs
from faultline.workers.figures import Figures
from faultline.workers.join import join_groups
from faultline.workers.lifetime import Lifetime, end_children, reap

LIMIT: Final = 1024  # pairs
_LOOK: Final = 0.5  # seconds between two looks at the kernel's counters


def _hand_on(take: int, give: int) -> int:
    """Pass on whatever comes, for ever; ends when the other one has."""
    while token := os.read(take, 1):
        os.write(give, token)
    return 0


class Pairs:
    """The parent: keeps the pairs alive."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._count = int(spec["count"])
        if not 1 <= self._count <= LIMIT:
            raise InvalidParameter("count", self._count, f"1 to {LIMIT}")
        self._cores: list[int] = spec.get("cores") or sorted(os.sched_getaffinity(0))
        self._join: list[str] = spec.get("join", [])
        self._lifetime = Lifetime(spec["deadline"])
        self._figures = Figures(spec.get("stats", ""))
        self._members: dict[int, int] = {}  # pid: number of its pair
        self._restarts = 0

    def _spawn(self, pair: int) -> None:
        first, second = os.pipe(), os.pipe()
        os.write(second[1], b"!")  # the token
        ends = ((first[0], second[1]), (second[0], first[1]))
        for take, give in ends:
            others = [fd for fd in (*first, *second) if fd not in (take, give)]
            member = partial(self._be, take, give, pair, others)
            self._members[self._lifetime.fork("fl-switch", member)] = pair
        for fd in (*first, *second):
            os.close(fd)

    def _be(self, take: int, give: int, pair: int, others: list[int]) -> int:
        for fd in others:  # so that each ends when the other one has
            os.close(fd)
        join_groups(self._join)
        os.sched_setaffinity(0, {self._cores[pair % len(self._cores)]})
        return _hand_on(take, give)

    def _replace(self) -> None:
        """Start a pair anew that somebody ended; one that could not do its work ends all."""
        lost: set[int] = set()
        for pid, status in reap(list(self._members)).items():
            lost.add(self._members.pop(pid))
            if status > 0 and status != errno.EPIPE:
                raise OSError(status, os.strerror(status))
        if lost and not self._lifetime.over():
            end_children([pid for pid, pair in self._members.items() if pair in lost])
            self._members = {pid: pair for pid, pair in self._members.items() if pair not in lost}
            self._restarts += len(lost)
            for pair in lost:
                self._spawn(pair)

    def run(self, ready: Callable[[dict[str, Any]], None]) -> int:
        """Switch until it is time to end; `ready` is told after the first interval."""
        told = False
        try:
            for pair in range(self._count):
                self._spawn(pair)
            before, when = switches(list(self._members)), time.monotonic()
            while not self._lifetime.wait(_LOOK):
                self._replace()
                now, then = switches(list(self._members)), time.monotonic()
                own = sum(now[pid] - before.get(pid, 0) for pid in now)
                rate = round(max(0, own) / (then - when))
                figures = {"asked": self._count, "rate": rate, "restarts": self._restarts}
                before, when = now, then
                self._figures.publish(figures)
                if not told:
                    ready(figures)
                    told = True
        finally:
            end_children(list(self._members))
        return 0


def switches(pids: list[int]) -> dict[int, int]:
    """How often the kernel has switched away from each of these processes; none that has ended."""
    found: dict[int, int] = {}
    for pid in pids:
        fields = procfs.status(pid)
        if fields:
            names = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
            found[pid] = sum(int(fields.get(name, "0")) for name in names)
    return found


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Switch as ordered until the deadline or SIGTERM."""
    return Pairs(spec).run(ready)
