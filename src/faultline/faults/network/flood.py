"""Load on one address of the network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag, Rate, Size, text
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter
from faultline.injection import guards, packets
from faultline.injection.group_target import joined
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import link, netcount, route
from faultline.kernel.netlink import Netlink
from faultline.places.model import Place
from faultline.units import Rate as RateValue
from faultline.workers import figures
from faultline.workers.flood import LAG, MOST

_SPAN = 1.0  # seconds that are measured
_ROUNDS = 3  # measurements before a rate is said to be wrong
_LESS, _MORE = 0.9, 1.05  # shares of the rate asked that are still right
_HEADERS = {4: 14 + 20 + 8, 6: 14 + 40 + 8}  # bytes of Ethernet, IP and UDP before the payload


class FloodParams(Params):
    """Parameters of `network flood`."""

    destination: Annotated[str, Field(min_length=1), Flag("", ("dst-ip",))]
    """Where to: one address or host name, of which the first address is taken, once."""
    destination_port: Annotated[int, Between(1, 65535), Flag("p", ("dst-port",))]
    """The port."""
    mode: Annotated[Literal["udp", "tcp", "connect"], Flag("m")] = "udp"
    """udp: datagrams; tcp: bytes over connections that stay open; connect: connections that are
    reset as soon as they stand."""
    rate: Annotated[Rate | None, Between("8kbit", "10gbit"), Flag("r")] = None
    """Bits per second, never more: of datagrams with all headers from Ethernet on, or of the bytes
    of connections."""
    packets: Annotated[int | None, Between(1, 1_000_000), Flag("n")] = None
    """Datagrams, or connections, per second, instead of `rate`."""
    bytes: Annotated[Size, Between("1B", "65507B"), Flag("b")] = text("1400B")
    """The payload of a datagram, or how much is written at once."""
    parallel: Annotated[int, Between(1, MOST), Flag("c")] = 1
    """How many senders, each a process with a socket of its own, share the rate."""

    @model_validator(mode="after")
    def _one_rate(self) -> FloodParams:
        if (self.rate is None) == (self.packets is None):
            raise ValueError("expected either rate or packets")
        if self.mode == "tcp" and self.rate is None:
            raise ValueError("expected rate for tcp")
        if self.mode == "connect" and self.packets is None:
            raise ValueError("expected packets for connect: connections per second")
        return self


@dataclass(frozen=True, slots=True)
class _Look:
    """What was counted up to one instant."""

    told: dict[str, int]  # by the worker
    at: float  # seconds, when the worker told it
    when: float  # when the kernel was asked
    device: dict[str, int]
    protocols: dict[str, int]


class NetworkFlood(Fault[FloodParams]):
    """Load one address with datagrams, bytes or connections, at a rate that is never exceeded.

    Addresses outside of private networks are refused unless allowed by name (`flood-public`).
    """

    id = "network.flood"
    ending = Ending.SELF
    does = (
        "Processes of ours, in the control groups of the place, send at even distances; what is "
        "late by more than 200 ms is not made up for."
    )
    cannot = (
        "Go faster than one process of Python for each of `parallel` can, some ten thousand "
        "packets per second; the reading says what was reached. A target that takes less bytes "
        "over a connection gets less. No address is forged and no half of a handshake is left out."
    )
    measures = (
        "What the senders handed to the kernel in a second, and the counters of the device that "
        "it left by, the less of both; of a target on this host also what arrived."
    )
    restores = "Ends the processes; the kernel closes their sockets, connections by a reset."
    scratch = "netns"
    example: ClassVar[dict[str, str]] = {
        "destination": "127.0.0.1",
        "destination_port": "9",
        "rate": "2mbit",
    }

    def plan(self, place: Place, params: FloodParams) -> list[Change]:
        address = _address(params.destination)
        _check(address)
        units, size = _units(params, address)
        order: dict[str, Any] = {
            "mode": params.mode,
            "address": str(address),
            "port": params.destination_port,
            "interval": max(1, round(1e9 / units)),
            "size": size,
            "parallel": params.parallel,
            "join": joined(place),
        }
        what = f"send {_words(params)} to {address} port {params.destination_port}"
        return [Change("worker", {"module": "flood", "spec": order, "what": what})]

    def observe(self, place: Place, params: FloodParams, record: Record) -> Reading:
        order = record.steps[0].change.spec["spec"]
        stats: str = record.steps[0].made.get("ready", {}).get("stats", "")
        with Netlink.open() as nl:
            for _ in range(_ROUNDS - 1):
                reading = self._measured(nl, params, order, stats)
                if reading.effect is Effect.EFFECTIVE:
                    return reading
            return self._measured(nl, params, order, stats)

    def _measured(
        self, nl: Netlink, params: FloodParams, order: dict[str, Any], stats: str
    ) -> Reading:
        asked = _words(params)
        way = route.path_to(nl, order["address"])
        device = link.get(nl, way.ifindex)
        before = _look(nl, stats, device.index)
        time.sleep(_SPAN)
        after = _look(nl, stats, device.index)
        if before is None or after is None:
            return Reading.unmeasured(asked, self.measures, "the senders have told nothing yet")
        told, span = after.at - before.at, after.when - before.when
        if not told:
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, asked, "nothing is sent", self.measures, why)
        units, size = _units(params, ip_address(order["address"]))
        done = {name: (after.told[name] - before.told[name]) / told for name in after.told}
        out = {name: (after.device[name] - before.device[name]) / span for name in after.device}
        opened = _since(before.protocols, after.protocols, "Tcp.ActiveOpens") / span
        if params.mode == "tcp":
            got, wanted = min(done["bytes"], out["tx_bytes"]) * 8, float(params.rate or 0)
            measured = f"{RateValue(round(got)).short}/s"
        else:
            limit = out["tx_packets"] if params.mode == "udp" else opened
            got, wanted = min(done["sent"], limit), units
            noun = "datagrams" if params.mode == "udp" else "connects"
            measured = f"{_number(got)} {noun}/s"
            if params.mode == "udp" and params.rate:
                bits = got * 8 * (size + _headers(order["address"]))
                measured += f", {RateValue(round(bits)).short}/s"
        measured += f" left by {device.name}"
        if device.loopback and params.mode == "udp":
            arrived = netcount.datagrams_received(after.protocols)
            arrived -= netcount.datagrams_received(before.protocols)
            measured += f", {_number(arrived / span)}/s arrived"
        if params.mode == "connect":
            measured += f", {_number(done['answered'])}/s answered"
        values = {"asked": wanted, "measured": got, "n": span}
        # What was a little late before leaves with the rest.
        if _LESS * wanted <= got <= (_MORE + LAG / 1e9 / span) * wanted:
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)
        reason = _why(params, done, got / wanted)
        return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, reason, values)


def _address(name: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(name)
    except ValueError:
        return ip_address(packets.look_up("destination", name)[0])


def _check(address: IPv4Address | IPv6Address) -> None:
    """Refuse what is nobody's, everybody's or a stranger's."""
    meant = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = meant or address
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise InvalidParameter("destination", str(address), "the address of one host")
    if not (address.is_private or address.is_loopback or address.is_link_local):
        guards.current().refuse(
            "flood-public", f"{address} is outside of the networks that are private"
        )


def _units(params: FloodParams, address: IPv4Address | IPv6Address) -> tuple[float, int]:
    """How many units per second, and how large each one is."""
    size = int(params.bytes)
    if params.packets is not None:
        return float(params.packets), size
    around = _HEADERS[address.version] if params.mode == "udp" else 0
    return float(params.rate or 0) / (8 * (size + around)), size


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _headers(address: str) -> int:
    return _HEADERS[6 if ":" in address else 4]


def _words(params: FloodParams) -> str:
    if params.mode == "connect":
        return f"{params.packets} connections/s"
    noun = "datagrams" if params.mode == "udp" else "connections"
    amount = f"{params.packets} {noun}/s" if params.packets else f"{params.rate}/s in {noun}"
    return f"{amount} of {params.bytes}" if params.mode == "udp" else amount


def _look(nl: Netlink, stats: str, device: int) -> _Look | None:
    told = figures.read(stats) if stats else None
    if told is None:
        return None
    counted = link.counters(nl, device)
    return _Look(told, told.pop("at") / 1e9, time.monotonic(), counted, netcount.protocols())


def _since(before: dict[str, int], after: dict[str, int], name: str) -> int:
    return after.get(name, 0) - before.get(name, 0)


def _why(params: FloodParams, done: dict[str, float], share: float) -> str:
    if done["refused"]:
        return "the target refuses connections, or there is no way to it"
    if done["late"] >= done["sent"] * 0.05 and done["late"]:
        return f"{100 * share:.3g}% of it: more senders (parallel) or larger packets do more"
    if done["dropped"]:
        return "the kernel takes no more: its queue is full"
    return f"{100 * share:.3g}% of what was asked: the target takes no more" + (
        "" if params.mode == "tcp" else ", or others use the device"
    )
