"""TCP sockets by socket diagnostics: list them, end them. Source: sock_diag(7), linux/inet_diag.h.

Ending one needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY (Linux 4.5).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from faultline.kernel.netlink import Netlink

NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_TCP = 6
_LISTEN, _TIME_WAIT, _CLOSED = 10, 6, 7
_STATES = 0xFFE & ~(1 << _LISTEN | 1 << _TIME_WAIT | 1 << _CLOSED)
_REQUEST = struct.Struct("=BBBBI48s")
_ID = slice(4, 52)


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection that is open or on its way: both ends, and how the kernel names it."""

    family: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    inode: int
    id: bytes


def open_socket() -> Netlink:
    """A socket for diagnostics in the calling thread's network namespace."""
    return Netlink.open(NETLINK_SOCK_DIAG)


def connections(nl: Netlink) -> list[Connection]:
    """Every TCP connection but those that nobody has any more."""
    found: list[Connection] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, _TCP, 0, 0, _STATES, bytes(48))
        listed = nl.dump(_BY_FAMILY, request, what="list TCP connections")
        found += [_read(message.payload) for message in listed]
    return found


def _read(payload: bytes) -> Connection:
    family = payload[0]
    ports = struct.unpack_from(">HH", payload, 4)
    size = 4 if family == socket.AF_INET else 16
    local, remote = (_text(payload[at : at + size]) for at in (8, 24))
    inode = struct.unpack_from("=I", payload, 68)[0]
    return Connection(family, local, ports[0], remote, ports[1], inode, payload[_ID])


def _text(raw: bytes) -> str:
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def can_destroy(nl: Netlink) -> bool:
    """Whether this kernel ends connections; asked with one that cannot be there."""
    nobody = Connection(socket.AF_INET, "0.0.0.0", 0, "0.0.0.0", 0, 0, bytes(48))  # noqa: S104
    try:
        destroy(nl, nobody)
    except OSError as problem:
        if problem.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True


def destroy(nl: Netlink, one: Connection) -> bool:
    """End it as if it had failed: its program sees ECONNABORTED, the other side a reset.

    False when it has gone meanwhile; OSError EOPNOTSUPP where the kernel cannot.
    """
    request = _REQUEST.pack(one.family, _TCP, 0, 0, _STATES, one.id)
    try:
        nl.request(_DESTROY, request, what="end a TCP connection")
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return False
        raise
    return True
