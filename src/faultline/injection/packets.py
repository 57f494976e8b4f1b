"""Which packets a network fault hits: the parameters that all of them share, and what they become.

Fields are those of a packet as it is on the device. With `direction: both` the incoming half is
matched with source and destination swapped, so that one conversation is hit both ways.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from faultline.api.params import Params
from faultline.api.quantities import Flag
from faultline.changes.classifier import match_to
from faultline.changes.model import Change
from faultline.errors import InvalidParameter, TargetGone
from faultline.injection import guards
from faultline.kernel import link, procnet, route
from faultline.kernel.match import TCP_FLAGS, Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction

FOLLOW = 5.0  # seconds between two look-ups of a host name


def _split(value: Any) -> Any:
    """Comma lists as people type them; YAML lists as they are."""
    if not isinstance(value, (str, list)):
        return value
    parts = [value] if isinstance(value, str) else cast("list[object]", value)
    return [item.strip() for part in parts for item in str(part).split(",") if item.strip()]


Names = Annotated[list[str], BeforeValidator(_split)]


class PacketParams(Params):
    """Which packets are hit. Everything that is given must hold; nothing given is every packet."""

    interface: Annotated[str | None, Flag("i")] = None
    """The device. Found by the route to the first destination, else the one of the default route.
    """
    direction: Annotated[Literal["out", "in", "both"], Flag("d")] = "out"
    """Packets that leave, that arrive, or both (then source and destination are swapped for `in`).
    """
    source: Annotated[Names, Flag("", ("src-ip",))] = Field(default_factory=list[str])
    """Source addresses, CIDR networks or host names."""
    destination: Annotated[Names, Flag("", ("dst-ip",))] = Field(default_factory=list[str])
    """Destination addresses, CIDR networks or host names. Names are looked up again every 5 s."""
    source_port: Annotated[Names, Flag("", ("src-port",))] = Field(default_factory=list[str])
    """Source ports or ranges such as 8000-8100."""
    destination_port: Annotated[Names, Flag("", ("dst-port",))] = Field(default_factory=list[str])
    """Destination ports or ranges."""
    protocol: Annotated[Literal["all", "tcp", "udp", "icmp", "sctp"], Flag("P")] = "all"
    """Only packets of this protocol; icmp means ICMPv6 too."""
    tcp_flags: Names = Field(default_factory=list[str])
    """Only TCP segments with these flags set, or with ! before it clear: `syn,!ack`."""
    exclude: Annotated[bool, Flag("x")] = False
    """Turn the choice round: hit everything but what matches."""
    engine: Literal["auto", "ebpf", "netem", "packets"] = "auto"
    """How it is done; chosen by trying what the kernel offers."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One device and direction with what is matched there: where one filter goes."""

    device: link.Link
    direction: Direction
    match: Match
    names: dict[str, list[str]]  # host names to follow, by side
    group: dict[str, Any] | None = None  # of those whose packets are meant; None: everybody's
    taught_by: int | None = None  # the step whose filter learns which conversations those are

    def spec(self, action: dict[str, Any], what: str) -> dict[str, Any]:
        """The part of a change's spec that says which packets."""
        return {
            "device": self.device.name,
            "ifindex": self.device.index,
            "direction": str(self.direction),
            "match": match_to(self.match),
            "action": action,
            "exempt": exempt(),
            "what": what,
            **({"group": self.group, "taught_by": self.taught_by} if self.group else {}),
        }


def ports(field: str, values: list[str]) -> tuple[tuple[int, int], ...]:
    """Ports and ranges; raises InvalidParameter."""
    found: list[tuple[int, int]] = []
    for value in values:
        parsed = re.fullmatch(r"(\d{1,5})(?:[-:](\d{1,5}))?", value)
        low, high = (int(parsed[1]), int(parsed[2] or parsed[1])) if parsed else (1, 0)
        if not 0 < low <= high <= 65535:
            raise InvalidParameter(field, value, "a port or a range such as 8000-8100, 1 to 65535")
        found.append((low, high))
    return tuple(found)


def flags(values: list[str]) -> tuple[int, int]:
    """The flags of TCP that must be set and those that must be clear; raises InvalidParameter."""
    found = {True: 0, False: 0}
    for value in values:
        name = value.lower().removeprefix("!").strip()
        if name not in TCP_FLAGS:
            raise InvalidParameter("tcp_flags", value, f"any of {', '.join(TCP_FLAGS)}, or !syn")
        found[not value.startswith("!")] |= TCP_FLAGS[name]
    if found[True] & found[False]:
        raise InvalidParameter("tcp_flags", values, "no flag that is to be both set and clear")
    return found[True], found[False]


def addresses(field: str, values: list[str]) -> tuple[tuple[str, ...] | None, list[str]]:
    """The networks meant (None: any) and those of the values that are host names."""
    if not values:
        return None, []
    networks: list[str] = []
    names: list[str] = []
    for value in values:
        try:
            networks.append(str(ipaddress.ip_network(value, strict=False)))
        except ValueError:
            networks += look_up(field, value)
            names.append(value)
    return tuple(dict.fromkeys(networks)), names


def look_up(field: str, name: str) -> list[str]:
    """The addresses that a host name has now, in the caller's namespaces."""
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", name):
        raise InvalidParameter(field, name, "an address, a CIDR network or a host name")
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        hint = f"it could not be resolved: {error.strerror}"
        raise InvalidParameter(field, name, "a host name that resolves", hint=hint) from error
    return sorted({str(answer[4][0]).partition("%")[0] for answer in answers})


def device(nl: Netlink, params: PacketParams, destinations: tuple[str, ...] | None) -> link.Link:
    """The device named, or the one that the route to the destination leaves by."""
    if params.interface:
        return named(nl, params.interface)
    first = destinations[0].partition("/")[0] if destinations else ""
    index = _leaving_by(nl, first) if first else route.default_interface(nl)
    if not index:
        raise InvalidParameter("interface", None, "a device: no route tells which one is meant")
    return link.get(nl, index)


def _leaving_by(nl: Netlink, address: str) -> int:
    try:
        return route.path_to(nl, address).ifindex
    except OSError as error:
        hint = f"no route leads to {address}: {error.strerror}"
        raise InvalidParameter("interface", None, "a device", hint=hint) from error


def named(nl: Netlink, interface: str) -> link.Link:
    """The device of this name; raises InvalidParameter with the names there are."""
    found = link.find(nl, interface)
    if found is None:
        names = ", ".join(each.name for each in link.links(nl))
        raise InvalidParameter("interface", interface, f"one of {names}")
    return found


def aims(params: PacketParams) -> list[Aim]:
    """Where the filters go: one for each direction."""
    destinations, destination_names = addresses("destination", params.destination)
    sources, source_names = addresses("source", params.source)
    wanted, unwanted = flags(params.tcp_flags)
    if params.tcp_flags and params.protocol not in ("all", "tcp"):
        raise InvalidParameter("tcp_flags", params.tcp_flags, f"none: {params.protocol} has none")
    match = Match(
        protocols=() if params.protocol == "all" else (params.protocol,),
        sources=sources,
        destinations=destinations,
        source_ports=ports("source_port", params.source_port),
        destination_ports=ports("destination_port", params.destination_port),
        exclude=params.exclude,
        flags=wanted,
        no_flags=unwanted,
    )
    names = {"sources": source_names, "destinations": destination_names}
    with Netlink.open() as nl:
        on = device(nl, params, destinations)
    if not on.up:
        raise TargetGone(f"the interface {on.name} is down: no packet passes it")
    found: list[Aim] = []
    if params.direction in ("out", "both"):
        found.append(Aim(on, Direction.EGRESS, match, names))
    if params.direction == "in":
        found.append(Aim(on, Direction.INGRESS, match, names))
    elif params.direction == "both" and not on.loopback:
        swapped = {"sources": names["destinations"], "destinations": names["sources"]}
        found.append(Aim(on, Direction.INGRESS, _swap(match), swapped))
    return found


def _swap(match: Match) -> Match:
    """The same conversation seen from the other side."""
    return replace(
        match,
        sources=match.destinations,
        destinations=match.sources,
        source_ports=match.destination_ports,
        destination_ports=match.source_ports,
    )


def exempt() -> list[dict[str, Any]]:
    """The caller's own way in, which no network fault may cut; told in the plan."""
    guard = guards.current()
    guard.exempt = []
    found: list[dict[str, Any]] = []
    for connection in procnet.caller_connections():
        found.append(
            {
                "remote": connection.remote_address,
                "remote_port": connection.remote_port,
                "local_port": connection.local_port,
            }
        )
        guard.exempt.append(
            f"your own session from {connection.remote_address} port "
            f"{connection.remote_port} to port {connection.local_port}"
        )
    return found


def follow(aim: Aim, step: int) -> list[Change]:
    """The worker that keeps the addresses of host names current in the filter of `step`."""
    names = {side: found for side, found in aim.names.items() if found}
    if not names:
        return []
    fixed = {
        "sources": _fixed(aim.match.sources, aim.names["sources"]),
        "destinations": _fixed(aim.match.destinations, aim.names["destinations"]),
    }
    spec = {
        "device": aim.device.name,
        "ifindex": aim.device.index,
        "direction": str(aim.direction),
        "step": step,
        "names": names,
        "fixed": fixed,
        "interval": FOLLOW,
    }
    listed = ", ".join(name for found in names.values() for name in found)
    what = f"look up {listed} every {FOLLOW:g} s and keep the filter's addresses current"
    return [Change("worker", {"module": "follow_names", "spec": spec, "what": what})]


def _fixed(networks: tuple[str, ...] | None, names: list[str]) -> list[str]:
    """The networks that were given as such; those of names are looked up again."""
    looked_up = {address for name in names for address in look_up("destination", name)}
    return [network for network in networks or () if network not in looked_up]
