"""Faults measure themselves: probes count, are timed, and never leave the host."""

from __future__ import annotations

import random
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netrig import LO, UDP, Net, Wire, add, mark, three_sigma

from faultline.kernel import classifier, features, hop, link, probing
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.predicate import Headers, example, exempted, matches
from faultline.kernel.shaping import Netem
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

MATCHES = (
    Match(),
    Match(
        ("tcp",), destinations=("10.1.2.0/24", "2001:db8:5::/64"), destination_ports=((3306, 3310),)
    ),
    Match(("icmp",), sources=("fd00::/8",)),
    Match(("tcp", "udp"), source_ports=((53, 53),), exclude=True),
    Match(destinations=("0.0.0.0/0",), exclude=True),
)


def packets(net: Net) -> socket.socket:
    return net.socket(socket.AF_PACKET, socket.SOCK_RAW)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("match", MATCHES)
def test_probes_are_counted_by_the_fault_and_go_nowhere(
    wire: Wire, direction: Direction, match: Match
) -> None:
    index = wire.here.index("v0")
    attached = add(wire.here, direction, match, Action(ActionKind.DROP, 30), ifindex=index)
    headers = example(match, direction)
    assert headers is not None
    before = (
        link.counters(wire.here.nl, index),
        link.counters(wire.there.nl, wire.there.index("v1")),
    )
    sock = packets(wire.here)
    measured = probing.probe(wire.here.nl, sock, attached, headers, count=600)
    after = link.counters(wire.here.nl, index), link.counters(wire.there.nl, wire.there.index("v1"))
    assert (measured.sent, measured.matched) == (600, 600)
    assert abs(measured.hit / 6 - 30) < 1.34 * three_sigma(30, 600)
    assert classifier.counters(attached).matched <= 4  # the wire's own chatter at most
    assert after[0]["tx_packets"] - before[0]["tx_packets"] <= 4
    assert after[1]["rx_packets"] - before[1]["rx_packets"] <= 4
    assert [found.name for found in link.links(wire.here.nl)] == ["lo", "v0"]


def test_a_probe_that_does_not_match_is_taken_away_uncounted(net: Net) -> None:
    attached = add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP))
    other = Headers(6, "127.0.0.1", "127.0.0.1", 9, 9)
    measured = probing.probe(net.nl, packets(net), attached, other, count=20)
    assert (measured.matched, measured.hit) == (0, 0)
    assert link.counters(net.nl, LO)["tx_packets"] == 0


@pytest.mark.parametrize("kind", [ActionKind.DUPLICATE, ActionKind.CORRUPT])
def test_probes_of_other_actions_are_decided_and_taken_away(net: Net, kind: ActionKind) -> None:
    attached = add(net, Direction.EGRESS, UDP, Action(kind, every=5))
    headers = example(UDP, Direction.EGRESS)
    assert headers is not None
    measured = probing.probe(net.nl, packets(net), attached, headers, count=50)
    assert (measured.matched, measured.hit) == (50, 10)
    assert link.counters(net.nl, LO)["tx_packets"] == 0


@pytest.mark.usefixtures("netem")
@pytest.mark.parametrize("direction", Direction)
def test_the_hop_times_each_probe(wire: Wire, direction: Direction) -> None:
    index = wire.here.index("v0")
    through = Action(ActionKind.REDIRECT, target=1)
    shape = Netem(delay=25_000_000)
    attached = hop.inject(
        wire.here.nl, index, direction, mark(), MATCHES[1], through, Guard(), shape
    )
    add(wire.here, direction, Match(), Action(ActionKind.DROP), step=2, ifindex=index)
    headers = example(MATCHES[1], direction)
    assert headers is not None
    measured = probing.probe(wire.here.nl, packets(wire.here), attached, headers, count=30)
    assert len(measured.delays) == measured.hit == 30
    assert 25 <= sorted(measured.delays)[15] / 1e6 < 35


def test_one_fault_probes_past_another_that_would_drop_it(net: Net) -> None:
    add(net, Direction.EGRESS, Match(), Action(ActionKind.DROP), step=1)
    second = add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP, every=2), step=2)
    headers = example(UDP, Direction.EGRESS)
    assert headers is not None
    measured = probing.probe(net.nl, packets(net), second, headers, count=10)
    assert (measured.matched, measured.hit) == (10, 5)


def test_nothing_can_match_an_empty_list() -> None:
    assert example(Match(destinations=()), Direction.EGRESS) is None


V4 = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.0.1", "172.16.5.4"])
V6 = st.sampled_from(["fd00::1", "fd00::2", "fd00:0:1::1", "2001:db8::1"])
NETWORKS = st.none() | st.lists(
    st.sampled_from(["10.0.0.0/24", "10.0.0.1", "0.0.0.0/0", "192.168.0.0/16", "fd00::/64",
                     "fd00::2", "::/0", "2001:db8::/32"]), max_size=3,
).map(tuple)  # fmt: skip
RANGES = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 3)).map(lambda t: (t[0], t[0] + t[1])), max_size=2
).map(tuple)
ANY_MATCH = st.builds(
    Match, st.sets(st.sampled_from(["tcp", "udp", "icmp"]), max_size=2).map(tuple),
    NETWORKS, NETWORKS, RANGES, RANGES, st.booleans(),
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(match=ANY_MATCH, seed=st.integers(0, 2**32))
def test_the_program_and_the_predicate_agree_on_every_packet(
    net: Net, match: Match, seed: int
) -> None:
    rng = random.Random(seed)
    place = classifier.next_place(net.nl, LO, Direction.EGRESS)
    action = Action(ActionKind.DROP)
    attached = classifier.attach(net.nl, place, mark(seed), match, action, Guard())
    sock = packets(net)
    try:
        for _ in range(8):
            six = rng.random() < 0.5
            pool = ("fd00::1", "fd00::2", "fd00:0:1::1", "2001:db8::1") if six else (
                "10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.0.1")  # fmt: skip
            source, destination = rng.choice(pool), rng.choice(pool)
            protocol = rng.choice((6, 17, 58 if six else 1))
            ports = (0, 0) if protocol in (1, 58) else (rng.randint(1, 9), rng.randint(1, 9))
            packet = Headers(protocol, source, destination, *ports)
            measured = probing.probe(net.nl, sock, attached, packet, count=1)
            assert (measured.matched == 1) == matches(match, packet), packet
    finally:
        sock.close()
        classifier.detach(net.nl, LO, Direction.EGRESS, "test", str(seed))


@given(match=ANY_MATCH, direction=st.sampled_from(Direction))
def test_an_example_is_one(match: Match, direction: Direction) -> None:
    found = example(match, direction)
    if found is not None:
        assert matches(match, found)
        assert not exempted((), direction, found)


def test_features_are_found_by_trying(kernel: features.Features) -> None:
    assert {"clsact", "bpf", "boot-clock", "bpf-fetch", "veth", "tbf"} <= kernel.present
    assert kernel.present | set(kernel.missing) == set(features.FEATURES)
    assert all(kernel.missing.values())
