"""Faults on a device without a link header, a tunnel: the hop lends packets one for a while."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from netrig import PORT, UDP, UID, Net, add, drain, mark, take

from faultline.kernel import classifier, hop, link, netns, probing, route
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.predicate import example
from faultline.kernel.shaping import Tbf
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

OURS, THEIRS = "10.66.0.1", "10.66.0.2"
OURS6, THEIRS6 = "fd66::1", "fd66::2"


@pytest.fixture
def tunnel(net: Net) -> Iterator[tuple[int, int]]:
    """A tun device: its index, and the descriptor that is its other end."""
    with netns.entered(net.fd):
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        except OSError as problem:
            pytest.skip(f"this kernel has no tun device: {problem}")
        fcntl.ioctl(fd, 0x400454CA, struct.pack("=16sH14x", b"tun0", 0x1001))
    link.set_no_addresses(net.nl, "tun0")
    link.set_up(net.nl, "tun0")
    index = net.index("tun0")
    route.new_address(net.nl, index, OURS, 24)
    route.new_address(net.nl, index, OURS6, 64)
    yield index, fd
    os.close(fd)


def _out(fd: int) -> list[bytes]:
    """The UDP packets that left through the tunnel."""
    found: list[bytes] = []
    while select.select([fd], [], [], 0.1)[0]:
        packet = os.read(fd, 4096)
        if packet[9 if packet[0] >> 4 == 4 else 6] == 17:
            found.append(packet)
    return found


def _udp(size: int) -> bytes:
    """A packet from the other end to us; the checksum is left out, which IPv4 allows."""
    body = struct.pack(">HHHH", 4000, PORT, 8 + size, 0) + bytes(size)
    addresses = socket.inet_aton(THEIRS) + socket.inet_aton(OURS)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + body


@pytest.mark.parametrize(("ours", "theirs"), [(OURS, THEIRS), (OURS6, THEIRS6)])
def test_outgoing_packets_of_a_tunnel_pass_the_hop_unchanged(
    net: Net, tunnel: tuple[int, int], ours: str, theirs: str
) -> None:
    index, fd = tunnel
    before = net.residue()
    sender = net.udp(ours)
    sender.sendto(b"payload", (theirs, PORT))
    (plain,) = _out(fd)
    through = Action(ActionKind.REDIRECT, target=1)
    shape = Tbf(rate=8_000_000)
    attached = hop.inject(net.nl, index, Direction.EGRESS, mark(), UDP, through, Guard(), shape)
    sender.sendto(b"payload", (theirs, PORT))
    (delayed,) = _out(fd)
    cut = 12 if plain[0] >> 4 == 4 else 0  # the identification of an IPv4 packet counts up
    assert delayed[cut:] == plain[cut:]
    assert classifier.counters(attached).hit == 1
    assert classifier.counters(attached).failed == 0
    headers = example(UDP, Direction.EGRESS)
    assert headers is not None
    sock = net.socket(socket.AF_PACKET, socket.SOCK_RAW)
    measured = probing.probe(net.nl, sock, attached, headers, count=10)
    assert (measured.matched, len(measured.delays)) == (10, 10)
    assert _out(fd) == []
    assert hop.recover(net.nl, index, Direction.EGRESS, UID, "1")
    assert net.residue() == before


def test_incoming_packets_of_a_tunnel_pass_the_hop(net: Net, tunnel: tuple[int, int]) -> None:
    index, fd = tunnel
    receiver = net.udp(OURS, PORT)
    through = Action(ActionKind.REDIRECT, target=1)
    attached = hop.inject(
        net.nl, index, Direction.INGRESS, mark(), UDP, through, Guard(), Tbf(rate=8_000_000)
    )
    for size in (10, 300):
        os.write(fd, _udp(size))
    assert sorted(map(len, drain(receiver))) == [10, 300]
    assert classifier.counters(attached).hit == 2
    headers = example(UDP, Direction.INGRESS)
    assert headers is not None
    sock = net.socket(socket.AF_PACKET, socket.SOCK_RAW)
    measured = probing.probe(net.nl, sock, attached, headers, count=10)
    assert (measured.matched, len(measured.delays)) == (10, 10)
    assert hop.recover(net.nl, index, Direction.INGRESS, UID, "1")


@pytest.mark.parametrize("kind", [ActionKind.DROP, ActionKind.DUPLICATE])
def test_drop_and_duplicate_work_on_a_tunnel(
    net: Net, tunnel: tuple[int, int], kind: ActionKind
) -> None:
    index, fd = tunnel
    add(net, Direction.EGRESS, Match(("udp",)), Action(kind), ifindex=index, step=1)
    add(net, Direction.INGRESS, Match(("udp",)), Action(kind), ifindex=index, step=2)
    net.udp(OURS).sendto(b"x", (THEIRS, PORT))
    receiver = net.udp(OURS, PORT)
    os.write(fd, _udp(20))
    expected = 0 if kind is ActionKind.DROP else 2
    assert (len(_out(fd)), len(drain(receiver))) == (expected, expected)
    assert take(net, Direction.EGRESS, step=1, ifindex=index)
    assert take(net, Direction.INGRESS, step=2, ifindex=index)
