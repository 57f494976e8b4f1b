"""What a packet fault matches and what it does: plain data, before any of it becomes a program.

Only IPv4 and IPv6 packets are ever matched. ARP and IPv6 neighbour discovery are left alone, also
by `exclude`: a fault about IP traffic that silently broke address resolution would be another
fault.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

TCP_FLAGS = {
    name: 1 << bit
    for bit, name in enumerate(("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"))
}
PROTOCOLS = {"tcp": (6,), "udp": (17,), "icmp": (1, 58), "sctp": (132,)}
MAX_RANGES = 64


KEY_BYTES = 24
ENDS_BYTES = 48
_MAPPED_BITS = 96


def parse_network(network: str) -> IPv4Network | IPv6Network:
    """A network or address; what is written as ::ffff:a.b.c.d is the IPv4 address that it means."""
    parsed = ip_network(network, strict=False)
    mapped = parsed.network_address.ipv4_mapped if isinstance(parsed, IPv6Network) else None
    if mapped is None or parsed.prefixlen < _MAPPED_BITS:
        return parsed
    return IPv4Network((mapped, parsed.prefixlen - _MAPPED_BITS))


def network_key(network: str) -> bytes:
    """The key of a network in an LPM trie: prefix length, family (4 or 6), 16 bytes of address.

    The family is part of the prefix, so that ::/0 does not hold the IPv4 addresses as well.
    """
    parsed = parse_network(network)
    packed = parsed.network_address.packed.ljust(16, b"\0")
    return struct.pack("=II", 32 + parsed.prefixlen, parsed.version) + packed


def address_bytes(address: str) -> bytes:
    """An address as the program compares it: family, then 16 bytes. ValueError for what is none."""
    return network_key(address)[4:]


@dataclass(frozen=True, slots=True)
class End:
    """One end of a socket, and the other end if it is connected; an empty address is any."""

    protocol: int
    local: str
    local_port: int
    remote: str = ""
    remote_port: int = 0
    version: int = 4  # of IP, where no address tells

    def key(self) -> bytes:
        """Protocol, family and address here, the same there, both ports in network order."""
        version = parse_network(self.local).version if self.local else self.version
        local = address_bytes(self.local) if self.local else struct.pack("=I", version) + bytes(16)
        remote = address_bytes(self.remote) if self.remote else bytes(20)
        ports = struct.pack(">HH", self.local_port, self.remote_port)
        return struct.pack("=I", self.protocol) + local + remote + ports


@dataclass(frozen=True, slots=True)
class Members:
    """Whose packets: of sockets that were made in this control group (version 2) or below it.

    `group` is its number (that of its folder). `ends` are sockets that were made elsewhere before.
    `both` means, on the loopback device, packets that a member sends and those that one gets.
    `flows` is a descriptor of the conversations that another filter has learned; -1: its own.
    """

    group: int
    ends: tuple[End, ...] = ()
    both: bool = False
    flows: int = -1


@dataclass(frozen=True, slots=True)
class Match:
    """Which packets. Fields that are left out match everything; all that are given must hold.

    `sources` and `destinations` are networks or addresses of both families, compared with the
    packet as it is on the device (nothing is translated). None is any address; an empty tuple is
    none, which is what a name without addresses means. Port ranges include both ends; a packet
    without ports (ICMP, a later fragment) never matches a port. `flags` must all be set in the TCP
    header, `no_flags` must all be clear; only TCP has them. `exclude` turns the whole answer round:
    everything but; with `members` it is everything of theirs but.
    """

    protocols: tuple[str, ...] = ()
    sources: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None
    source_ports: tuple[tuple[int, int], ...] = ()
    destination_ports: tuple[tuple[int, int], ...] = ()
    exclude: bool = False
    flags: int = 0
    no_flags: int = 0
    members: Members | None = None

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise ValueError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
        for ranges in (self.source_ports, self.destination_ports):
            if len(ranges) > MAX_RANGES:
                raise ValueError(f"{len(ranges)} port ranges; at most {MAX_RANGES} are possible")
            for first, last in ranges:
                if not 0 <= first <= last <= 65535:
                    raise ValueError(f"ports {first}-{last}: expected 0 <= first <= last <= 65535")
        if not 0 <= self.flags <= 0xFF or not 0 <= self.no_flags <= 0xFF:
            raise ValueError("the flags of TCP are eight bits")
        for network in (*(self.sources or ()), *(self.destinations or ())):
            network_key(network)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The protocol numbers; none means all."""
        return tuple(number for name in self.protocols for number in PROTOCOLS[name])


@dataclass(frozen=True, slots=True)
class Exempt:
    """A TCP connection, or all of one service, that is never touched.

    `remote` is the other side's address, its port `remote_port` and ours `local_port`; a port 0 is
    any.
    """

    remote: str
    remote_port: int = 0
    local_port: int = 0


class ActionKind(StrEnum):
    """What happens to a packet that is hit."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    REDIRECT = "redirect"
    ANSWER = "answer"


class Answer(StrEnum):
    """What the sender of a packet is told instead of its being delivered."""

    REFUSED = "refused"  # TCP reset; port unreachable to everything else
    HOST = "host unreachable"
    NET = "network unreachable"
    PROHIBITED = "prohibited"


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to how many of the matched packets.

    `percent` chooses at random; `every` (when not 0) takes exactly every n-th instead.
    `correlation` is the percentage of decisions that repeat the one before: the share stays as
    asked, losses come in bursts. `target` is the device a redirected (or corrupted) packet is
    handed to. `answer` is what the sender of an answered packet is told. With a `seed` the n-th
    matched packet meets the same fate each time; 0: the kernel's own random numbers.
    """

    kind: ActionKind
    percent: float = 100.0
    every: int = 0
    correlation: float = 0.0
    fix_checksum: bool = False
    target: int = 0
    answer: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100 or not 0 <= self.correlation <= 100:
            raise ValueError("percent and correlation are between 0 and 100")
        if self.every < 0 or self.target < 0:
            raise ValueError("every and target are not negative")
        if not 0 <= self.seed < 2**64:
            raise ValueError("seed has 64 bits")
        if self.kind is ActionKind.REDIRECT and not self.target:
            raise ValueError("a redirect needs its target device")
        if self.kind is ActionKind.ANSWER:
            Answer(self.answer)


@dataclass(frozen=True, slots=True)
class Guard:
    """When the fault stands aside by itself.

    `deadline` is an instant of the kernel's boot clock in nanoseconds (0: none). `heartbeat` is the
    age in nanoseconds beyond which the worker counts as dead (0: no worker). `exempt` connections
    are always left alone.
    """

    deadline: int = 0
    heartbeat: int = 0
    exempt: tuple[Exempt, ...] = field(default=())
