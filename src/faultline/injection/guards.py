"""What is never hit unless it is overridden by name, and what a plan has to tell about it.

While a plan is made, one `Guard` is in force (a context variable): a fault asks it before it names
a target, and leaves notes with it that the plan shows, such as the connection that is exempt.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from faultline.changes.model import MARK
from faultline.errors import Protected
from faultline.kernel import procfs

# Programs whose end takes the machine, or the way to it, along.
PROGRAMS = frozenset(
    {
        "sshd", "systemd", "systemd-journald", "systemd-logind", "systemd-networkd",
        "systemd-resolved", "systemd-udevd", "dbus-daemon", "init", "kubelet", "containerd",
        "dockerd", "crio", "conmon", "containerd-shim", "containerd-shim-runc-v2", "kube-proxy",
        "kube-apiserver", "etcd",
    }
)  # fmt: skip


@dataclass(slots=True)
class Guard:
    """Which guards are overridden, and what the plan must say."""

    allow: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list[str])
    engine: str = ""  # how a fault that can be carried out in several ways is carried out here
    others: dict[str, str] = field(default_factory=dict[str, str])  # the other ways: why not
    exempt: list[str] | None = None  # connections that are never hit; None where none could be

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def refuse(self, name: str, why: str) -> None:
        """Raise Protected unless `name` was allowed; an override is noted in the plan."""
        if name not in self.allow:
            raise Protected(why, hint=f"if you mean it: --allow {name}")
        self.note(f"guard overridden: {name} ({why})")


_current: ContextVar[Guard] = ContextVar("guard")


def current() -> Guard:
    """The guard in force; outside of planning, one that allows nothing."""
    return _current.get(Guard())


@contextmanager
def active(guard: Guard) -> Generator[Guard]:
    """Put a guard in force for the block."""
    token = _current.set(guard)
    try:
        yield guard
    finally:
        _current.reset(token)


def is_ours(process: procfs.Process) -> bool:
    """Whether it is a worker or a keeper of Faultline."""
    return any(argument.startswith((f"{MARK}:", "keeper:")) for argument in process.cmdline)


def protect(processes: Iterable[procfs.Process]) -> None:
    """Raise Protected if one of these is PID 1, ours, the caller's session, or keeps the machine
    reachable.
    """
    guard = current()
    session = set(procfs.ancestors(os.getpid())) | {os.getpid()}
    for process in processes:
        name = process.program or process.name
        if process.pid == 1:
            guard.refuse("pid-1", f"process 1 ({name}) keeps the machine running")
        elif is_ours(process):
            guard.refuse(
                "faultline", f"process {process.pid} ({process.name}) is one of Faultline's own"
            )
        elif name in PROGRAMS or process.name in PROGRAMS:
            guard.refuse(
                name, f"process {process.pid} is {name}, which keeps the machine reachable"
            )
        elif process.pid in session:
            guard.refuse("session", f"process {process.pid} ({name}) is part of your own session")
