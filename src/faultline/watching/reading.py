"""Files of the kernel as numbers; what is not there is None and not an error."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from faultline.kernel import cgroup_limits, cpustat, memory, pressure
from faultline.kernel.blockio import Device, parse_diskstats
from faultline.kernel.cgroup import Group, layout
from faultline.kernel.netcount import parse_devices, parse_retransmits
from faultline.kernel.procfs import PROC
from faultline.places.model import Place

_MISSING = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.ESRCH)
_VIRTUAL = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")  # they pass on to others
_NAMES = ("read", "written", "reads", "writes")

Found = dict[str, int | None]
T = TypeVar("T")


def text(path: str | os.PathLike[str]) -> str | None:
    """A short file of the kernel; None where there is none, or none that says anything."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 16).decode("ascii", "replace")
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise


def number(act: Callable[[], T]) -> T | None:
    """What `act` finds; None where the kernel has no such file."""
    try:
        return act()
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise


def stalled(path: str | os.PathLike[str]) -> int | None:
    """Nanoseconds of pressure; None where the kernel keeps none."""
    found = text(path)
    value = -1 if found is None else pressure.stalled(found)
    return None if value < 0 else value


# ------------------------------------------------------------------ network


def network(pid: int = 0) -> Found:
    """What the network namespace of a process, or our own, has received and sent.

    Of the host those devices count that are hardware, or all but the loopback where none is: what
    goes over a bridge passes several devices and would be counted more than once.
    """
    folder = PROC / str(pid) / "net" if pid else PROC / "thread-self" / "net"
    devices = parse_devices(text(folder / "dev") or "")
    outer = {name: each for name, each in devices.items() if name != "lo"}
    if not pid:
        outer = {name: each for name, each in outer.items() if _hardware(name)} or outer
    outer = outer or devices
    again = parse_retransmits(text(folder / "snmp") or "")
    return {
        "received": sum(received for received, _ in outer.values()) if outer else None,
        "sent": sum(sent for _, sent in outer.values()) if outer else None,
        "retransmits": None if again < 0 else again,
    }


def _hardware(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/device").exists()


# ------------------------------------------------------------------ disks


@lru_cache(maxsize=512)
def _counts(device: Device) -> bool:
    """Whether it is a whole disk that passes nothing on to another."""
    with suppress(OSError):
        return not device.name.startswith(_VIRTUAL) and device.disk() == device
    return False


def disks() -> Found:
    """What all disks of the host have done."""
    found = text(PROC / "diskstats")
    if not found:
        return {}
    every = [use.transfers for device, use in parse_diskstats(found).items() if _counts(device)]
    totals = [[t.read_bytes, t.written_bytes, t.reads, t.writes] for t in every]
    return dict(zip(_NAMES, map(sum, zip(*totals, strict=True)), strict=True)) if totals else {}


def group_disks(group: Group) -> Found:
    """What a control group of version 2 has done on all disks."""
    found = text(group.folder / "io.stat")
    if found is None:
        return {}
    keys = dict(zip(("rbytes", "wbytes", "rios", "wios"), _NAMES, strict=True))
    totals: Found = dict.fromkeys(_NAMES, 0)
    for line in found.splitlines():
        device, *words = line.split()
        if not words or not _counts(Device.parse(device)):
            continue
        for key, equals, value in (word.partition("=") for word in words):
            if equals and key in keys:
                totals[keys[key]] = (totals[keys[key]] or 0) + int(value)
    return totals


# ------------------------------------------------------------------ the host


def host() -> Found:
    """Everything there is to know of the host."""
    times = cpustat.parse_core_times(text(PROC / "stat") or "")
    busy = sum(each.busy for each in times.values()) * (10**9 // cpustat.TICKS_PER_SECOND)
    running = sum(each.name.isdigit() for each in PROC.iterdir())
    vmstat = text(PROC / "vmstat") or ""
    kills = cgroup_limits.count_of(vmstat, "oom_kill")
    return {
        "cpu": busy if times else None,
        "memory": memory.host_memory().used,
        "processes": running,
        "kills": None if kills < 0 else kills,
        **pressures(PROC / "pressure", ""),
        **disks(),
        **network(),
    }


def pressures(folder: Path, end: str = ".pressure") -> Found:
    """The three pressures in a folder."""
    names = ("cpu", "memory", "io")
    return {f"{name}_pressure": stalled(folder / f"{name}{end}") for name in names}


# ------------------------------------------------------------------ control groups


def groups(place: Place) -> dict[str, Group]:
    """The control group of a place, by what it is asked for; those that the host has."""
    known = layout()
    wanted = {"cpu": ("cpu",), "time": ("cpuacct", "cpu"), "memory": ("memory",), "io": ("io",)}
    wanted["pids"] = ("pids",)
    found: dict[str, Group] = {}
    for name, controllers in wanted.items():
        there = [each for each in controllers if each in known.controllers()]
        if not there:
            continue
        held = place.own_group(there[0])
        # A group may exist in some of the trees of version 1 only; its process is elsewhere then.
        if not place.group or held.path == place.group:
            found[name] = held
    for hierarchy in known.hierarchies:
        if hierarchy.version == 2 and place.group:
            group = Group(hierarchy, place.group)
            if number(group.exists):
                found["unified"] = group
    return found


def group(held: dict[str, Group]) -> Found:
    """What these control groups have counted."""
    found: Found = {}
    if "time" in held:
        found["cpu"] = number(lambda: cgroup_limits.cpu_usage(held["time"]))
    if "cpu" in held:
        waited = number(lambda: cgroup_limits.cpu_throttled(held["cpu"]))
        found["throttled"] = waited.waited if waited else None
    if "memory" in held:
        found["memory"] = number(lambda: cgroup_limits.memory_working_set(held["memory"]))
        kills = number(lambda: cgroup_limits.oom_kills(held["memory"]))
        found["kills"] = None if kills is None or kills < 0 else kills
    if "io" in held and held["io"].version == 2:
        found |= group_disks(held["io"])
    if "pids" in held:
        found["processes"] = number(lambda: cgroup_limits.pids_current(held["pids"]))
    if "unified" in held:
        found |= pressures(held["unified"].folder)
    return found


def room(held: dict[str, Group]) -> tuple[float | None, int | None]:
    """How many cores and how many bytes the groups allow; None: as many as the host has."""
    quota = number(lambda: cgroup_limits.cpu_quota(held["cpu"])) if "cpu" in held else None
    limit = number(lambda: cgroup_limits.memory_limit(held["memory"])) if "memory" in held else None
    return (quota.cores if quota else None), (limit[0] if limit else None)


def known(found: Iterable[int | None]) -> bool:
    """Whether any of these is known."""
    return any(each is not None for each in found)
