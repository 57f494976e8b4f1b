"""Addresses and routes: found, kept as the kernel wrote them, and added again.

Taking a device down loses its IPv4 routes, its IPv6 routes and its IPv6 addresses. They are kept as
raw messages, so that what this program does not understand comes back as well. Layouts:
rtnetlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from faultline.kernel import netlink
from faultline.kernel.netlink import Netlink

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=8BI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RTA_PREFSRC, _RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_TABLE = 7, 9, 12, 15
_RTA_EXPIRES = 23
_NODAD, _TENTATIVE, _PERMANENT = 0x02, 0x40, 0x80
_TABLE_LOCAL, _TABLE_MAIN = 255, 254
_RTN_UNICAST = 1
_RTM_F_CLONED = 0x200
_DEAD_OR_DOWN = 0x1 | 0x10


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a device and the message that makes it again."""

    ifindex: int
    address: str
    prefix: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Route:
    """One route and the message that makes it again."""

    ifindex: int
    destination: str
    gateway: str
    table: int
    metric: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Path:
    """How packets to an address leave this namespace."""

    ifindex: int
    source: str
    gateway: str


def _text(packed: bytes | None) -> str:
    return str(ip_address(packed)) if packed else ""


def addresses(nl: Netlink, ifindex: int = 0) -> list[Address]:
    """The addresses of one device, or of all with index 0, both families."""
    found: list[Address] = []
    body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for message in nl.dump(RTM_GETADDR, body, what="list addresses"):
        _, prefix, _, _, index = _ADDRESS.unpack_from(message.payload)
        if ifindex not in (0, index):
            continue
        attrs = netlink.parse(message.payload[_ADDRESS.size :])
        packed = attrs.get(_IFA_LOCAL, attrs.get(_IFA_ADDRESS))
        found.append(Address(index, _text(packed), prefix, _address_again(message.payload)))
    return found


def _address_again(payload: bytes) -> bytes:
    """The message without states; an address that was in use is not checked for twins again."""
    family, prefix, flags, scope, index = _ADDRESS.unpack_from(payload)
    attrs: list[bytes] = []
    for kind, value in netlink.walk(payload[_ADDRESS.size :]):
        if kind != _IFA_FLAGS:
            attrs.append(netlink.attribute(kind, value))
            continue
        bits = netlink.as_int(value)
        checked = _NODAD if family == socket.AF_INET6 and not bits & _TENTATIVE else 0
        attrs.append(netlink.u32(kind, bits & ~(_TENTATIVE | _PERMANENT) | checked))
    return _ADDRESS.pack(family, prefix, flags & ~_PERMANENT, scope, index) + b"".join(attrs)


def routes(nl: Netlink, ifindex: int = 0) -> list[Route]:
    """Unicast routes over one device (0: all), of all tables but `local`, the kernel's own."""
    found: list[Route] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            messages = nl.dump(RTM_GETROUTE, body, what="list routes")
        except OSError as problem:
            if problem.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                continue
            raise
        listed = (_read_route(message.payload) for message in messages)
        found += [one for one in listed if one is not None and _over(one, ifindex)]
    return found


def _over(one: Route, ifindex: int) -> bool:
    if ifindex in (0, one.ifindex):
        return True
    multipath = netlink.parse(one.raw[_ROUTE.size :]).get(_RTA_MULTIPATH, b"")
    return ifindex in {index for index, _ in _hops(multipath)}


def _hops(data: bytes) -> list[tuple[int, int]]:
    """Device index and offset of each next hop (struct rtnexthop)."""
    found: list[tuple[int, int]] = []
    offset = 0
    while offset + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, offset)
        if length < 8:
            break
        found.append((index, offset))
        offset += netlink.align(length)
    return found


def _read_route(payload: bytes) -> Route | None:
    family, bits, _, _, table, _, _, kind, flags = _ROUTE.unpack_from(payload)
    attrs = netlink.parse(payload[_ROUTE.size :])
    table = netlink.as_int(attrs.get(_RTA_TABLE), table)
    if kind != _RTN_UNICAST or table == _TABLE_LOCAL or flags & _RTM_F_CLONED:
        return None
    anything = bytes(4 if family == socket.AF_INET else 16)
    return Route(
        ifindex=netlink.as_int(attrs.get(_RTA_OIF)),
        destination=f"{_text(attrs.get(_RTA_DST, anything))}/{bits}",
        gateway=_text(attrs.get(_RTA_GATEWAY)),
        table=table,
        metric=netlink.as_int(attrs.get(_RTA_PRIORITY)),
        raw=_route_again(payload),
    )


def _route_again(payload: bytes) -> bytes:
    """The message without ages and without the states of its next hops."""
    *head, flags = _ROUTE.unpack_from(payload)
    attrs: list[bytes] = []
    for kind, value in netlink.walk(payload[_ROUTE.size :]):
        if kind in (_RTA_CACHEINFO, _RTA_EXPIRES):
            continue
        if kind == _RTA_MULTIPATH:
            alive = bytearray(value)
            for _, offset in _hops(value):
                alive[offset + 2] &= ~_DEAD_OR_DOWN & 0xFF
            attrs.append(netlink.attribute(kind, bytes(alive)))
            continue
        attrs.append(netlink.attribute(kind, value))
    return _ROUTE.pack(*head, flags & ~_DEAD_OR_DOWN & 0xFF) + b"".join(attrs)


def _again(nl: Netlink, kind: int, raw: bytes, what: str) -> bool:
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    try:
        nl.request(kind, raw, flags=flags, what=what)
    except OSError as problem:
        if problem.errno == errno.EEXIST:
            return False
        raise
    return True


def add_address(nl: Netlink, raw: bytes) -> bool:
    """Add an address again; False when it is there already."""
    return _again(nl, RTM_NEWADDR, raw, "add an address again")


def add_route(nl: Netlink, raw: bytes) -> bool:
    """Add a route again; False when it is there already."""
    return _again(nl, RTM_NEWROUTE, raw, "add a route again")


def restore(nl: Netlink, kept_addresses: list[bytes], kept_routes: list[bytes]) -> list[str]:
    """Add everything again, addresses first and routes over a gateway last; says what failed."""
    failed: list[str] = []
    plain = [raw for raw in kept_routes if not _has_gateway(raw)]
    behind = [raw for raw in kept_routes if _has_gateway(raw)]
    todo = [(add_address, raw) for raw in kept_addresses]
    todo += [(add_route, raw) for raw in (*plain, *behind)]
    for add, raw in todo:
        try:
            add(nl, raw)
        except OSError as problem:
            failed.append(str(problem))
    return failed


def _has_gateway(raw: bytes) -> bool:
    attrs = netlink.parse(raw[_ROUTE.size :])
    return _RTA_GATEWAY in attrs or _RTA_MULTIPATH in attrs


def new_address(nl: Netlink, ifindex: int, address: str, prefix: int) -> None:
    """Give a device an address at once, without a check for duplicates. OSError EEXIST."""
    packed = ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    flags = _NODAD if family == socket.AF_INET6 else 0
    body = _ADDRESS.pack(family, prefix, flags, 0, ifindex)
    body += netlink.attribute(_IFA_LOCAL, packed) + netlink.attribute(_IFA_ADDRESS, packed)
    create = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    nl.request(RTM_NEWADDR, body, flags=create, what=f"add {address} to device {ifindex}")


def path_to(nl: Netlink, destination: str) -> Path:
    """The route that packets to an address take now. OSError ENETUNREACH, EHOSTUNREACH."""
    packed = ip_address(destination).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    body += netlink.attribute(_RTA_DST, packed)
    answer = nl.request(RTM_GETROUTE, body, what=f"find the route to {destination}")[0]
    attrs = netlink.parse(answer.payload[_ROUTE.size :])
    gateway = _text(attrs.get(_RTA_GATEWAY))
    return Path(netlink.as_int(attrs.get(_RTA_OIF)), _text(attrs.get(_RTA_PREFSRC)), gateway)


def default_interface(nl: Netlink) -> int | None:
    """The device of the default route, IPv4 before IPv6, lowest metric first; None without one."""
    plain = [r for r in routes(nl) if r.destination in ("0.0.0.0/0", "::/0")]
    main = [r for r in plain if r.table == _TABLE_MAIN and r.ifindex]
    best = min(main, key=lambda r: (r.destination != "0.0.0.0/0", r.metric), default=None)
    return best.ifindex if best else None
