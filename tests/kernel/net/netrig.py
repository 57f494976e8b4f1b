"""Scratch networks for the network kernel layer: namespaces, a wire, sockets inside."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field

from faultline.kernel import classifier, hop, link, netns, route, tc
from faultline.kernel.classifier import Attached
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, Guard, Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction

PORT = 5000
UID = "test"
ALWAYS = Guard()
LO = 1
UDP = Match(protocols=("udp",), destination_ports=((PORT, PORT),))


@dataclass
class Net:
    """One network namespace: netlink, and sockets opened inside."""

    fd: int
    nl: Netlink
    opened: list[socket.socket] = field(default_factory=list)

    @classmethod
    def make(cls) -> Net:
        fd = netns.create()
        with netns.entered(fd):
            nl = Netlink.open()
        link.set_up(nl, "lo")
        return cls(fd, nl)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with netns.entered(self.fd):
            made = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
        self.opened.append(made)
        made.settimeout(5)
        return made

    def udp(self, host: str = "", port: int = 0) -> socket.socket:
        """A UDP socket with room for everything a test sends, bound when `host` is given."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.socket(family, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        if host:
            made.bind((host, port))
        return made

    def listen(self, host: str, port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(8)
        return made

    def index(self, name: str) -> int:
        return link.get(self.nl, name).index

    def snmp(self, prefix: str, name: str) -> int:
        """One counter of /proc/net/snmp (Udp:, Tcp:) or snmp6 (by its full name) in here."""
        with netns.entered(self.fd):
            if not prefix:
                with open("/proc/thread-self/net/snmp6", encoding="ascii") as lines:
                    return int(dict(line.split() for line in lines)[name])
            with open("/proc/thread-self/net/snmp", encoding="ascii") as lines:
                heads, values = (line.split() for line in lines if line.startswith(prefix))
        return int(dict(zip(heads, values, strict=True))[name])

    def residue(self) -> tuple[list[str], list[tuple[int, str, int, bytes]], int]:
        """What a fault could leave: filters of ours, hops, disciplines, loopback settings."""
        lo = link.get(self.nl, "lo")
        settings = lo.setting4(link.CONF_ACCEPT_LOCAL) + lo.setting4(link.CONF_ROUTE_LOCALNET)
        names = [found.device for found in classifier.scan(self.nl)]
        names += [found.near.name for found in hop.scan(self.nl)]
        queues = [(q.index, q.kind, q.handle, q.options) for q in tc.qdiscs(self.nl)]
        return names, queues, settings

    def close(self) -> None:
        for made in self.opened:
            made.close()
        self.nl.close()
        os.close(self.fd)


@dataclass(frozen=True)
class Wire:
    """Two namespaces joined by a pair of devices: `here` has v0, `there` has v1."""

    here: Net
    there: Net

    here4, there4 = "10.77.0.1", "10.77.0.2"
    here6, there6 = "fd77::1", "fd77::2"

    @classmethod
    def make(cls) -> Wire:
        here, there = Net.make(), Net.make()
        link.add_veth(here.nl, ("v0", "v1"), "test", mtu=1500)
        for name in ("v0", "v1"):  # a wire between strangers asks for addresses, as a real one does
            link.set_arp(here.nl, name, on=True)
        link.move(here.nl, "v1", there.fd)
        for side, name, v4, v6 in (
            (here, "v0", cls.here4, cls.here6),
            (there, "v1", cls.there4, cls.there6),
        ):
            link.set_up(side.nl, name)
            route.new_address(side.nl, side.index(name), v4, 24)
            route.new_address(side.nl, side.index(name), v6, 64)
        return cls(here, there)

    def side(self, direction: Direction) -> tuple[Net, int]:
        """Where a fault on packets from here to there sits in this direction."""
        net, name = (self.here, "v0") if direction is Direction.EGRESS else (self.there, "v1")
        return net, net.index(name)


def mark(step: object = "1", uid: str = UID) -> Mark:
    return Mark(uid, str(step))


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def drain(receiver: socket.socket, quiet: float = 0.05) -> list[bytes]:
    """Everything that arrives until it has been quiet for a while (seconds)."""
    found: list[bytes] = []
    receiver.settimeout(quiet)
    while True:
        try:
            found.append(receiver.recv(70000))
        except TimeoutError:
            return found


def exchange(sender: socket.socket, receiver: socket.socket, count: int, size: int = 64) -> int:
    """Send numbered packets to the receiver and count what arrives."""
    address = receiver.getsockname()
    for number in range(count):
        sender.sendto(number.to_bytes(4, "big") + bytes(size - 4), address)
    return len(drain(receiver))


def journey(sender: socket.socket, receiver: socket.socket, count: int) -> list[float]:
    """Milliseconds from send to arrival, one packet after the other; lost ones are left out."""
    receiver.settimeout(2)
    found: list[float] = []
    for number in range(count):
        sent = time.perf_counter()
        sender.sendto(number.to_bytes(4, "big"), receiver.getsockname())
        try:
            receiver.recv(64)
        except TimeoutError:
            continue
        found.append((time.perf_counter() - sent) * 1e3)
    return found


def three_sigma(asked: float, count: int) -> float:
    """Three standard errors of a share (percent) among `count` independent packets."""
    share = asked / 100
    return 300 * (share * (1 - share) / count) ** 0.5


def add(
    net: Net, direction: Direction, match: Match, action: Action, guard: Guard = ALWAYS,
    *, step: object = 1, ifindex: int = LO, uid: str = UID,
) -> Attached:  # fmt: skip
    """Attach a filter behind those that are there."""
    place = classifier.next_place(net.nl, ifindex, direction)
    return classifier.attach(net.nl, place, mark(step, uid), match, action, guard)


def take(net: Net, direction: Direction, *, step: object = 1, ifindex: int = LO) -> bool:
    return classifier.detach(net.nl, ifindex, direction, UID, str(step))


def everything_of(net: Net, ifindex: int, direction: Direction) -> list[bytes]:
    """The filters of somebody else, as the kernel wrote them."""
    found = tc.filters(net.nl, ifindex, direction.parent)
    return [one.options for one in found if Mark.read(one.name) is None]
