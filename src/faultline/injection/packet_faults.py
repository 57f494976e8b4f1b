"""What the packet faults share: those that decide packet by packet, and those that hold packets."""

from __future__ import annotations

from typing import Annotated, TypeVar

from faultline.api.quantities import Between, Flag, Percent, text
from faultline.changes.model import Change, Record
from faultline.injection import engines, network_members, packets, traffic_reading
from faultline.injection.model import Ending, Fault
from faultline.injection.packets import Aim, PacketParams
from faultline.injection.reading import Reading
from faultline.kernel.match import Action
from faultline.places.model import Place

P = TypeVar("P", bound=PacketParams)

FILTER = (
    "Adds clsact to the device if there is none, and one eBPF filter, which compares the boot "
    "clock with its deadline. "
)
_CANNOT = (
    "Only IPv4 and IPv6 packets are hit; ARP and neighbour discovery pass. A later fragment has no "
    "ports and never matches one. Packets that another program's filter ends before ours are not "
    "seen. At a place that shares the network of the host arriving packets are known by what left "
    "before: the first one to a port that is listened on only since the fault passes, and so does "
    "ICMP."
)
_RESTORES = (
    "Removes the filter by its mark, then clsact if it was made by us and carries no other filter."
)


class HitParams(PacketParams):
    """Parameters of a fault that hits a share of the packets."""

    percent: Annotated[Percent, Between("0.001%", "100%"), Flag("p")]
    """The share of the matching packets that is hit, at random."""
    correlation: Annotated[Percent, Between("0%", "99%"), Flag("c")] = text("0%")
    """The share of the decisions that repeat the one before: losses come in bursts."""


def aimed(place: Place, params: PacketParams) -> tuple[list[Change], list[Aim]]:
    """Where the filters go, and what has to be done first so that they hit this place alone."""
    found = packets.aims(params)
    theirs = network_members.of(place)
    return ([], found) if theirs is None else theirs.narrow(found, both=params.direction == "both")


class Classified(Fault[P]):
    """What the faults share that decide packet by packet and hold none."""

    ending = Ending.KERNEL
    cannot = _CANNOT
    restores = _RESTORES
    measures = (
        "The filter's own counters of matched and hit packets; probes that it takes away again."
    )
    needs = frozenset({"bpf", "net_admin", "clsact"})
    scratch = "netns"
    does = FILTER

    def action(self, params: P) -> Action:
        """What the filter does to a matching packet."""
        raise NotImplementedError

    def words(self, params: P) -> str:
        """What is asked, in a few words."""
        raise NotImplementedError

    def before(self, place: Place, params: P, aims: list[Aim]) -> list[Change]:
        """What is done once, before the filters are there."""
        return []

    def plan(self, place: Place, params: P) -> list[Change]:
        action, what = self.action(params), self.words(params)
        changes, aims = aimed(place, params)
        changes += self.before(place, params, aims)
        for aim in network_members.taught(aims, changes):
            changes += engines.decided(aim, action, what, params.engine, len(changes))
        return changes

    def observe(self, place: Place, params: P, record: Record) -> Reading:
        return traffic_reading.share(record, self.words(params), self.action(params))


class Held(Fault[P]):
    """What the faults share that hold packets: the hop, and measuring how long it holds them."""

    ending = Ending.KERNEL
    cannot = (
        _CANNOT
        + " Devices without an Ethernet header (tun, WireGuard) are refused. Packets that are held "
        "when the fault is undone are let go for at most 5 s; held by the packet engine they are "
        "lost if its worker is killed."
    )
    restores = _RESTORES + " Packets on their way are let go first; then the devices are deleted."
    measures = (
        "Probes sent through the filter, timed by eBPF where they enter and where they leave "
        "again; they never leave the host."
    )
    needs = frozenset({"bpf", "net_admin", "clsact", "mirred"})
    scratch = "netns"
    does = FILTER + (
        "Matching packets are redirected through a pair of devices of ours whose queue holds them "
        "(netem), or through a tap device served by a worker where the kernel has no netem, and go "
        "on behind the filter."
    )

    def form(self, params: P) -> engines.Form:
        """What is asked of the packets, for either engine."""
        raise NotImplementedError

    def plan(self, place: Place, params: P) -> list[Change]:
        form = self.form(params)
        changes, aims = aimed(place, params)
        for aim in network_members.taught(aims, changes):
            changes += engines.held(aim, form, params.engine, len(changes))
        return changes
