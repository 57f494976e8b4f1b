"""The same question that the eBPF program answers, asked in Python: does this packet match?

It chooses the packets with which a fault is measured, and in the tests it is the program's oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

from faultline.kernel.match import Exempt, Match, address_bytes, parse_network
from faultline.kernel.tc import Direction

PORTLESS = frozenset({1, 58})
_DOCUMENTATION = (
    "192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "2001:db8:ffff::7",
)  # fmt: skip
_PORTS = (9, 40009, 50021)


@dataclass(frozen=True, slots=True)
class Headers:
    """What a match looks at. `protocol` is 1, 6, 17, 58, 132; ports are 0 where there are none."""

    protocol: int
    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0
    flags: int = 0  # of TCP

    @property
    def version(self) -> int:
        return ip_address(self.source).version


def matches(match: Match, packet: Headers) -> bool:
    """Whether the fault matches this packet."""
    return _plainly(match, packet) != match.exclude


def _plainly(match: Match, packet: Headers) -> bool:
    if match.numbers and packet.protocol not in match.numbers:
        return False
    if match.flags or match.no_flags:
        looked_at = match.flags | match.no_flags
        if packet.protocol != 6 or packet.flags & looked_at != match.flags:
            return False
    for ranges, port in (
        (match.source_ports, packet.source_port),
        (match.destination_ports, packet.destination_port),
    ):
        if ranges and packet.protocol in PORTLESS:
            return False
        if ranges and not any(first <= port <= last for first, last in ranges):
            return False
    return _inside(match.sources, packet.source) and _inside(match.destinations, packet.destination)


def _inside(networks: tuple[str, ...] | None, address: str) -> bool:
    if networks is None:
        return True
    found = ip_address(address)
    return any(found in parse_network(network) for network in networks)


def exempted(exempt: tuple[Exempt, ...], direction: Direction, packet: Headers) -> bool:
    """Whether the packet belongs to a connection that is left alone."""
    outgoing = direction is Direction.EGRESS
    remote = packet.destination if outgoing else packet.source
    remote_port = packet.destination_port if outgoing else packet.source_port
    local_port = packet.source_port if outgoing else packet.destination_port
    return any(
        packet.protocol == 6
        and address_bytes(one.remote) == address_bytes(remote)
        and one.remote_port in (0, remote_port)
        and one.local_port in (0, local_port)
        for one in exempt
    )


def example(match: Match, direction: Direction, exempt: tuple[Exempt, ...] = ()) -> Headers | None:
    """Some packet that the fault matches and that is not exempt; None when no candidate does."""
    return next(
        (p for p in _candidates(match) if matches(match, p) and not exempted(exempt, direction, p)),
        None,
    )


def _candidates(match: Match) -> Iterator[Headers]:
    flags = match.flags
    if match.exclude and (match.flags or match.no_flags):
        flags = match.flags ^ 0xFF & (match.flags | match.no_flags)
    numbers = dict.fromkeys((*match.numbers, 17, 6, 1, 58))
    sources, destinations = _addresses(match.sources), _addresses(match.destinations)
    source_ports, destination_ports = _ports(match.source_ports), _ports(match.destination_ports)
    for number, source, destination in product(numbers, sources, destinations):
        version = ip_address(source).version
        if version != ip_address(destination).version or (number, version) in ((1, 6), (58, 4)):
            continue
        if number in PORTLESS:
            yield Headers(number, source, destination)
            continue
        for source_port, destination_port in product(source_ports, destination_ports):
            told = flags if number == 6 else 0
            yield Headers(number, source, destination, source_port, destination_port, told)


def _addresses(networks: tuple[str, ...] | None) -> list[str]:
    """A few addresses: one of each of the first networks, then some that belong to nobody."""
    given = [_one_of(network) for network in (networks or ())[:16]]
    return list(dict.fromkeys((*given, *_DOCUMENTATION)))


def _one_of(network: str) -> str:
    parsed = parse_network(network)
    first: IPv4Address | IPv6Address = parsed.network_address
    return str(first + 1 if parsed.num_addresses > 2 else first)


def _ports(ranges: tuple[tuple[int, int], ...]) -> list[int]:
    edges = [port for first, last in ranges for port in (first, last)]
    beyond = [last + 1 for _, last in ranges if last < 65535]
    return list(dict.fromkeys((*edges[:8], *_PORTS, *beyond[:8])))
