"""What a control group allows and uses: cores, processor time, memory; the same for both versions.

A limit counts only together with those of the groups above, so the tightest on the way to the root
is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from faultline.kernel.cgroup import Group
from faultline.kernel.cpustat import parse_cores
from faultline.kernel.memory import MemoryUse

_V1_UNLIMITED = 1 << 62  # version 1 writes the largest number of pages instead of "max"


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """Processor time per period, in nanoseconds; as cores: `quota / period`."""

    quota: int
    period: int

    @property
    def cores(self) -> float:
        return self.quota / self.period


def _upwards(group: Group) -> Iterator[Group]:
    current: Group | None = group
    while current is not None:
        yield current
        current = current.parent()


def own_cpu_quota(group: Group) -> CpuQuota | None:
    """The quota set on this group alone; None without one. `group` is of the cpu controller."""
    if group.version == 2:
        if not group.has("cpu.max"):  # the root has none
            return None
        quota, period = group.read("cpu.max").split()
        return None if quota == "max" else CpuQuota(int(quota) * 1000, int(period) * 1000)
    if not group.has("cpu.cfs_quota_us"):
        return None
    quota_us = int(group.read("cpu.cfs_quota_us"))
    period_us = int(group.read("cpu.cfs_period_us"))
    return None if quota_us < 0 else CpuQuota(quota_us * 1000, period_us * 1000)


def cpu_limit(group: Group) -> tuple[CpuQuota, Group] | None:
    """The tightest quota of this group and those above, and the group that has it."""
    quotas = [(quota, each) for each in _upwards(group) if (quota := own_cpu_quota(each))]
    return min(quotas, key=lambda pair: pair[0].cores, default=None)


def cpu_quota(group: Group) -> CpuQuota | None:
    """The tightest quota of this group and those above; None when nothing limits it."""
    found = cpu_limit(group)
    return found[0] if found else None


def cpu_usage(group: Group) -> int:
    """Nanoseconds of processor time that the group and those below have used since it was made.

    Version 1 counts in the cpuacct controller, version 2 in the cpu controller's `cpu.stat`.
    """
    if group.version == 1:
        return int(group.read("cpuacct.usage"))
    for line in group.read("cpu.stat").splitlines():
        name, value = line.split()
        if name == "usage_usec":
            return int(value) * 1000
    raise FileNotFoundError(2, "cpu.stat has no usage", str(group.folder))


@dataclass(frozen=True, slots=True)
class Throttled:
    """How often, and for how many nanoseconds, tasks of a group had to wait for their quota."""

    times: int
    waited: int


def cpu_throttled(group: Group) -> Throttled:
    """What the quota of this group has done so far; `group` is of the cpu controller."""
    found: dict[str, int] = {}
    for line in group.read("cpu.stat").splitlines():
        name, value = line.split()
        found[name] = int(value)
    waited = found.get("throttled_time", 1000 * found.get("throttled_usec", 0))
    return Throttled(found.get("nr_throttled", 0), waited)


def allowed_cores(group: Group) -> list[int]:
    """The cores that tasks of this group may run on; `group` is of the cpuset controller.

    Where version 2 does not hand the controller down to it, the nearest group above tells.
    """
    for each in _upwards(group):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if each.has(name):
                return parse_cores(each.read(name))
    return []


def own_memory_limit(group: Group) -> int | None:
    """The limit set on this group alone, in bytes; `group` is of the memory controller."""
    if group.version == 2:
        text = group.read("memory.max") if group.has("memory.max") else "max"
        return None if text == "max" else int(text)
    limit = int(group.read("memory.limit_in_bytes"))
    return None if limit >= _V1_UNLIMITED else limit


def memory_limit(group: Group) -> tuple[int, Group] | None:
    """The tightest limit of this group and those above, and the group that has it."""
    limits = [
        (limit, each) for each in _upwards(group) if (limit := own_memory_limit(each)) is not None
    ]
    return min(limits, key=lambda pair: pair[0], default=None)


def memory_charge(group: Group) -> int:
    """Bytes charged to the group and those below, page cache included: what the limit is held
    against.
    """
    return int(group.read("memory.current" if group.version == 2 else "memory.usage_in_bytes"))


def memory_working_set(group: Group) -> int:
    """The charge without inactive page cache, which is dropped before anybody is killed.

    The same figure that Kubernetes shows and evicts by.
    """
    wanted = "inactive_file" if group.version == 2 else "total_inactive_file"
    inactive = 0
    for line in group.read("memory.stat").splitlines():
        name, value = line.split()
        if name == wanted:
            inactive = int(value)
    return max(0, memory_charge(group) - inactive)


def memory_use(group: Group) -> MemoryUse | None:
    """Working set against the tightest limit, of the group that has the limit; None without one."""
    found = memory_limit(group)
    if found is None:
        return None
    limit, holder = found
    return MemoryUse(limit, memory_working_set(holder))


def pids_limit(group: Group) -> tuple[int, Group] | None:
    """The limit that leaves the least room, of this group and those above, and the group that has
    it; `group` is of the pids controller.
    """
    limits = [
        (int(text), each)
        for each in _upwards(group)
        if each.has("pids.max") and (text := each.read("pids.max")) != "max"
    ]
    return min(limits, key=lambda pair: pair[0] - pids_current(pair[1]), default=None)


def pids_current(group: Group) -> int:
    """How many tasks, each thread one, are in the group and those below."""
    return int(group.read("pids.current"))


def _memory_stat(group: Group) -> dict[str, int]:
    """The group's figures with those below it, by the names of version 2."""
    found: dict[str, int] = {}
    for line in group.read("memory.stat").splitlines():
        name, value = line.split()
        if group.version == 2 or name.startswith("total_"):
            found[name.removeprefix("total_")] = int(value)
    return found


def memory_file_cache(group: Group) -> int:
    """Bytes of page cache in the group that the kernel can take back by itself."""
    stat = _memory_stat(group)
    return stat.get("inactive_file", 0) + stat.get("active_file", 0)


def memory_floor(group: Group, swap: int) -> int:
    """Bytes that the kernel cannot take back without killing somebody, with so much swap free."""
    stat = _memory_stat(group)
    cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    anonymous = stat.get("inactive_anon", 0) + stat.get("active_anon", 0)
    if group.version == 2 and group.has("memory.swap.max"):
        text = group.read("memory.swap.max")
        swap = swap if text == "max" else min(swap, int(text))
    given_back = cache + stat.get("slab_reclaimable", 0) + min(swap, anonymous)
    return max(0, memory_charge(group) - given_back)


def count_of(text: str, name: str) -> int:
    """The number beside a name in lines of both; -1 where there is no such line."""
    for line in text.splitlines():
        word, _, value = line.partition(" ")
        if word == name:
            return int(value)
    return -1


def oom_kills(group: Group) -> int:
    """How many the out-of-memory killer has struck in this group and below it; -1: not known.

    Version 1 counts in the very group of who was killed.
    """
    if group.version == 2:
        return (
            count_of(group.read("memory.events"), "oom_kill") if group.has("memory.events") else -1
        )
    found: list[int] = []
    for each in group.walk():
        with suppress(FileNotFoundError):  # it went meanwhile, or has no such file
            found.append(count_of(each.read("memory.oom_control"), "oom_kill"))
    return sum(found) if found and min(found) >= 0 else -1
