"""Which capabilities an agent needs, and what for: a table by family of faults (capabilities(7)).

The profile without privileged mode adds exactly those of the faults that are enabled. What is tried
on a real node with just these is in `status.capabilities` of its Host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

Reasons = Mapping[str, str]

ALWAYS: Final[Reasons] = {
    "SYS_PTRACE": "opens the root directories, namespaces and working directories of other "
    "processes below /proc: how containers are found, and how their files are reached",
    "SYS_ADMIN": "setns(2) into the network of a pod and the control groups of the machine; "
    "scratch namespaces in which it is tried what works here",
    "SYS_CHROOT": "setns(2) into the mount namespace of the machine, for its own runtime command",
    "DAC_OVERRIDE": "writes into control groups and files that are of other users",
    "SYS_RESOURCE": "keepers are spared when memory runs out, and may open as much as they need",
}
"""Whatever is injected."""

_PACKETS: Final[Reasons] = {
    "NET_ADMIN": "queueing disciplines, filters, devices and routes of the target's network; the "
    "programs in them are eBPF, which SYS_ADMIN allows on every kernel",
    "NET_RAW": "packet sockets, to see what a filter did to real packets",
}
_FILES: Final[Reasons] = {
    "CHOWN": "a file that is put back has the owner it had",
    "FOWNER": "a file that is put back has the mode and times it had",
    "FSETID": "and its set-user-id bit",
    "LINUX_IMMUTABLE": "file flags, as chattr(1) sets them",
}

FAMILIES: Final[Mapping[str, Reasons]] = {
    "container": {"KILL": "signals to the processes of a container"},
    "cpu": {"SYS_NICE": "loads of every priority, on the processors that are asked for"},
    "custom": {
        "KILL": "a program that does not end",
        "SETUID": "your program runs as another user",
        "SETGID": "and group",
        "SETPCAP": "with no capabilities but those of its manifest",
    },
    "disk": {**_FILES, "MKNOD": "device nodes of the device mapper"},
    "diskio": {"KILL": "a process that reads and writes for the load"},
    "dns": {**_PACKETS, **_FILES},
    "file": _FILES,
    "kernel": {
        "NET_ADMIN": "switches of the network, and its connection table",
        "SYS_BOOT": "reboot(2)",
    },
    "log": _FILES,
    "memory": {"IPC_LOCK": "memory that is filled stays in memory"},
    "network": _PACKETS,
    "process": {
        "KILL": "signals to processes of other users",
        "SYS_NICE": "their priorities",
    },
}
"""By family, beside those that are always needed."""


@dataclass(frozen=True, slots=True)
class Needed:
    """One capability, and what for."""

    name: str
    why: tuple[tuple[str, str], ...]  # family and reason; the family is '' for all

    @property
    def text(self) -> str:
        """What for, in one line."""
        reasons: dict[str, list[str]] = {}
        for family, why in self.why:
            reasons.setdefault(why, []).append(family)
        told = (f"{', '.join(filter(None, names)) or 'always'}: {why}"
                for why, names in reasons.items())  # fmt: skip
        return "; ".join(told)


def needed(faults: Iterable[str] = ()) -> list[Needed]:
    """What these faults or families need of an agent; without any named, all that there are."""
    families = {each.partition(".")[0] for each in faults} or set(FAMILIES)
    why: dict[str, list[tuple[str, str]]] = {name: [("", text)] for name, text in ALWAYS.items()}
    for family in sorted(families):
        # A family of somebody else's package: what it needs is not known, so what always helps.
        for name, text in FAMILIES.get(family, {}).items():
            why.setdefault(name, []).append((family, text))
    return [Needed(name, tuple(reasons)) for name, reasons in sorted(why.items())]


def names(faults: Iterable[str] = ()) -> list[str]:
    """Their names alone, as a pod writes them."""
    return [each.name for each in needed(faults)]
