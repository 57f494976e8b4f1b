"""Which process listens where, and over which connection the caller himself came.

The tables of /proc/net (proc_pid_net(5)) tie an address to a socket's inode, and the descriptors of
processes tie the inode to them. The caller's own session must be known so that no fault cuts it
off.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from faultline.kernel import procfs

_ESTABLISHED: Final = 1
_LISTEN: Final = 10
_UNCONNECTED: Final = 7  # a bound datagram socket


class Transport(StrEnum):
    """The tables that are read."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Socket:
    """One line of a table: addresses in their usual text form, IPv4 in IPv6 unwrapped."""

    transport: Transport
    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    inode: int


@dataclass(frozen=True, slots=True)
class Connection:
    """The two ends of a TCP connection, seen from this host."""

    remote_address: str
    remote_port: int
    local_address: str
    local_port: int


def _address(text: str) -> tuple[str, int]:
    host, port = text.split(":")
    raw = bytes.fromhex(host)
    if sys.byteorder == "little":  # each 32-bit word stands in the order of this machine
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address), int(port, 16)


def sockets(transport: Transport, pid: int | None = None) -> list[Socket]:
    """The sockets of both IP versions in the network namespace of `pid`, by default of the calling
    thread.
    """
    found: list[Socket] = []
    who = "thread-self" if pid is None else str(pid)  # one thread alone may be elsewhere
    for table in (str(transport), f"{transport}6"):
        try:
            lines = (procfs.PROC / who / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            local, remote = _address(fields[1]), _address(fields[2])
            found.append(Socket(transport, local, remote, int(fields[3], 16), int(fields[9])))
    return found


def owners(inodes: Iterable[int]) -> dict[int, list[int]]:
    """The pids that hold each of these sockets open; those that nobody visible holds are left
    out.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[int]] = {}
    if not wanted:
        return found
    for pid in procfs.pids():
        for target in set(procfs.descriptors(pid).values()) & wanted.keys():
            found.setdefault(wanted[target], []).append(pid)
    return found


def find_by_port(
    port: int, transport: Transport = Transport.TCP, pid: int | None = None
) -> list[procfs.Process]:
    """The processes that listen on this TCP port or have this UDP port bound, over IPv4 or IPv6.

    `pid` names the network namespace that the port is one of (default: ours).
    """
    state = _LISTEN if transport is Transport.TCP else _UNCONNECTED
    inodes = {
        each.inode
        for each in sockets(transport, pid)
        if each.local[1] == port and each.state == state and each.inode
    }
    found: list[procfs.Process] = []
    for owner in sorted({pid for pids in owners(inodes).values() for pid in pids}):
        try:
            found.append(procfs.process(owner))
        except ProcessLookupError:
            continue
    return found


def _plain(address: str) -> str:
    """Without the zone of a link-local address and without an IPv4 address's IPv6 wrapping."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return str(parsed)


def parse_ssh_connection(text: str) -> Connection | None:
    """Read the variable SSH_CONNECTION (ssh(1)): client, its port, server, its port."""
    found = re.fullmatch(
        r"([0-9A-Fa-f:.%\w]+) (\d{1,5}) ([0-9A-Fa-f:.%\w]+) (\d{1,5})", text.strip()
    )
    if not found:
        return None
    try:
        return Connection(_plain(found[1]), int(found[2]), _plain(found[3]), int(found[4]))
    except ValueError:  # not addresses
        return None


def caller_connections(pid: int | None = None) -> list[Connection]:
    """The connections over which the user of this process (or of `pid`) reached this host.

    Taken from SSH_CONNECTION of the process and its ancestors (sudo drops the variable from its
    child, not from its parents) and from accepted TCP connections that an ancestor holds open: an
    established socket whose local port somebody in the namespace listens on. PID 1 is no session.
    """
    line = [os.getpid() if pid is None else pid, *procfs.ancestors(pid)]
    found: dict[Connection, None] = {}
    for each in line:
        variables = dict(os.environ) if each == os.getpid() else procfs.environment(each)
        connection = parse_ssh_connection(variables.get("SSH_CONNECTION", ""))
        if connection:
            found[connection] = None
    held = _sockets_held(parent for parent in line[1:] if parent != 1)
    if not held:
        return list(found)  # the table below takes 20 ms to list, however few are in it
    table = sockets(Transport.TCP, pid)
    listening = {each.local[1] for each in table if each.state == _LISTEN}
    accepted = {
        f"socket:[{each.inode}]": each
        for each in table
        if each.state == _ESTABLISHED and each.local[1] in listening
    }
    for target in held:
        if target in accepted:
            one = accepted[target]
            found[Connection(*one.remote, *one.local)] = None
    return list(found)


def _sockets_held(processes: Iterable[int]) -> list[str]:
    """What the descriptors of these processes that are sockets are linked to."""
    targets = (target for each in processes for target in procfs.descriptors(each).values())
    return [target for target in dict.fromkeys(targets) if target.startswith("socket:")]
