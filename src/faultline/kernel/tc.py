"""Queueing disciplines and filters: list, add, delete, count, through one given netlink socket.

Layouts: linux/pkt_sched.h, linux/pkt_cls.h, rtnetlink(7). What a discipline is set to is built in
`shaping`; here is what they all share.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum

from faultline.kernel import netlink
from faultline.kernel.netlink import Netlink

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTCLASS, RTM_DELTCLASS, RTM_GETTCLASS = 40, 41, 42
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

ROOT = 0xFFFFFFFF
CLSACT_PARENT = 0xFFFFFFF1
CLSACT_HANDLE = 0xFFFF0000
ETH_P_ALL = 0x0003

_TCMSG = struct.Struct("=BxxxiIII")
_KIND, _OPTIONS, _STATS2 = 1, 2, 7
_STATS_BASIC, _STATS_QUEUE, _STATS_PKT64 = 1, 3, 8
_BPF_CLASSID, _BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 3, 6, 7, 8, 11
_BPF_ACT, _BPF_ACT_DIRECT = 1, 1
_U32_CLASSID, _U32_SEL, _U32_ACT = 1, 5, 7
_U32_TERMINAL = 1
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARMS = 2
_ACT_STOLEN, _ACT_PIPE = 4, 3
_EGRESS_REDIRECT, _INGRESS_REDIRECT = 1, 3


class Direction(StrEnum):
    """Which way packets pass a device, seen from the host."""

    EGRESS = "egress"
    INGRESS = "ingress"

    @property
    def parent(self) -> int:
        """The place of its filters in clsact."""
        return 0xFFFFFFF3 if self is Direction.EGRESS else 0xFFFFFFF2


@dataclass(frozen=True, slots=True)
class Stats:
    """What a queueing discipline counted; backlog is what it holds now."""

    bytes: int = 0
    packets: int = 0
    drops: int = 0
    overlimits: int = 0
    queued_packets: int = 0
    queued_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline with its options as the kernel wrote them."""

    index: int
    kind: str
    handle: int
    parent: int
    options: bytes
    stats: Stats


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter. `name` and `program` are those of a bpf filter."""

    index: int
    parent: int
    priority: int
    protocol: int
    handle: int
    kind: str
    options: bytes
    name: str = ""
    program: int = 0


def _message(index: int, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return _TCMSG.pack(socket.AF_UNSPEC, index, handle, parent, info)


def _stats(payload: bytes) -> Stats:
    attrs = netlink.parse(payload)
    octets, packets = 0, 0
    if len(basic := attrs.get(_STATS_BASIC, b"")) >= 12:
        octets, packets = struct.unpack_from("=QI", basic)
    packets = netlink.as_int(attrs.get(_STATS_PKT64), packets)
    qlen = backlog = drops = overlimits = 0
    if len(queue := attrs.get(_STATS_QUEUE, b"")) >= 20:
        qlen, backlog, drops, _, overlimits = struct.unpack_from("=5I", queue)
    return Stats(octets, packets, drops, overlimits, qlen, backlog)


def qdiscs(nl: Netlink, index: int = 0) -> list[Qdisc]:
    """The queueing disciplines of one device, or of all with index 0."""
    found: list[Qdisc] = []
    for message in nl.dump(RTM_GETQDISC, _message(index), what="list queueing disciplines"):
        _, at, handle, parent, _ = _TCMSG.unpack_from(message.payload)
        if index not in (0, at):
            continue
        attrs = netlink.parse(message.payload[_TCMSG.size :])
        kind = netlink.as_text(attrs.get(_KIND))
        options = attrs.get(_OPTIONS, b"")
        found.append(Qdisc(at, kind, handle, parent, options, _stats(attrs.get(_STATS2, b""))))
    return found


def root(nl: Netlink, index: int) -> Qdisc | None:
    """The root queueing discipline of a device; None where there is no queue."""
    return next((q for q in qdiscs(nl, index) if q.parent == ROOT), None)


def add_qdisc(
    nl: Netlink, index: int, kind: str, options: bytes, *, handle: int = 0, parent: int = ROOT
) -> None:
    """Add one. OSError EEXIST when the place is taken, ENOENT when the kernel has no such kind."""
    body = _message(index, handle, parent) + netlink.text(_KIND, kind)
    if options:
        body += netlink.attribute(_OPTIONS, options)
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    nl.request(RTM_NEWQDISC, body, flags=flags, what=f"add {kind} to device {index}")


def change_qdisc(nl: Netlink, index: int, kind: str, options: bytes, *, handle: int) -> None:
    """Change the settings of one that is there; packets that it holds stay."""
    body = _message(index, handle, ROOT) + netlink.text(_KIND, kind)
    body += netlink.attribute(_OPTIONS, options)
    nl.request(RTM_NEWQDISC, body, what=f"change {kind} of device {index}")


def delete_qdisc(nl: Netlink, index: int, *, parent: int = ROOT, handle: int = 0) -> bool:
    """Delete one; False when it, or the device, is not there."""
    try:
        nl.request(
            RTM_DELQDISC, _message(index, handle, parent), what=f"delete a qdisc of device {index}"
        )
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            return False
        raise
    return True


def add_class(
    nl: Netlink, index: int, kind: str, options: bytes, *, handle: int, parent: int
) -> None:
    body = _message(index, handle, parent) + netlink.text(_KIND, kind)
    body += netlink.attribute(_OPTIONS, options)
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    nl.request(RTM_NEWTCLASS, body, flags=flags, what=f"add a {kind} class to device {index}")


def ingress_kind(nl: Netlink, index: int) -> str:
    """What holds the device's filters: `clsact`, `ingress`, or nothing."""
    found = (q.kind for q in qdiscs(nl, index) if q.handle == CLSACT_HANDLE)
    return next(found, "")


def add_clsact(nl: Netlink, index: int) -> bool:
    """Make sure of clsact; True when it was made now. OSError EEXIST beside an `ingress` qdisc."""
    if ingress_kind(nl, index) == "clsact":
        return False
    add_qdisc(nl, index, "clsact", b"", handle=CLSACT_HANDLE, parent=CLSACT_PARENT)
    return True


def delete_clsact(nl: Netlink, index: int) -> bool:
    return delete_qdisc(nl, index, parent=CLSACT_PARENT, handle=CLSACT_HANDLE)


def filters(nl: Netlink, index: int, parent: int) -> list[Filter]:
    """The filters at one place of a device, first to last; none when the place is not there."""
    try:
        found = nl.dump(RTM_GETTFILTER, _message(index, parent=parent), what="list filters")
    except OSError as problem:
        if problem.errno in (errno.EINVAL, errno.ENODEV, errno.ENOENT):
            return []
        raise
    listed = [_read_filter(message.payload) for message in found]
    return [one for one in listed if one.handle and one.index == index]


def _read_filter(payload: bytes) -> Filter:
    _, index, handle, parent, info = _TCMSG.unpack_from(payload)
    attrs = netlink.parse(payload[_TCMSG.size :])
    kind, options = netlink.as_text(attrs.get(_KIND)), attrs.get(_OPTIONS, b"")
    name, program = "", 0
    if kind == "bpf":
        inner = netlink.parse(options)
        name, program = netlink.as_text(inner.get(_BPF_NAME)), netlink.as_int(inner.get(_BPF_ID))
    protocol = socket.ntohs(info & 0xFFFF)
    return Filter(index, parent, info >> 16, protocol, handle, kind, options, name, program)


def _add_filter(
    nl: Netlink, index: int, parent: int, priority: int, kind: str, *options: bytes
) -> None:
    info = priority << 16 | socket.htons(ETH_P_ALL)
    body = _message(index, 0, parent, info) + netlink.text(_KIND, kind)
    body += netlink.nested(_OPTIONS, *options)
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    nl.request(RTM_NEWTFILTER, body, flags=flags, what=f"add a {kind} filter to device {index}")


def add_bpf(nl: Netlink, index: int, parent: int, priority: int, fd: int, name: str) -> None:
    """Add a loaded program whose answer is the verdict (direct action). OSError EEXIST if taken."""
    _add_filter(
        nl, index, parent, priority, "bpf",
        netlink.u32(_BPF_FD, fd),
        netlink.text(_BPF_NAME, name),
        netlink.u32(_BPF_FLAGS, _BPF_ACT_DIRECT),
    )  # fmt: skip


def replace_bpf(nl: Netlink, one: Filter, fd: int) -> bool:
    """Give a bpf filter of ours another program under its name; False when it is not there."""
    info = one.priority << 16 | socket.htons(one.protocol)
    body = _message(one.index, one.handle, one.parent, info) + netlink.text(_KIND, one.kind)
    body += netlink.nested(
        _OPTIONS,
        netlink.u32(_BPF_FD, fd),
        netlink.text(_BPF_NAME, one.name),
        netlink.u32(_BPF_FLAGS, _BPF_ACT_DIRECT),
    )
    try:
        nl.request(RTM_NEWTFILTER, body, what=f"replace a filter of device {one.index}")
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENODEV):
            return False
        raise
    return True


def _mirred(target: int, into: Direction) -> bytes:
    """One action: hand the packet to `target`, as if it left or arrived there."""
    redirect = _EGRESS_REDIRECT if into is Direction.EGRESS else _INGRESS_REDIRECT
    parameters = struct.pack("=IIiiiiI", 0, 0, _ACT_STOLEN, 0, 0, redirect, target)
    options = netlink.nested(_ACT_OPTIONS, netlink.attribute(_MIRRED_PARMS, parameters))
    return netlink.nested(1, netlink.text(_ACT_KIND, "mirred"), options)


def add_bpf_mirred(
    nl: Netlink, index: int, parent: int, priority: int, fd: int, name: str, target: int
) -> None:  # fmt: skip
    """Add a loaded program that chooses (0 no, -1 yes) and hand what it chooses to `target`."""
    _add_filter(
        nl, index, parent, priority, "bpf",
        netlink.nested(_BPF_ACT, _mirred(target, Direction.EGRESS)),
        netlink.u32(_BPF_FD, fd),
        netlink.text(_BPF_NAME, name),
    )  # fmt: skip


def add_u32(nl: Netlink, index: int, parent: int, priority: int, target: int = 0) -> None:
    """Choose every packet without eBPF; with a `target` hand it over there, as if it left there."""
    selector = struct.pack("=BBBBHHhhIIIii", _U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    options = [netlink.attribute(_U32_SEL, selector)]
    if target:
        options.append(netlink.nested(_U32_ACT, _mirred(target, Direction.EGRESS)))
    else:
        options.append(netlink.u32(_U32_CLASSID, 1))
    _add_filter(nl, index, parent, priority, "u32", *options)


def redirects_to(one: Filter) -> int | None:
    """The device that a u32 filter hands its packets to; 0 when that is gone, None without such."""
    actions = netlink.parse(netlink.parse(one.options).get(_U32_ACT, b""))
    for action in actions.values():
        found = netlink.parse(action)
        if netlink.as_text(found.get(_ACT_KIND)) == "mirred":
            options = netlink.parse(found.get(_ACT_OPTIONS, b""))
            parameters = options.get(_MIRRED_PARMS, b"")
            return struct.unpack_from("=IIiiiiI", parameters)[6] if len(parameters) >= 28 else 0
    return None


def delete_filter(nl: Netlink, one: Filter) -> bool:
    """Delete exactly this filter (place, priority, handle, kind); False when it is not there."""
    info = one.priority << 16 | socket.htons(one.protocol)
    body = _message(one.index, one.handle, one.parent, info) + netlink.text(_KIND, one.kind)
    try:
        nl.request(RTM_DELTFILTER, body, what=f"delete a {one.kind} filter of device {one.index}")
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            return False
        raise
    return True
