"""How busy the cores are and how many tasks wait: /proc/stat and /proc/loadavg as numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from faultline.errors import InvalidParameter
from faultline.kernel.procfs import PROC

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Clock ticks that one core has spent since boot (proc_stat(5)).

    `busy` is everything but idle and waiting for I/O; time that a hypervisor gave to others (steal)
    counts as busy, as in the usual "100 minus idle".
    """

    busy: int
    idle: int

    def __sub__(self, other: CoreTimes) -> CoreTimes:
        # The kernel's idle counters can step back by a tick (proc_stat(5) says so of iowait).
        return CoreTimes(max(0, self.busy - other.busy), max(0, self.idle - other.idle))

    def __add__(self, other: CoreTimes) -> CoreTimes:
        return CoreTimes(self.busy + other.busy, self.idle + other.idle)

    @property
    def percent(self) -> float:
        """The busy share in hundredths; 0 when no tick has passed."""
        total = self.busy + self.idle
        return 100 * self.busy / total if total else 0.0


@dataclass(frozen=True, slots=True)
class LoadAverage:
    """/proc/loadavg: averages over 1, 5 and 15 minutes, tasks running now, all tasks."""

    one: float
    five: float
    fifteen: float
    running: int
    total: int


def parse_core_times(text: str) -> dict[int, CoreTimes]:
    """The per-core lines of /proc/stat, by core number; cores that are offline have none."""
    found: dict[int, CoreTimes] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, rest.split()[:8])
            busy = user + nice + system + irq + softirq + steal  # guest time is part of user time
            found[int(name[3:])] = CoreTimes(busy, idle + iowait)
    return found


def core_times() -> dict[int, CoreTimes]:
    """Times of all cores that are online."""
    return parse_core_times((PROC / "stat").read_text())


def used_between(
    before: Mapping[int, CoreTimes],
    after: Mapping[int, CoreTimes],
    cores: Iterable[int] | None = None,
) -> float:
    """Busy share of the given cores (default: all) between two readings, in hundredths."""
    chosen = set(after) & set(before) if cores is None else set(cores) & set(after) & set(before)
    total = CoreTimes(0, 0)
    for core in chosen:
        total += after[core] - before[core]
    return total.percent


def context_switches() -> int:
    """How often the kernel has switched between tasks since boot, on all cores."""
    for line in (PROC / "stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "ctxt":
            return int(value)
    return 0


def load_average() -> LoadAverage:
    """The load averages; they count runnable tasks and those in uninterruptible sleep."""
    one, five, fifteen, tasks, _ = (PROC / "loadavg").read_text().split()
    running, total = tasks.split("/")
    return LoadAverage(float(one), float(five), float(fifteen), int(running), int(total))


def parse_cores(text: str) -> list[int]:
    """Read a list such as '0-3,5' (the kernel's cpulist format) into sorted core numbers."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.strip().partition("-")
        if (
            not first.isdigit()
            or (dash and not last.isdigit())
            or (dash and int(last) < int(first))
        ):
            raise InvalidParameter("cores", text, "core numbers and ranges, such as 0-3,5")
        if int(last or first) >= 1 << 16:
            raise InvalidParameter("cores", text, "core numbers below 65536")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def format_cores(cores: Iterable[int]) -> str:
    """The inverse of `parse_cores`: '0-3,5'."""
    parts: list[list[int]] = []
    for core in sorted(set(cores)):
        if parts and parts[-1][1] == core - 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def online_cores() -> list[int]:
    """The cores that are online."""
    return sorted(core_times())
