"""Filters of ours among those of others: found, stacked, and taken away without a trace."""

from __future__ import annotations

import random

import pytest
from netrig import (
    LO,
    PORT,
    UDP,
    UID,
    Net,
    add,
    everything_of,
    exchange,
    take,
)  # fmt: skip

from faultline.errors import Unsupported
from faultline.kernel import classifier, link, tc
from faultline.kernel.headers import MAX_SLOT
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, ActionKind, Match
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

HOSTS = ("127.0.0.1", "::1")
DROP = Action(ActionKind.DROP)


@pytest.mark.parametrize("seed", range(4))
def test_overlapping_faults_are_undone_in_any_order(net: Net, seed: int) -> None:
    order = list(range(6))
    random.Random(seed).shuffle(order)
    before = net.residue()
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    for step in range(6):
        direction = (Direction.EGRESS, Direction.INGRESS)[step % 2]
        match = Match(("udp",), destinations=(f"127.0.{step}.0/24",))
        add(net, direction, match, DROP, step=step)
    for gone, step in enumerate(order):
        assert take(net, (Direction.EGRESS, Direction.INGRESS)[step % 2], step=step)
        left = set(order[gone + 1 :])
        for other in range(6):
            host = f"127.0.{other}.1"
            arrived = exchange(net.udp(host), net.udp(host, 0), 2)
            assert arrived == (0 if other in left else 2)
    assert exchange(sender, receiver, 5) == 5
    assert net.residue() == before


def test_faults_in_a_row_each_see_what_the_one_before_let_through(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    first = add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP, every=2), step=1)
    second = add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP, every=2), step=2)
    assert (first.slot, second.slot) == (1, 2)
    assert exchange(sender, receiver, 80) == 20
    assert classifier.counters(second).matched == 40


def test_what_belongs_to_somebody_else_is_left_as_it_was(net: Net) -> None:
    tc.add_clsact(net.nl, LO)
    for direction in Direction:
        tc.add_u32(net.nl, LO, direction.parent, 7)
    before = net.residue(), [everything_of(net, LO, side) for side in Direction]
    for direction in Direction:
        attached = add(net, direction, UDP, DROP, step=direction)
        assert not attached.mark.made
    assert classifier.detach(net.nl, LO, Direction.EGRESS, "other", "1") is False
    for direction in Direction:
        assert take(net, direction, step=direction)
    assert (net.residue(), [everything_of(net, LO, side) for side in Direction]) == before


def test_clsact_that_we_made_stays_for_a_filter_that_came_later(net: Net) -> None:
    add(net, Direction.EGRESS, UDP, DROP)
    tc.add_u32(net.nl, LO, Direction.INGRESS.parent, 7)
    take(net, Direction.EGRESS)
    assert tc.ingress_kind(net.nl, LO) == "clsact"
    assert tc.filters(net.nl, LO, Direction.INGRESS.parent)


def test_the_last_of_ours_removes_the_clsact_that_the_first_made(net: Net) -> None:
    add(net, Direction.EGRESS, UDP, DROP, step=1)
    later = add(net, Direction.INGRESS, UDP, DROP, step=2)
    assert later.mark.made
    take(net, Direction.EGRESS, step=1)
    assert tc.ingress_kind(net.nl, LO) == "clsact"
    take(net, Direction.INGRESS, step=2)
    assert tc.ingress_kind(net.nl, LO) == ""


def test_a_crash_between_clsact_and_filter_is_undone_by_what_was_remembered(net: Net) -> None:
    before = net.residue()
    tc.add_clsact(net.nl, LO)
    assert classifier.detach(net.nl, LO, Direction.EGRESS, UID, "1", made=True) is False
    assert net.residue() == before


def test_doing_and_undoing_twice_is_once(net: Net) -> None:
    first = add(net, Direction.EGRESS, UDP, DROP)
    assert add(net, Direction.EGRESS, UDP, DROP) == first
    assert take(net, Direction.EGRESS)
    assert not take(net, Direction.EGRESS)
    assert not classifier.detach(net.nl, 4242, Direction.EGRESS, UID, "1", made=True)


def test_a_scan_finds_ours_by_the_mark_alone_and_their_counters(net: Net) -> None:
    add(net, Direction.EGRESS, UDP, DROP, step="s-1", uid="abc.1")
    exchange(net.udp("127.0.0.1"), net.udp("127.0.0.1", PORT), 7)
    (found,) = classifier.scan(net.nl)
    assert (found.device, found.attached.mark) == ("lo", Mark("abc.1", "s-1", made=True))
    assert classifier.counters(found.attached).hit == 7


def test_an_ingress_discipline_of_somebody_else_serves_incoming_faults_only(net: Net) -> None:
    tc.add_qdisc(net.nl, LO, "ingress", b"", handle=tc.CLSACT_HANDLE, parent=tc.CLSACT_PARENT)
    before = net.residue()
    with pytest.raises(Unsupported, match="ingress"):
        add(net, Direction.EGRESS, UDP, DROP)
    add(net, Direction.INGRESS, UDP, DROP)
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    assert exchange(sender, receiver, 5) == 0
    take(net, Direction.INGRESS)
    assert exchange(sender, receiver, 5) == 5
    assert net.residue() == before


def test_the_slots_of_a_device_end_and_are_used_again(net: Net) -> None:
    for step in range(MAX_SLOT):
        assert (
            add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP, 0), step=step).slot == step + 1
        )
    with pytest.raises(Unsupported, match="holds 63 faults"):
        add(net, Direction.EGRESS, UDP, DROP, step="more")
    take(net, Direction.EGRESS, step=5)
    assert add(net, Direction.EGRESS, UDP, DROP, step="more").slot == 6


def test_a_fault_survives_a_namespace_that_only_a_socket_holds(net: Net) -> None:
    handed = Net(net.fd, type(net.nl).from_fd(net.nl.sock.dup().detach()))
    add(handed, Direction.EGRESS, UDP, DROP)
    handed.nl.close()
    assert exchange(net.udp("127.0.0.1"), net.udp("127.0.0.1", PORT), 3) == 0
    assert link.get(net.nl, "lo").loopback
