"""Which packets are meant, decided by the process that holds them.

Where eBPF cannot be loaded the kernel hands over every packet of a device, and this decides, by the
same rules as the classifier (`kernel.match`). Where it can, the classifier has decided and nothing
here runs.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from faultline.errors import InvalidParameter
from faultline.kernel import frame
from faultline.kernel.match import Exempt, Match, address_bytes, network_key

Matcher = Callable[[frame.Packet | None], bool]


def read_match(document: Mapping[str, Any]) -> tuple[Match, tuple[Exempt, ...]]:
    """The fields of `Match`, and `exempt`, a list of the fields of `Exempt`, from JSON.

    Raises InvalidParameter with the field's name.
    """
    known = {field.name for field in fields(Match)} | {"exempt"}
    for name in document:
        if name not in known:
            raise InvalidParameter(f"match.{name}", document[name], f"one of {sorted(known)}")
    try:
        match = Match(
            protocols=tuple(document.get("protocols") or ()),
            sources=_names(document.get("sources")),
            destinations=_names(document.get("destinations")),
            source_ports=_ranges(document.get("source_ports") or ()),
            destination_ports=_ranges(document.get("destination_ports") or ()),
            exclude=bool(document.get("exclude", False)),
            flags=int(document.get("flags", 0)),
            no_flags=int(document.get("no_flags", 0)),
        )
        exempt = tuple(Exempt(**one) for one in document.get("exempt") or ())
        for one in exempt:
            address_bytes(one.remote)
    except (TypeError, ValueError) as error:
        raise InvalidParameter("match", dict(document), str(error)) from error
    return match, exempt


def _names(networks: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if networks is None else tuple(networks)


def _ranges(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(first), int(last)) for first, last in pairs)


def compile_match(match: Match, exempt: Sequence[Exempt] = ()) -> Matcher:
    """A function that says whether an outgoing packet is meant (None, not IP, never is)."""
    protocols = frozenset(match.numbers)
    source = _within(match.sources)
    destination = _within(match.destinations)
    source_ports, destination_ports = match.source_ports, match.destination_ports
    wanted = not match.exclude
    flags, looked_at = match.flags, match.flags | match.no_flags
    left_alone = [(address_bytes(one.remote), one.remote_port, one.local_port) for one in exempt]

    def matches(packet: frame.Packet | None) -> bool:
        if packet is None or packet.neighbour or (left_alone and _is_exempt(packet, left_alone)):
            return False
        ports = packet.ports
        return wanted == (
            (not protocols or packet.protocol in protocols)
            and (not looked_at or _has(packet, flags, looked_at))
            and (source is None or source(packet.source))
            and (destination is None or destination(packet.destination))
            and (not source_ports or (ports is not None and _inside(ports[0], source_ports)))
            and (
                not destination_ports
                or (ports is not None and _inside(ports[1], destination_ports))
            )
        )

    return matches


def _has(packet: frame.Packet, flags: int, looked_at: int) -> bool:
    return (
        packet.protocol == frame.TCP
        and packet.ports is not None
        and packet.flags & looked_at == flags
    )


def _inside(port: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _whole(address: bytes) -> bytes:
    """Family and sixteen bytes, as `address_bytes` writes them."""
    return struct.pack("=I", 4 if len(address) == 4 else 6) + address.ljust(16, b"\0")


def _within(networks: Sequence[str] | None) -> Callable[[bytes], bool] | None:
    """Networks grouped by length, so that a look-up costs one step for each length."""
    if networks is None:
        return None
    groups: dict[int, set[int]] = {}
    for network in networks:
        key = network_key(network)
        shift = 160 - int.from_bytes(key[:4], sys.byteorder)
        groups.setdefault(shift, set()).add(int.from_bytes(key[4:]) >> shift)
    rules = [(shift, frozenset(members)) for shift, members in groups.items()]

    def within(address: bytes) -> bool:
        number = int.from_bytes(_whole(address))
        return any(number >> shift in members for shift, members in rules)

    return within


def _is_exempt(packet: frame.Packet, exempt: Sequence[tuple[bytes, int, int]]) -> bool:
    if packet.ports is None or packet.protocol != frame.TCP:
        return False
    local, remote = packet.ports
    there = _whole(packet.destination)
    return any(
        there == address and port in (0, remote) and own in (0, local)
        for address, port, own in exempt
    )
