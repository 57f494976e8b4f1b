"""Packets lost, cut off, doubled, damaged, late, out of order, or slow."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from faultline.api.quantities import Between, Duration, Flag, Percent, Rate, Size, text
from faultline.changes.classifier import match_to
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter
from faultline.injection import denying, engines, traffic_reading
from faultline.injection.packet_faults import FILTER, Classified, Held, HitParams
from faultline.injection.packets import Aim, PacketParams, exempt
from faultline.injection.reading import Reading
from faultline.kernel.match import Action, ActionKind, Answer
from faultline.places.model import Place

Look = Literal["loss", "refused", "unreachable", "network-unreachable", "prohibited"]
_ANSWERS = {
    "refused": Answer.REFUSED,
    "unreachable": Answer.HOST,
    "network-unreachable": Answer.NET,
    "prohibited": Answer.PROHIBITED,
}
_SEEN = (
    " With another `look` the packet is turned into the answer (TCP reset or ICMP message) and "
    "sent back to its sender."
)
_UNSEEN = (
    " A program on this host learns of an ICMP answer to the first packet of a TCP connection only "
    "with that packet's repetition, after 1 s: the kernel reads the answer while `connect` still "
    "holds the socket. Nothing is answered on devices without an Ethernet header."
)


def _lost(look: Look, percent: float = 100.0, correlation: float = 0.0) -> Action:
    """What is done to packets that must not arrive."""
    if look == "loss":
        return Action(ActionKind.DROP, percent=percent, correlation=correlation)
    answer = str(_ANSWERS[look])
    return Action(ActionKind.ANSWER, percent=percent, correlation=correlation, answer=answer)


def _lose(look: Look, share: str) -> str:
    return f"lose {share} packets" if look == "loss" else f"answer {share} packets: {look}"


class LossParams(HitParams):
    """Parameters of `network loss`."""

    look: Look = "loss"
    """What the sender sees: nothing; refused: a TCP reset, or that the port is unreachable;
    unreachable: that the host is; network-unreachable; prohibited: by a firewall on the way.
    """


class NetworkLoss(Classified[LossParams]):
    """Lose a share of the packets.

    A lost packet looks lost: the sender gets no error and TCP does not learn of a local drop.
    """

    id = "network.loss"
    does = (
        FILTER
        + "Packets that are hit are taken and freed without the sender learning of it."
        + _SEEN
    )
    cannot = Classified.cannot + _UNSEEN
    example: ClassVar[dict[str, str]] = {"interface": "lo", "percent": "10%"}

    def action(self, params: LossParams) -> Action:
        return _lost(params.look, float(params.percent), float(params.correlation))

    def words(self, params: LossParams) -> str:
        return _lose(params.look, f"{params.percent} of the")


class PartitionParams(PacketParams):
    """Parameters of `network partition`."""

    direction: Annotated[Literal["out", "in", "both"], Flag("d")] = "both"
    """Packets that leave, that arrive, or both; `in` then has source and destination swapped."""
    look: Literal[Look, "denied"] = "loss"
    """What the sender sees: nothing; refused: a TCP reset, or that the port is unreachable;
    unreachable: that the host is; network-unreachable; prohibited: by a firewall on the way;
    denied: `connect` and `sendto` fail with EPERM, as behind a firewall of this host.
    """


class NetworkPartition(Classified[PartitionParams]):
    """Cut this host off from the addresses named, or from everything.

    Unless another look is asked for nothing is refused: packets vanish, as behind a broken link,
    and programs run into time-outs.
    """

    id = "network.partition"
    does = (
        FILTER
        + "Every matching packet is taken and freed, in both directions unless asked."
        + _SEEN
    )
    cannot = (
        Classified.cannot
        + _UNSEEN
        + " With `look: denied` open connections see only loss, the interface does not count, and "
        "host names are looked up once; it needs a mounted tree of control groups of version 2."
    )
    example: ClassVar[dict[str, str]] = {"interface": "lo", "destination": "127.0.0.2"}

    def action(self, params: PartitionParams) -> Action:
        return _lost("loss" if params.look == "denied" else params.look)

    def words(self, params: PartitionParams) -> str:
        if params.look == "denied":
            return "deny all packets"
        return _lose(params.look, "all")

    def plan(self, place: Place, params: PartitionParams) -> list[Change]:
        changes = super().plan(place, params)
        return [*changes, denying.change(place, params, changes)] if _denied(params) else changes

    def observe(self, place: Place, params: PartitionParams, record: Record) -> Reading:
        if _denied(params):
            return denying.reading(place, self.words(params), record)
        return super().observe(place, params, record)


def _denied(params: PartitionParams) -> bool:
    return params.look == "denied"


class ResetParams(PacketParams):
    """Parameters of `network reset`."""

    direction: Annotated[Literal["out", "in", "both"], Flag("d")] = "both"
    """Segments that leave, that arrive, or both; `in` then has source and destination swapped."""
    protocol: Annotated[Literal["all", "tcp", "udp", "icmp", "sctp"], Flag("P")] = "tcp"
    """tcp: nothing else has resets."""
    percent: Annotated[Percent, Between("0.001%", "100%"), Flag("p")] = text("100%")
    """The share of the matching segments that is answered by a reset, at random."""
    idle: bool = False
    """End the open connections that match at once as well, also those that nobody sends on: their
    programs see ECONNABORTED, and the other side a reset.
    """


class NetworkReset(Classified[ResetParams]):
    """Reset TCP connections: `connection refused` for new ones, `connection reset` for others.

    A connection is reset at its next segment. Of segments that leave the program on this host is
    told, of those that arrive the other side.
    """

    id = "network.reset"
    does = (
        FILTER + "A matching segment is turned into the reset that a host without this connection "
        "sends, and goes back to its sender."
    )
    cannot = (
        Classified.cannot + " An idle connection stays until its next segment, unless `idle` "
        "is asked for; what was ended does not come back. Nothing is answered on devices without "
        "an Ethernet header."
    )
    example: ClassVar[dict[str, str]] = {"interface": "lo", "destination_port": "8099"}

    def plan(self, place: Place, params: ResetParams) -> list[Change]:
        if params.protocol != "tcp":
            raise InvalidParameter("protocol", params.protocol, "tcp: nothing else has resets")
        return super().plan(place, params)

    def action(self, params: ResetParams) -> Action:
        return Action(ActionKind.ANSWER, percent=float(params.percent), answer=str(Answer.REFUSED))

    def before(self, place: Place, params: ResetParams, aims: list[Aim]) -> list[Change]:
        """Before, because the filter would take away the resets that the kernel itself sends."""
        if not params.idle:
            return []
        if params.tcp_flags or params.percent < 100:
            raise InvalidParameter(
                "idle", True, "all connections: no share and no flags of segments"
            )
        shared = not place.is_host and not place.own_network
        spec = {
            "matches": {str(aim.direction): match_to(aim.match) for aim in aims},
            "ifindex": aims[0].device.index,
            "exempt": exempt(),
            "pids": [each.pid for each in place.processes()] if shared else None,
        }
        return [Change("sockets_ended", spec)]

    def words(self, params: ResetParams) -> str:
        return f"reset at {params.percent} of the segments"


class DuplicateParams(HitParams):
    """Parameters of `network duplicate`."""


class NetworkDuplicate(Classified[DuplicateParams]):
    """Send a share of the packets twice."""

    id = "network.duplicate"
    does = FILTER + "Packets that are hit are cloned; the clone does not meet the filter again."
    example: ClassVar[dict[str, str]] = {"interface": "lo", "percent": "20%"}

    def action(self, params: DuplicateParams) -> Action:
        return Action(
            ActionKind.DUPLICATE,
            percent=float(params.percent),
            correlation=float(params.correlation),
        )

    def words(self, params: DuplicateParams) -> str:
        return f"double {params.percent} of the packets"


class CorruptParams(HitParams):
    """Parameters of `network corrupt`."""

    checksum: Literal["wrong", "fixed"] = "wrong"
    """wrong: receivers drop the packet, as on a real wire; fixed: programs get wrong bytes."""


class NetworkCorrupt(Classified[CorruptParams]):
    """Damage the payload of a share of the packets.

    With `checksum: wrong` programs see it as loss, since receivers drop what does not add up; with
    `fixed` the damage is delivered to the program.
    """

    id = "network.corrupt"
    does = (
        FILTER + "Bits of the payload are flipped; the transport checksum is left wrong or mended."
    )
    example: ClassVar[dict[str, str]] = {"interface": "lo", "percent": "20%"}

    def action(self, params: CorruptParams) -> Action:
        return Action(
            ActionKind.CORRUPT,
            percent=float(params.percent),
            correlation=float(params.correlation),
            fix_checksum=params.checksum == "fixed",
        )

    def words(self, params: CorruptParams) -> str:
        return f"damage {params.percent} of the packets (checksum {params.checksum})"


class DelayParams(PacketParams):
    """Parameters of `network delay`."""

    latency: Annotated[Duration, Between("1us", "1h"), Flag("l")]
    """How long every matching packet waits."""
    jitter: Annotated[Duration, Between("0s", "1h"), Flag("j")] = text("0s")
    """How far the wait varies: up to this much either way; if not uniform, the standard deviation.
    """
    correlation: Annotated[Percent, Between("0%", "99%"), Flag("c")] = text("0%")
    """How much a packet's jitter depends on the one before."""
    distribution: Literal["uniform", "normal", "pareto", "paretonormal"] = "uniform"
    """How the jitter is spread; Pareto's is mostly short with a few long waits."""


class NetworkDelay(Held[DelayParams]):
    """Make every matching packet wait."""

    id = "network.delay"
    example: ClassVar[dict[str, str]] = {"interface": "lo", "latency": "50ms"}

    def form(self, params: DelayParams) -> engines.Form:
        jitter = f" +/- {params.jitter}" if params.jitter else ""
        return engines.Form(
            words=f"delay packets by {params.latency}{jitter}",
            delay=int(params.latency),
            jitter=int(params.jitter),
            correlation=params.correlation.ratio,
            distribution=params.distribution,
        )

    def observe(self, place: Place, params: DelayParams, record: Record) -> Reading:
        return traffic_reading.delay(
            record, f"delay {params.latency}", int(params.latency), int(params.jitter)
        )


class ReorderParams(PacketParams):
    """Parameters of `network reorder`."""

    latency: Annotated[Duration, Between("1ms", "1h"), Flag("l")] = text("1s")
    """How long the packets wait that do not overtake."""
    percent: Annotated[Percent, Between("0.001%", "100%"), Flag("p")] = text("100%")
    """The share of every `gap`-th packets that overtakes."""
    gap: Annotated[int, Between(1, 1000), Flag("g")] = 3
    """Every so many packets one is sent at once; 1: any packet, by `percent` alone."""
    correlation: Annotated[Percent, Between("0%", "99%"), Flag("c")] = text("0%")
    """How much the choice depends on the one before."""


class NetworkReorder(Held[ReorderParams]):
    """Let some packets overtake the others, which wait."""

    id = "network.reorder"
    example: ClassVar[dict[str, str]] = {"interface": "lo", "latency": "50ms", "gap": "3"}

    def form(self, params: ReorderParams) -> engines.Form:
        return engines.Form(
            words=f"hold packets for {params.latency}, every {params.gap}. goes at once",
            delay=int(params.latency),
            reorder=params.percent.ratio,
            reorder_correlation=params.correlation.ratio,
            gap=params.gap,
        )

    def observe(self, place: Place, params: ReorderParams, record: Record) -> Reading:
        asked = params.percent.ratio / params.gap
        return traffic_reading.overtaking(record, "overtaking", asked, int(params.latency))


class LimitParams(PacketParams):
    """Parameters of `network limit`."""

    rate: Annotated[Rate, Between("8kbit", "100gbit"), Flag("r")]
    """Bits per second at the interface, Ethernet header included."""
    burst: Annotated[Size | None, Flag("b")] = None
    """Bytes that may pass at once after a pause; chosen from the rate when not given."""
    backlog: Annotated[Size | None, Flag()] = None
    """Bytes that wait for their turn; more is dropped. Chosen from the rate when not given."""
    peak: Annotated[Rate | None, Between("8kbit", "100gbit")] = None
    """Bits per second at which a burst passes; as fast as it comes when not given."""
    min_burst: Annotated[Size | None, Between("64B", "16MiB")] = None
    """Bytes that may pass at once even at the peak rate; larger packets are dropped. One packet of
    the device's largest size when not given."""


class NetworkLimit(Held[LimitParams]):
    """Limit the bandwidth."""

    id = "network.limit"
    measures = (
        "Probes sent faster than the rate through the limit, and the queue's counters over time."
    )
    example: ClassVar[dict[str, str]] = {"interface": "lo", "rate": "10mbit"}

    def form(self, params: LimitParams) -> engines.Form:
        return engines.Form(
            words=f"limit to {params.rate}/s",
            rate=int(params.rate),
            burst=int(params.burst or 0),
            backlog=int(params.backlog or 0),
            peak=int(params.peak or 0),
            min_burst=int(params.min_burst or 0),
        )

    def plan(self, place: Place, params: LimitParams) -> list[Change]:
        if params.peak is not None and params.peak <= params.rate:
            raise InvalidParameter("peak", params.peak, f"more than the rate, {params.rate}")
        if params.min_burst is not None and params.peak is None:
            raise InvalidParameter("min_burst", params.min_burst, "a peak that it goes with")
        return super().plan(place, params)

    def observe(self, place: Place, params: LimitParams, record: Record) -> Reading:
        burst, peak = int(params.burst or 0), int(params.peak or 0)
        if peak:  # while it passes, more is saved up
            burst = burst * peak // (peak - int(params.rate)) * 9 // 8
        return traffic_reading.rate(record, f"{params.rate}/s", int(params.rate), burst)
