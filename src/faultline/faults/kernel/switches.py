"""Switches of the kernel, and the table of tracked connections full."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag
from faultline.changes.kernel_value import words
from faultline.changes.model import Change, Record
from faultline.errors import Refused, TargetGone, Unsupported
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import conntrack, link, memory
from faultline.kernel.netlink import Netlink
from faultline.places.model import Place

_ROOT = "/proc/sys/"
_NAME = re.compile(r"[A-Za-z0-9_.:@/*-]+")

# What takes the host down, lets somebody run programs as root, or cannot be taken back.
_DANGEROUS = {
    "panics the host": r"kernel/(panic.*|hung_task_panic|.*lockup.*)|vm/panic_on_oom",
    "is a way to end the host": r"kernel/(sysrq|ctrl-alt-del)",
    "decides what the kernel runs as root": (
        r"kernel/(core_pattern|modprobe|hotplug|poweroff_cmd|usermodehelper/.*)|fs/binfmt_misc/.*"
    ),
    "cannot be set back before the next boot": (
        r"kernel/(modules_disabled|kexec_load_\w+|unprivileged_bpf_disabled|yama/ptrace_scope)"
    ),
    "can keep anybody from starting a process": r"kernel/(threads-max|pid_max)|user/max_.*",
    "can leave the host without memory": (
        r"vm/(overcommit_\w+|min_free_kbytes|drop_caches|compact_memory|nr_\w*hugepages\w*)"
    ),
    "can cut off whoever is routed through this network": (
        r"net/ipv4/ip_forward|net/ipv[46]/conf/.*/(forwarding|disable_ipv6)"
    ),
}
_FILES = 4096  # fewer open files than this on the whole host and nothing can be started


def _path(value: str) -> str:
    """The path below /proc/sys of a name: with dots, as sysctl(8) takes it, or a path."""
    name = value.removeprefix(_ROOT)
    if "/" not in name:
        name = name.replace(".", "/")
    elif "." in name.partition("/")[0]:
        # sysctl(8): a dot inside of a name, such as eth0.100, is written as a slash.
        name = name.translate(str.maketrans("./", "/."))
    parts = name.split("/")
    if not _NAME.fullmatch(name) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("expected a switch such as net.ipv4.tcp_retries2, or a path in /proc/sys")
    return name


def _one_line(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ValueError("expected a value without line breaks")
    return value


class SysctlParams(Params):
    """Parameters of `kernel sysctl`."""

    name: Annotated[str, Field(min_length=3, max_length=255), AfterValidator(_path), Flag("n")]
    """Which switch: `net.ipv4.tcp_retries2`, or as a path, `net/ipv4/tcp_retries2`."""
    value: Annotated[
        str, Field(min_length=1, max_length=4000), AfterValidator(_one_line), Flag("V")
    ]
    """What it is set to; several numbers are separated by blanks. The kernel says what it takes."""


class KernelSysctl(Fault[SysctlParams]):
    """Set a switch of the kernel to another value, and put it back.

    `net.*` is of the network of the place; the rest is of the whole host and is set there only. The
    limits of a value are the kernel's own. What panics the host, runs programs or cannot be taken
    back is refused unless it is allowed by name.
    """

    id = "kernel.sysctl"
    ending = Ending.KEEPER
    does = "Writes into a file of /proc/sys."
    cannot = (
        "Set what the kernel rounds or refuses: the value must read back as it was asked for. What "
        "the kernel did meanwhile because of the value stays done."
    )
    measures = "Reads the file, in the network of the place."
    restores = "The value from before, if it still reads as what was set."
    example: ClassVar[dict[str, str]] = {"name": "net.ipv4.tcp_retries2", "value": "3"}

    def plan(self, place: Place, params: SysctlParams) -> list[Change]:
        path = Path(_ROOT + params.name)
        if not place.is_host and not params.name.startswith("net/"):
            raise Unsupported(
                f"{_dotted(params.name)} is of the whole host, not of {place.words}",
                hint="without a target it is set on the host",
            )
        if path.is_dir():
            raise Refused(
                f"{_dotted(params.name)} holds other switches",
                hint="name one of them: "
                + ", ".join(sorted(each.name for each in path.iterdir())[:5]),
            )
        try:
            now = words(path.read_text(errors="replace"))
        except FileNotFoundError:
            raise Unsupported(f"this kernel has no {_dotted(params.name)} here") from None
        except OSError as error:
            raise Unsupported(f"{path}: {error.strerror}") from None
        if not place.is_host and not place.own_network:
            guards.current().note(f"{place.words} is in the network of the host, which is hit")
        _protect(params)
        if now == words(params.value):
            raise Refused(f"{_dotted(params.name)} is {now} already", hint="name another value")
        guards.current().note(f"{_dotted(params.name)} is {now} now")
        what = _dotted(params.name)
        return [Change("kernel_value", {"path": str(path), "value": params.value, "what": what})]

    def observe(self, place: Place, params: SysctlParams, record: Record) -> Reading:
        name, wanted = _dotted(params.name), words(params.value)
        asked = f"{name} = {wanted}"
        try:
            found = words(Path(_ROOT + params.name).read_text(errors="replace"))
        except FileNotFoundError:
            raise TargetGone(f"{name} is gone") from None
        effect = Effect.EFFECTIVE if found == wanted else Effect.INEFFECTIVE
        reason = "" if found == wanted else "somebody has set it to something else"
        values: dict[str, float] = {}
        if re.fullmatch(r"-?\d{1,18}", wanted) and re.fullmatch(r"-?\d{1,18}", found):
            values = {"asked": float(wanted), "measured": float(found)}
        return Reading(effect, asked, f"{name} = {found}", self.measures, reason, values)


def _dotted(name: str) -> str:
    """A switch as sysctl(8) names it."""
    return name.translate(str.maketrans("./", "/."))


def _protect(params: SysctlParams) -> None:
    guard, name = guards.current(), params.name
    for why, pattern in _DANGEROUS.items():
        if re.fullmatch(pattern, name):
            guard.refuse(_dotted(name), f"{_dotted(name)} {why}")
    number = int(params.value) if re.fullmatch(r"\d{1,18}", params.value) else None
    if name in ("fs/file-max", "fs/nr_open") and (number is None or number < _FILES):
        guard.refuse(_dotted(name), f"{_dotted(name)} below {_FILES} keeps everybody from opening")


class ConntrackParams(Params):
    """Parameters of `kernel conntrack`."""

    leave: Annotated[int, Between(0, 10**6)] = 0
    """How many connections more can still be tracked."""


class KernelConntrack(Fault[ConntrackParams]):
    """The table of tracked connections is full: new connections through the firewall are dropped.

    The table of the place's own network is filled with entries of ours, up to the limit of the
    whole host, so that no other network is hit and no limit is changed. On the host's own network
    it is refused unless `--allow conntrack`: the way to the host is closed to newcomers too.
    """

    id = "kernel.conntrack"
    ending = Ending.KERNEL
    does = (
        "Adds entries between 198.18.0.0/15 and 203.0.113.1 of a protocol that nobody speaks to "
        "the connection table; they take some 320 bytes of kernel memory each and expire at the "
        "deadline."
    )
    cannot = (
        "Hit connections that are tracked already, or a network in which nothing is tracked (no "
        "firewall rule asks for it). As many connections as end meanwhile can begin anew. The "
        "kernel makes room for a newcomer where it finds an entry whose answer never came."
    )
    measures = (
        "The kernel's count against its limit, and whether one more entry is accepted: with none "
        "left, that attempt fails as a new connection does."
    )
    restores = "Removes the entries with our mark; those of others are not touched."
    example: ClassVar[dict[str, str]] = {}

    def plan(self, place: Place, params: ConntrackParams) -> list[Change]:
        limit, count = conntrack.limit(), conntrack.count()
        room = limit - count - params.leave
        if limit == 0:
            raise Unsupported("the table of tracked connections has no limit (nf_conntrack_max 0)")
        if room <= 0:
            raise Refused(f"{count} of {limit} are tracked already: nothing is left to fill")
        needed, free = room * conntrack.ENTRY, memory.host_memory().available
        if needed > free // 4:
            raise Refused(f"{room} entries take {needed >> 20} MiB of {free >> 20} MiB free memory")
        if not place.own_network and _reached():
            guards.current().refuse("conntrack", "new connections to this host would fail too")
        guards.current().note(f"{count} of {limit} are tracked; {room} entries are added")
        return [Change("conntrack_fill", {"leave": params.leave, "count": room})]

    def observe(self, place: Place, params: ConntrackParams, record: Record) -> Reading:
        limit, count = conntrack.limit(), conntrack.count()
        asked = f"room for {params.leave} more"
        measured = f"{count} of {limit} are tracked"
        values: dict[str, Any] = {
            "asked": float(limit - params.leave),
            "measured": float(count),
            "limit": float(limit),
        }
        if params.leave == 0:
            with conntrack.Table.open() as table:
                refused = not table.accepts_one()
            measured += f"; one more was {'refused' if refused else 'accepted'}"
            good = refused
        else:
            good = limit - count <= params.leave + _SLACK * limit
        reason = "" if good else "connections have ended since, and others can begin"
        effect = Effect.EFFECTIVE if good else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, reason, values)


_SLACK = 0.01  # of the table that may have become free since


def _reached() -> bool:
    """Whether anybody can reach the calling thread's network from outside."""
    with Netlink.open() as netlink:
        return any(each.up and not each.loopback for each in link.links(netlink))
