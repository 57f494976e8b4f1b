"""Hold the measured use of processor cores, or of a quota, at a percentage.

One child for each core works in slices of 50 ms and counts its own work by thread CPU time. Twice a
second the parent compares what the kernel counted for the whole core with what was asked: what
others use is left to them, and only the rest is burnt, so that the total is held and not our share
of it. What others use beyond the asked level cannot be lowered; that is reported as `above`.

Order (spec), beside `deadline` and `stats` (a path): percent  0 to 100 scope    "cores": each of
`cores` at that percent; "all": the sum over `cores` at that percent; "group": of `group` cores
core numbers; for "group" the cores that its tasks may use group    {usage: {version, folder},
quota: cores as a number} join  folders of control groups that the children work in; the parent
stays outside, so that no quota keeps it from looking rivals  so many children for each core that
work without a pause, instead of one that leaves others what they use
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from faultline.errors import InvalidParameter
from faultline.kernel import cgroup_limits, cpustat
from faultline.kernel.cgroup import Group
from faultline.workers.figures import Figures
from faultline.workers.join import group_from, join_groups
from faultline.workers.lifetime import Lifetime, end_children, reap

SLICE: Final = 0.05  # seconds: shorter than any averaging window, longer than scheduling noise
CORRECTION: Final = 0.5  # seconds between two looks at the kernel's counters
_WINDOW: Final = 20  # corrections that the published mean covers
_GAIN: Final = 0.3  # share of the remaining error that one correction takes back
_JUMP: Final = 0.1  # cores; a larger step in what others use is no noise
_ROUNDS: Final = 200  # of arithmetic between two looks at the clock: some 10 microseconds


class Board:
    """Memory shared with the children: for each, the share it should burn and what it has burnt."""

    _CELL = struct.Struct("dq")

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, max(mmap.PAGESIZE, count * self._CELL.size))

    def order(self, index: int, share: float) -> None:
        struct.pack_into("d", self._memory, index * self._CELL.size, share)

    def ordered(self, index: int) -> float:
        return struct.unpack_from("d", self._memory, index * self._CELL.size)[0]

    def tell(self, index: int, burnt: int) -> None:
        struct.pack_into("q", self._memory, index * self._CELL.size + 8, burnt)

    def told(self, index: int) -> int:
        return struct.unpack_from("q", self._memory, index * self._CELL.size + 8)[0]


def work(board: Board, index: int, count: int) -> int:
    """Burn what the board orders, for ever. The children's slices are spread evenly over time."""
    begin = time.monotonic() + SLICE * index / count
    excess = 0
    base = board.told(index)  # of a predecessor that somebody killed
    while True:
        now = time.monotonic()
        if now < begin:
            time.sleep(begin - now)
        start = time.thread_time_ns()
        budget = int(board.ordered(index) * SLICE * 1e9) - excess
        used = 0
        # A slice that others cut short is given up at its end, not carried on.
        while used < budget and time.monotonic() < begin + SLICE:
            spin(_ROUNDS)
            used = time.thread_time_ns() - start
        excess = max(0, used - budget) if budget > 0 else max(0, -budget)
        board.tell(index, base + time.thread_time_ns())
        begin += SLICE
        if begin < time.monotonic() - SLICE:  # far behind: the machine slept or was full
            begin = time.monotonic()


def spin(rounds: int) -> int:
    """Arithmetic of no use."""
    value = 1
    for number in range(rounds):
        value = (value * 31 + number) & 0xFFFF
    return value


@dataclass(slots=True)
class Sample:
    """What was counted in one interval, in cores: in total, and of that by us."""

    total: list[float]  # one figure for each controlled unit: a core, or the one group
    own: list[float]


class CoreMeter:
    """Counts the use of cores by /proc/stat."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores
        self._last = cpustat.core_times()

    def read(self) -> list[float]:
        """Use of each core since the last call, 0 to 1; 0 for one that went offline."""
        now = cpustat.core_times()
        before, self._last = self._last, now
        nothing = cpustat.CoreTimes(0, 0)
        return [
            (now.get(core, nothing) - before.get(core, nothing)).percent / 100
            for core in self._cores
        ]


class GroupMeter:
    """Counts the use of a control group by its own counter."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._last = (time.monotonic_ns(), cgroup_limits.cpu_usage(group))

    def read(self) -> list[float]:
        """Cores' worth of use since the last call."""
        now = (time.monotonic_ns(), cgroup_limits.cpu_usage(self._group))
        before, self._last = self._last, now
        return [(now[1] - before[1]) / max(1, now[0] - before[0])]


def level(others: Sequence[float], goal: float) -> list[float]:
    """How much of each core to use, in total, so that the mean is `goal`.

    Cores whose others use more than an even share keep that; the rest share what remains evenly.
    """
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if sum(max(other, middle) for other in others) < goal * len(others):
            low = middle
        else:
            high = middle
    return [max(other, high) for other in others]


@dataclass(slots=True)
class Controller:
    """From what was counted to what the children should burn."""

    percent: float
    scope: str
    capacity: float  # of one unit in cores: 1 for a core, the quota of a group
    workers: int
    _others: list[float] = field(default_factory=list[float])
    _bias: list[float] = field(default_factory=list[float])
    _recent: deque[float] = field(default_factory=lambda: deque[float](maxlen=_WINDOW))

    @property
    def goal(self) -> float:
        return self.percent / 100 * self.capacity

    def start(self) -> list[float]:
        """The first shares, before anything was counted."""
        units = 1 if self.scope == "group" else self.workers
        self._others = [0.0] * units
        self._bias = [0.0] * units
        return self._shares([self.goal] * units)

    def correct(self, sample: Sample) -> list[float]:
        """New shares for the children after one interval."""
        seen = [max(0.0, t - o) for t, o in zip(sample.total, sample.own, strict=True)]
        settled = [abs(a - b) < _JUMP for a, b in zip(self._others, seen, strict=True)]
        # Small news is half noise, since one interval counts only 50 ticks of a core.
        self._others = [
            (old + new) / 2 if same else new
            for old, new, same in zip(self._others, seen, settled, strict=True)
        ]
        if self.scope == "all":
            goals = level(self._others, self.goal)
        else:
            goals = [self.goal] * len(sample.total)
        for unit, (goal, total) in enumerate(zip(goals, sample.total, strict=True)):
            # Where others leave us nothing, or we burn all there is, the error teaches nothing.
            free = seen[unit] < goal and (total > goal or sample.own[unit] < 0.98 * self.capacity)
            if free and settled[unit]:
                limit = 0.2 * self.capacity
                bias = self._bias[unit] + _GAIN * (goal - total)
                self._bias[unit] = max(-limit, min(limit, bias))
        self._recent.append(sum(sample.total) / len(sample.total) / self.capacity * 100)
        return self._shares(goals)

    def _shares(self, goals: Sequence[float]) -> list[float]:
        units = zip(goals, self._others, self._bias, strict=True)
        own = [max(0.0, goal - other + bias) for goal, other, bias in units]
        if self.scope == "group":
            own = [own[0] / self.workers] * self.workers
        return [min(1.0, share) for share in own]

    def figures(self, sample: Sample) -> dict[str, Any]:
        """What is published and told when the effect is there."""
        scale = 100 / self.capacity
        others = [value * scale for value in self._others]
        mean_others = sum(others) / len(others)
        above = max(others) if self.scope == "cores" else mean_others
        return {
            "asked": self.percent,
            "measured": round(self._recent[-1], 2),
            "mean": round(sum(self._recent) / len(self._recent), 2),
            "window": len(self._recent) * CORRECTION,
            "units": [round(value * scale, 1) for value in sample.total],
            "own": round(sum(sample.own) / len(sample.own) * scale, 2),
            "others": round(mean_others, 2),
            # Within the noise of one interval it is not known to be above.
            "above": above > self.percent + 2,
        }


def _check(spec: dict[str, Any]) -> list[int]:
    cores = sorted({int(core) for core in spec.get("cores") or os.sched_getaffinity(0)})
    missing = set(cores) - cpustat.core_times().keys()
    if missing:
        raise InvalidParameter("cores", sorted(missing), "cores that are online")
    if not 0 < float(spec["percent"]) <= 100:
        raise InvalidParameter("percent", spec["percent"], "more than 0 and up to 100")
    return cores


class Burner:
    """The parent: keeps one child for each core alive and corrects them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        cores = _check(spec)
        self._scope: str = spec["scope"]
        self._lifetime = Lifetime(spec["deadline"])
        self._figures = Figures(spec.get("stats", ""))
        self._pinned: list[set[int]] = [{core} for core in cores]
        capacity = 1.0
        self._join: list[str] = spec.get("join", [])
        if self._scope == "group":
            group = spec["group"]
            capacity = float(group["quota"])
            count = min(len(cores), max(1, -int(-capacity // 1)))
            self._pinned = [set(cores)] * count
            self._meter: CoreMeter | GroupMeter = GroupMeter(group_from(group["usage"]))
        else:
            self._meter = CoreMeter(cores)
        self._rivals = int(spec.get("rivals", 0))
        if self._rivals:
            self._pinned = [pins for pins in self._pinned for _ in range(self._rivals)]
        units = len(cores) if self._scope == "cores" else len(self._pinned)
        count = len(self._pinned)
        self._control = Controller(float(spec["percent"]), self._scope, capacity, units)
        self._board = Board(count)
        self._children: dict[int, int] = {}  # pid: index
        self._burnt = [0] * count
        self._when = time.monotonic_ns()
        self._restarts = 0

    def _spawn(self, index: int) -> None:
        def child() -> int:
            join_groups(self._join)
            if self._rivals:
                os.setsid()  # a scheduling group of its own, sched(7), "The autogroup feature"
            os.sched_setaffinity(0, self._pinned[index])
            return work(self._board, index, len(self._pinned))

        self._children[self._lifetime.fork("fl-burn", child)] = index

    def _sample(self) -> Sample:
        burnt = [self._board.told(index) for index in range(len(self._pinned))]
        now = time.monotonic_ns()
        passed = max(1, now - self._when)
        own = [(a - b) / passed for a, b in zip(burnt, self._burnt, strict=True)]
        self._burnt, self._when = burnt, now
        total = self._meter.read()
        if self._scope == "group":
            return Sample(total, [sum(own)])
        each = max(1, self._rivals)
        return Sample(total, [sum(own[at : at + each]) for at in range(0, len(own), each)])

    def _replace(self) -> None:
        """Start children anew that somebody ended; one that could not do its work ends all."""
        for pid, status in reap(list(self._children)).items():
            index = self._children.pop(pid)
            if status > 0:
                raise OSError(status, os.strerror(status), f"core {self._pinned[index]}")
            if not self._lifetime.over():  # SIGTERM goes to all of us: ours may be on its way
                self._restarts += 1
                self._spawn(index)

    def _order(self, shares: Sequence[float]) -> None:
        if self._rivals:
            shares = [1.0] * len(self._pinned)
        for index, share in enumerate(shares):
            self._board.order(index, share)

    def run(self, ready: Callable[[dict[str, Any]], None]) -> int:
        """Burn until it is time to end; `ready` is told after the first interval."""
        self._order(self._control.start())
        try:
            for index in range(len(self._pinned)):
                self._spawn(index)
            self._sample()  # the interval begins when all children are there
            told = False
            while not self._lifetime.wait(CORRECTION):
                self._replace()
                sample = self._sample()
                self._order(self._control.correct(sample))
                figures = {**self._control.figures(sample), "restarts": self._restarts}
                self._figures.publish(figures)
                if not told:
                    ready(figures)
                    told = True
        finally:
            end_children(list(self._children))
        return 0


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Burn as ordered until the deadline or SIGTERM."""
    return Burner(spec).run(ready)
