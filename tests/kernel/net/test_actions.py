"""Duplicates and corruption on real packets, counted and seen by a receiver."""

from __future__ import annotations

import pytest
from netrig import (
    PORT,
    UDP,
    Net,
    Wire,
    add,
    drain,
    exchange,
    take,
)  # fmt: skip

from faultline.kernel import classifier, hop
from faultline.kernel.match import Action, ActionKind
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

HOSTS = ("127.0.0.1", "::1")
DROP = Action(ActionKind.DROP)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("host", HOSTS)
def test_duplicates_are_counted_exactly_and_never_multiply(
    net: Net, direction: Direction, host: str
) -> None:
    before = net.residue()
    receiver, sender = net.udp(host, PORT), net.udp(host)
    action = Action(ActionKind.DUPLICATE, 20)
    one = add(net, direction, UDP, action, step=1)
    two = add(net, direction, UDP, action, step=2)
    arrived = exchange(sender, receiver, 1000)
    first, second = classifier.counters(one), classifier.counters(two)
    assert (first.failed, second.failed) == (0, 0)
    assert first.matched == 1000
    assert second.matched == 1000 + first.hit  # a clone goes on behind its own fault only
    assert arrived == 1000 + first.hit + second.hit
    for step in (1, 2):
        take(net, direction, step=step)
    assert net.residue() == before


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("host", HOSTS)
def test_corrupt_with_a_mended_checksum_delivers_one_wrong_bit(
    net: Net, direction: Direction, host: str
) -> None:
    receiver, sender = net.udp(host, PORT), net.udp(host)
    attached = add(net, direction, UDP, Action(ActionKind.CORRUPT, 30, fix_checksum=True))
    for size in (1, 2, 3, 64, 1400):
        for _ in range(40):
            sender.sendto(bytes(size), (host, PORT))
    wrong = 0
    received = drain(receiver)
    for data in received:
        flipped = sum(byte.bit_count() for byte in data)
        assert flipped in (0, 1)
        wrong += flipped
    assert len(received) == 200
    assert wrong == classifier.counters(attached).hit > 0


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("family", [4, 6])
def test_a_mended_checksum_is_right_for_a_real_receiver_too(
    wire: Wire, direction: Direction, family: int
) -> None:
    """Without offload on the wire the receiver computes the checksum itself."""
    host = wire.there4 if family == 4 else wire.there6
    hop.checksums_in_software(wire.here.nl, "v0")
    side, ifindex = wire.side(direction)
    action = Action(ActionKind.CORRUPT, 50, fix_checksum=True)
    attached = add(side, direction, UDP, action, ifindex=ifindex)
    receiver, sender = wire.there.udp(host, PORT), wire.here.udp(host.replace("2", "1"))
    for size in (1, 2, 3, 200, 1401):
        for _ in range(20):
            sender.sendto(bytes(size), (host, PORT))
    received = drain(receiver)
    wrong = sum(any(data) for data in received)
    assert len(received) == 100
    assert wrong == classifier.counters(attached).hit > 0
