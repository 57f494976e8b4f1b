"""What a machine looks like, and how two looks differ: the proof that nothing stayed behind.

A snapshot is a set of plain lines, gathered from the kernel and not from any memory of ours: links,
addresses, routes, queueing disciplines, filters and firewall of the calling thread's network
namespace, control groups with their limits, mounts, processes of ours, files that carry our mark,
and sysctls. Whatever counts traffic or time is left out, so two snapshots of an untouched machine
are equal.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from faultline.changes import spawning
from faultline.kernel import cgroup, procfs
from faultline.kernel.mounts import mounts
from faultline.kernel.netlink import Message, Netlink, as_int, as_text, parse

MARK = "faultline"
FILE_MARK = ".faultline-"
_NETLINK_NETFILTER = 12
_MISSING = (errno.EPROTONOSUPPORT, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT)

# Message types of rtnetlink(7) and their fixed headers.
_GETLINK, _GETADDR, _GETROUTE, _GETRULE, _GETQDISC, _GETFILTER, _GETCLASS = (
    18,
    22,
    26,
    34,
    38,
    46,
    42,
)
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=8BI")
_TC = struct.Struct("=BxxxiIII")
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_COUNTING_QDISCS = ("htb", "hfsc")  # their options hold packet counts

# Values of a group that a fault may change. Missing files are passed over.
_LIMITS = (
    "cpu.max",
    "cpu.cfs_quota_us",
    "cpu.shares",
    "cpu.weight",
    "cpuset.cpus",
    "io.max",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
    "memory.max",
    "memory.high",
    "memory.limit_in_bytes",
    "pids.max",
    "cgroup.freeze",
    "freezer.state",
)

# Counters, random numbers and values that act when they are read.
_VOLATILE = re.compile(
    r"kernel/(random/|ns_last_pid$|pty/nr$|perf_event_max_sample_rate$|tainted$)"
    r"|fs/(file-nr$|inode-nr$|inode-state$|dentry-state$|aio-nr$|quota/|binfmt_misc/)"
    r"|vm/stat_refresh$|net/netfilter/nf_conntrack_count$"
    r"|net/ipv4/tcp_fastopen_key$"  # made by the kernel when the first listener asks for it
    r"|net/ipv[46]/(neigh|conf)/[^/]+/(retrans_time|base_reachable_time)$"
)


@dataclass(frozen=True)
class Snapshot:
    """Lines by area; each line names one thing with everything about it that should not change."""

    facts: Mapping[str, frozenset[str]]

    def __sub__(self, other: Snapshot) -> list[str]:
        return [
            f"{area}: {line}"
            for area, lines in self.facts.items()
            for line in sorted(lines - other.facts.get(area, frozenset()))
        ]


def snapshot(
    *, folders: Iterable[Path] = (), environment: tuple[str, str] | None = None
) -> Snapshot:
    """Look at everything of this machine that a fault may touch.

    `folders` are searched for files with our mark, with everything below them on the same file
    system. Processes are counted as ours if an argument carries the mark, or if they began with
    the variable `environment` (name, value); those that began with another value of it belong to
    others who do the same. This process is left out.
    """
    with Netlink.open() as route:
        indexes = _link_names(route)
        facts = {
            "link": frozenset(_links(route)),
            "address": frozenset(_addresses(route, indexes)),
            "route": frozenset(_routes(route)),
            "qdisc": frozenset(_disciplines(route, indexes)),
            "filter": frozenset(_filters(route, indexes)),
        }
    facts["firewall"] = frozenset(_firewall())
    facts["cgroup"] = frozenset(_groups())
    facts["mount"] = frozenset(_mounts())
    facts["process"] = frozenset(_processes(environment))
    facts["file"] = frozenset(line for folder in folders for line in _marked_files(folder))
    facts["sysctl"] = frozenset(_sysctls())
    return Snapshot(facts)


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each thing that appeared ('+') or vanished ('-'); empty when all is the same."""
    return [f"- {line}" for line in before - after] + [f"+ {line}" for line in after - before]


def wait_clean(
    before: Snapshot,
    *,
    seconds: float = 5.0,
    folders: Iterable[Path] = (),
    environment: tuple[str, str] | None = None,
) -> list[str]:
    """The difference to `before`, looked at again until it is empty or `seconds` have passed.

    The kernel takes links, namespaces and groups down some time after their last holder went.
    """
    spawning.forget()  # what waits for our next worker would be there for a minute
    places = tuple(folders)
    until = time.monotonic() + seconds
    while True:
        left = difference(before, snapshot(folders=places, environment=environment))
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


# ---------------------------------------------------------------------------------- the network


def _dump(netlink: Netlink, kind: int, payload: bytes) -> list[Message]:
    """A list from the kernel; empty where it does not know the kind or does not let us see it."""
    try:
        return netlink.dump(kind, payload)
    except OSError as error:
        if error.errno in _MISSING:
            return []
        raise


def _link_names(route: Netlink) -> dict[int, str]:
    found: dict[int, str] = {}
    for message in _dump(route, _GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
        index = _IFINFO.unpack_from(message.payload)[2]
        found[index] = as_text(parse(message.payload[_IFINFO.size :]).get(3))
    return found


def _links(route: Netlink) -> Iterator[str]:
    for message in _dump(route, _GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
        _, kind, index, flags, _ = _IFINFO.unpack_from(message.payload)
        attrs = parse(message.payload[_IFINFO.size :])
        info = parse(attrs.get(18, b""))
        yield (
            f"{as_text(attrs.get(3))} index={index} type={kind} kind={as_text(info.get(1))}"
            f" flags={flags:x} mtu={as_int(attrs.get(4))} qdisc={as_text(attrs.get(6))}"
            f" master={as_int(attrs.get(10))} txqueuelen={as_int(attrs.get(13))}"
            f" address={attrs.get(1, b'').hex(':')} alias={as_text(attrs.get(20))}"
        )


def _addresses(route: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for message in _dump(route, _GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        family, prefix, flags, scope, index = _IFADDR.unpack_from(message.payload)
        attrs = parse(message.payload[_IFADDR.size :])
        local = attrs.get(2, attrs.get(1, b"")).hex()
        yield f"{names.get(index, index)} family={family} {local}/{prefix} {flags:x} {scope}"


def _routes(route: Netlink) -> Iterator[str]:
    volatile = {12, 23}  # RTA_CACHEINFO, RTA_EXPIRES
    for kind in (_GETROUTE, _GETRULE):
        for message in _dump(route, kind, bytes(_ROUTE.size)):
            attrs = parse(message.payload[_ROUTE.size :])
            told = " ".join(f"{n}={attrs[n].hex()}" for n in sorted(attrs) if n not in volatile)
            if not _ROUTE.unpack_from(message.payload)[8] & 0x200:  # RTM_F_CLONED
                what = "rule" if kind == _GETRULE else "route"
                yield f"{what} {message.payload[:8].hex()} {told}"


def _disciplines(route: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for index in names:
        for kind in (_GETQDISC, _GETCLASS):
            for message in _dump(route, kind, _TC.pack(0, index, 0, 0, 0)):
                _, at, handle, parent, _ = _TC.unpack_from(message.payload)
                if at != index:
                    continue  # older kernels list the disciplines of all links
                attrs = parse(message.payload[_TC.size :])
                name = as_text(attrs.get(1))
                options = "" if name in _COUNTING_QDISCS else attrs.get(2, b"").hex()
                what = "qdisc" if kind == _GETQDISC else "class"
                yield f"{names[at]} {what} {name} {handle:x} parent {parent:x} {options}"


def _filters(route: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for index in names:
        for below in (0, _INGRESS, _EGRESS):
            for message in _dump(route, _GETFILTER, _TC.pack(0, index, 0, below, 0)):
                _, at, handle, parent, order = _TC.unpack_from(message.payload)
                attrs = parse(message.payload[_TC.size :])
                kind = as_text(attrs.get(1))
                mark = as_text(parse(attrs.get(2, b"")).get(7)) if kind == "bpf" else ""
                yield f"{names.get(at, at)} {kind} {handle:x} parent {parent:x} {order:x} {mark}"


def _firewall() -> Iterator[str]:
    """Tables, chains, rules and sets of nf_tables; the tables of the older firewall by name."""
    asked = {
        "table": (1, (1,)),
        "chain": (4, (1, 3, 2, 5)),
        "rule": (7, (1, 2, 3, 7)),
        "set": (10, (1, 2)),
    }
    try:
        netfilter = Netlink.open(_NETLINK_NETFILTER)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
    else:
        with netfilter:
            for what, (kind, told) in asked.items():
                for message in _dump(netfilter, 10 << 8 | kind, bytes(4)):
                    attrs = parse(message.payload[4:])
                    values = " ".join(attrs.get(n, b"").hex() for n in told[1:])
                    yield f"{what} family={message.payload[0]} {as_text(attrs.get(1))} {values}"
    for file in ("ip_tables_names", "ip6_tables_names"):
        path = Path("/proc/thread-self/net", file)
        if os.access(path, os.R_OK):
            yield from (
                f"{file.removesuffix('_names')} table {n}" for n in path.read_text().split()
            )


# ---------------------------------------------------------------------------- the rest of the host


def _read(path: str) -> str | None:
    """The text of a kernel file; None when it vanished or is not to be read.

    Three system calls and no more: a snapshot reads more than a thousand of these.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 1 << 16).decode(errors="surrogateescape").rstrip("\n")
    except OSError:
        return None
    finally:
        os.close(fd)


def _groups() -> Iterator[str]:
    for hierarchy in cgroup.layout().hierarchies:
        for group in cgroup.Group(hierarchy, hierarchy.root).walk():
            folder = group.folder
            values = ((name, _read(f"{folder}/{name}")) for name in _LIMITS)
            yield f"{folder} " + " ".join(f"{n}={v!r}" for n, v in values if v is not None)


def _mounts() -> Iterator[str]:
    for mount in mounts():
        options = ",".join(sorted(mount.options))
        yield f"{mount.point} {mount.type} {mount.source} root={mount.root} {options}"


def _processes(environment: tuple[str, str] | None) -> Iterator[str]:
    """Processes of ours. Keepers are left out: one that holds nothing ends by itself."""
    found = {each.id: each for each in procfs.find_marked(MARK)}
    if environment is not None:
        name, value = environment
        for each in procfs.find_by_environment(name):
            if procfs.environment(each.pid).get(name) == value:
                found[each.id] = each
            else:
                found.pop(each.id, None)
    for each in found.values():
        keeper = any(argument.startswith("keeper:") for argument in each.cmdline)
        if each.pid != os.getpid() and each.state not in "ZX" and not keeper:
            command = " ".join(each.cmdline)[:200]
            yield f"{each.pid} started {each.id.start}: {command or each.name}"


def _marked_files(folder: Path) -> Iterator[str]:
    try:
        device = folder.lstat().st_dev
    except OSError:
        return
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _device(Path(path, name)) == device]
        yield from (f"{path}/{name}" for name in (*folders, *files) if FILE_MARK in name)


def _device(path: Path) -> int | None:
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_dev if stat.S_ISDIR(info.st_mode) else None


def _sysctls() -> Iterator[str]:
    top = "/proc/sys/"
    for path, _, files in os.walk(top):
        for name in files:
            file = f"{path.rstrip('/')}/{name}"
            key = file.removeprefix(top)
            if not _VOLATILE.search(key) and (value := _read(file)) is not None:
                yield f"{key} = {value!r}"
