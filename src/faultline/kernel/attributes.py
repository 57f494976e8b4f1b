"""What can be set on a running process or thread from outside: niceness, policy, limits.

A value is a list of numbers. Whatever belongs to threads is asked for by thread id; resource limits
belong to the process. A child starts with what its parent has.
Source: setpriority(2), sched(7), ioprio_set(2), prlimit(2).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from faultline.kernel import procfs, syscalls, userns

IDLE: Final = 5  # the number of the policy (sched(7))
POLICIES: Final = {"other": 0, "fifo": 1, "rr": 2, "batch": 3, "idle": IDLE}
IO_CLASSES: Final = {"none": 0, "realtime": 1, "best-effort": 2, "idle": 3}
LIMITS: Final = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
UNLIMITED: Final = resource.RLIM_INFINITY
_RESET_ON_FORK: Final = 0x40000000
_IO_SHIFT: Final = 13
_SYS_NICE: Final = 23  # the number of the capability (capabilities(7))

Value = list[int]


@dataclass(frozen=True, slots=True)
class Attribute:
    """How one of them is read and set; both raise ProcessLookupError and PermissionError."""

    read: Callable[[int], Value]
    write: Callable[[int, Value], None]
    per_thread: bool = True


def _nice(tid: int) -> Value:
    return [os.getpriority(os.PRIO_PROCESS, tid)]


def _set_nice(tid: int, value: Value) -> None:
    os.setpriority(os.PRIO_PROCESS, tid, value[0])


def _policy(tid: int) -> Value:
    return [os.sched_getscheduler(tid), os.sched_getparam(tid).sched_priority]


def _set_policy(tid: int, value: Value) -> None:
    os.sched_setscheduler(tid, value[0], os.sched_param(value[1]))


def _io(tid: int) -> Value:
    return [*divmod(syscalls.ioprio_get(tid), 1 << _IO_SHIFT)]


def _set_io(tid: int, value: Value) -> None:
    syscalls.ioprio_set(tid, value[0] << _IO_SHIFT | value[1])


def _limit(name: str) -> Attribute:
    """The soft limit alone; it never goes beyond the hard one, which stays."""
    number = LIMITS[name]

    def write(pid: int, value: Value) -> None:
        _, hard = resource.prlimit(pid, number)
        soft = hard if hard != UNLIMITED and exceeds(value[0], hard) else value[0]
        resource.prlimit(pid, number, (soft, hard))

    return Attribute(lambda pid: [resource.prlimit(pid, number)[0]], write, per_thread=False)


def exceeds(limit: int, other: int) -> bool:
    """Whether one limit is above another one, where -1 is none at all."""
    return other != UNLIMITED and (limit == UNLIMITED or limit > other)


ATTRIBUTES: Final = {
    "nice": Attribute(_nice, _set_nice),
    "policy": Attribute(_policy, _set_policy),
    "io": Attribute(_io, _set_io),
    **{f"limit {name}": _limit(name) for name in LIMITS},
}


def words(attribute: str, value: Value) -> str:
    """A value as people read it."""
    if attribute == "policy":
        names = {number: name for name, number in POLICIES.items()}
        number = value[0] & ~_RESET_ON_FORK
        return f"{names.get(number, number)}" + (f":{value[1]}" if value[1] else "")
    if attribute == "io":
        names = {number: name for name, number in IO_CLASSES.items()}
        level = "" if value[0] in (0, 3) else f":{value[1]}"
        return f"{names.get(value[0], value[0])}{level}"
    return "unlimited" if value == [UNLIMITED] and attribute != "nice" else str(value[0])


def one_way(attribute: str, tid: int, value: Value) -> str:
    """Why this value could not be taken back by this user; '' if it could."""
    risen = attribute == "nice" and value > _nice(tid)
    idle = attribute == "policy" and value[0] == IDLE
    if not (risen or idle) or _may_lower():
        return ""
    floor = 20 - resource.prlimit(tid, getattr(resource, "RLIMIT_NICE", 13))[0]
    if floor <= _nice(tid)[0]:
        return ""
    return "an ordinary user can lower a priority and never raise it again"


def _may_lower() -> bool:
    """Whether this process has CAP_SYS_NICE outside of any user namespace."""
    capabilities = int(procfs.status(os.getpid()).get("CapEff", "0"), 16)
    return bool(capabilities >> _SYS_NICE & 1) and userns.current() == userns.INITIAL
