"""A device that is taken down, a port that is held."""

from __future__ import annotations

import errno
import socket
from signal import SIGKILL
from typing import Annotated, ClassVar, Literal

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag
from faultline.changes.model import Change, Record, read_mark
from faultline.errors import Conflict, Refused, Unsupported
from faultline.injection import guards, packets
from faultline.injection.model import Ending, Fault
from faultline.injection.process_target import RestartParams, identity, restart
from faultline.injection.reading import Effect, Reading
from faultline.kernel import procfs, procnet, route
from faultline.kernel.netlink import Netlink
from faultline.places.model import Place


class DownParams(Params):
    """Parameters of `network down`."""

    interface: Annotated[str, Flag("i")]
    """The device to take down."""


class NetworkDown(Fault[DownParams]):
    """Take a network device down.

    The device of the default route is refused unless it is allowed by name.
    """

    id = "network.down"
    ending = Ending.KEEPER
    does = (
        "Clears the device's UP flag; the kernel then drops its routes and global IPv6 addresses. "
        "The mark is written into the device's alias, if it has none."
    )
    cannot = "Connections that time out meanwhile do not come back."
    restores = "Sets the device up, then adds each address and route that was there and is missing."
    measures = "The device's flags, and that the kernel finds no route over it."
    needs = frozenset({"net_admin"})
    scratch = "netns"
    example: ClassVar[dict[str, str]] = {"interface": "lo"}

    def plan(self, place: Place, params: DownParams) -> list[Change]:
        if not place.is_host and not place.own_network:
            raise Unsupported(
                f"{place.words} shares the network of this host: the device is everybody's",
                hint="cut its packets off instead: faultline inject network partition",
            )
        with Netlink.open() as nl:
            device = packets.named(nl, params.interface)
            if device.index == route.default_interface(nl):
                guards.current().refuse(
                    device.name, f"{device.name} carries the default route of this host"
                )
        spec = {"device": device.name, "ifindex": device.index}
        return [Change("link_down", spec)]

    def observe(self, place: Place, params: DownParams, record: Record) -> Reading:
        with Netlink.open() as nl:
            device = packets.named(nl, params.interface)
            left = route.routes(nl, device.index)
        down = not device.up and not left
        effect = Effect.EFFECTIVE if down else Effect.INEFFECTIVE
        state = "down" if not device.up else "up"
        measured = f"{device.name} is {state}, {len(left)} routes over it"
        return Reading(effect, f"{device.name} down", measured, self.measures)


class OccupyParams(RestartParams):
    """Parameters of `network occupy`."""

    port: Annotated[int, Between(1, 65535), Flag("p")]
    """The port to hold."""
    protocol: Annotated[Literal["tcp", "udp"], Flag("P")] = "tcp"
    """Which kind of port."""
    address: str = ""
    """Hold it on this address only; on all of both families when not given."""
    force: Annotated[bool, Flag("f")] = False
    """End the program that has the port now (SIGKILL); give `restart` to bring it back."""


def _of_ours(holders: list[procfs.Process]) -> list[str]:
    """The uids of the faults that hold the port."""
    marks = [read_mark(argument) for each in holders for argument in each.cmdline]
    return [found[0] for found in marks if found]


def _check_theirs(place: Place, params: OccupyParams, holders: list[procfs.Process]) -> None:
    """Raise Refused for a program outside a place that shares the network: it is not meant."""
    if place.is_host or place.own_network:
        return
    inside = {each.id for each in place.processes()}
    others = [each for each in holders if each.id not in inside]
    if others:
        names = ", ".join(f"{each.name} (pid {each.pid})" for each in others)
        raise Refused(
            f"{params.protocol} port {params.port} is held by {names}, not by {place.words}, which "
            "shares the network of this host"
        )


class NetworkOccupy(Fault[OccupyParams]):
    """Hold a port, so that the program that needs it cannot bind it.

    A port that is in use is refused with the name of its holder; `force` ends that first.
    """

    id = "network.occupy"
    ending = Ending.SELF
    does = "A process of ours binds the port (and listens, for TCP) and never answers."
    cannot = (
        "A program that has the port keeps it, unless `force` ends it. At a place that shares the "
        "network of the host the port is that of the host."
    )
    restores = "Ends the process, so the kernel frees the port; then runs `restart`, if given."
    measures = "Binding the port is tried again and must fail with 'address in use'."
    scratch = "netns"
    example: ClassVar[dict[str, str]] = {"port": "8099"}

    def plan(self, place: Place, params: OccupyParams) -> list[Change]:
        families = [6 if ":" in params.address else 4] if params.address else [4, 6]
        order = {
            "port": params.port,
            "transport": params.protocol,
            "families": families,
            "address": params.address,
        }
        what = f"hold {params.protocol} port {params.port}"
        claim = f"{params.protocol} port {params.port} in network namespace {place.netns_cookie}"
        spec = {"module": "occupy", "spec": order, "what": what, "claims": [claim]}
        holders = procnet.find_by_port(params.port, procnet.Transport(params.protocol))
        for holder in _of_ours(holders):
            raise Conflict(
                f"{params.protocol} port {params.port} is held by the fault {holder}",
                holder=holder,
                hint=f"recover that first: faultline recover {holder}",
            )
        if holders and not params.force:
            names = ", ".join(f"{each.name} (pid {each.pid})" for each in holders)
            raise Refused(
                f"{params.protocol} port {params.port} is held by {names}",
                hint="--force ends it first; --restart brings it back",
            )
        _check_theirs(place, params, holders)
        guards.protect(holders)
        order["patience"] = 2 if holders else 0  # seconds in which the last holder may end
        ended = [Change("signalled", {**identity(each), "signal": SIGKILL}) for each in holders]
        back = [restart(params)] if params.restart else []
        return [*back, *ended, Change("worker", spec)]

    def observe(self, place: Place, params: OccupyParams, record: Record) -> Reading:
        kind = socket.SOCK_STREAM if params.protocol == "tcp" else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in params.address else socket.AF_INET
        asked = f"{params.protocol} port {params.port} taken"
        with socket.socket(family, kind) as other:
            try:
                other.bind((params.address, params.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return Reading(Effect.EFFECTIVE, asked, "address in use", self.measures)
                raise
        return Reading(Effect.INEFFECTIVE, asked, "the port could be bound", self.measures)
