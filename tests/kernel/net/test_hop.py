"""Hops on real packets: delays that add up, rates that hold, and nobody else's queue touched."""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import struct
import threading
import time

import pytest
from netrig import ALWAYS, LO, PORT, UDP, UID, Net, Wire, add, drain, exchange, journey, mark, take

from faultline.kernel import classifier, hop, link, netlink, probing, tc
from faultline.kernel.classifier import Attached
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.predicate import example
from faultline.kernel.shaping import Netem, Shape, Tbf
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

HOSTS = ("127.0.0.1", "::1")
MS = 1_000_000
THROUGH = Action(ActionKind.REDIRECT, target=1)


def inject(
    net: Net, direction: Direction, match: Match, shape: Shape | None,
    *, step: object = 1, ifindex: int = LO, action: Action = THROUGH, guard: Guard = ALWAYS,
) -> Attached:  # fmt: skip
    return hop.inject(net.nl, ifindex, direction, mark(step), match, action, guard, shape)


def recover(
    net: Net, direction: Direction, *, step: object = 1, ifindex: int = LO, drain: float = 1.0
) -> bool:
    return hop.recover(net.nl, ifindex, direction, UID, str(step), drain=drain)


def transfer(client: Net, server: Net, host: str, size: int) -> float:
    """Seconds that one TCP flow needs for `size` bytes, the last byte received."""
    listener = server.listen(host)
    took: list[float] = []
    begin = time.perf_counter()

    def receive() -> None:
        served, _ = listener.accept()
        left = size
        while left > 0:
            left -= len(served.recv(1 << 20))
        took.append(time.perf_counter() - begin)
        served.close()

    reader = threading.Thread(target=receive)
    reader.start()
    sender = client.socket(listener.family, socket.SOCK_STREAM)
    sender.settimeout(60)
    sender.connect(listener.getsockname())
    begin = time.perf_counter()
    sender.sendall(bytes(size))
    reader.join()
    sender.close()
    return took[0]


@pytest.mark.usefixtures("netem")
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("host", HOSTS)
def test_delays_on_loopback_add_up_and_go_in_any_order(
    net: Net, direction: Direction, host: str
) -> None:
    before = net.residue()
    receiver, sender = net.udp(host, PORT), net.udp(host)
    still = statistics.median(journey(sender, receiver, 9))
    for step, delay in ((1, 50), (2, 20), (3, 10)):
        inject(net, direction, UDP, Netem(delay=delay * MS), step=step)
    for gone, expected in ((None, 80), (2, 60), (1, 10), (3, 0)):
        if gone is not None:
            assert recover(net, direction, step=gone)
        took = statistics.median(journey(sender, receiver, 9)) - still
        assert expected - 0.5 <= took <= expected * 1.1 + 4
    assert net.residue() == before


@pytest.mark.usefixtures("netem")
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("family", [4, 6])
def test_a_delay_between_two_namespaces_holds_one_direction(
    wire: Wire, direction: Direction, family: int
) -> None:
    here, there = (wire.here4, wire.there4) if family == 4 else (wire.here6, wire.there6)
    side, ifindex = wire.side(direction)
    sender, receiver = wire.here.udp(here, PORT), wire.there.udp(there, PORT)
    journey(sender, receiver, 2)
    inject(side, direction, UDP, Netem(delay=40 * MS), ifindex=ifindex)
    assert 39.5 <= statistics.median(journey(sender, receiver, 9)) <= 50
    assert statistics.median(journey(receiver, sender, 9)) < 20
    assert recover(side, direction, ifindex=ifindex)
    assert statistics.median(journey(sender, receiver, 9)) < 20


@pytest.mark.usefixtures("netem")
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("host", HOSTS)
def test_large_sends_cross_a_delay_whole_and_tcp_keeps_a_networks_throughput(
    net: Net, direction: Direction, host: str
) -> None:
    plain = transfer(net, net, host, 20_000_000)
    attached = inject(net, direction, Match(("tcp",)), Netem(delay=10 * MS))
    took = transfer(net, net, host, 20_000_000)
    counts = classifier.counters(attached)
    assert counts.matched_bytes / counts.matched > 5000  # far more than one segment of a wire
    assert took < 2 + 8 * plain  # 10 ms on one TCP flow: slow start and its windows, not a stall
    assert recover(net, direction)


@pytest.mark.parametrize("direction", Direction)
def test_a_rate_holds_within_five_percent_of_the_bytes_at_the_device(
    wire: Wire, direction: Direction
) -> None:
    side, ifindex = wire.side(direction)
    inject(side, direction, UDP, Tbf(rate=20_000_000), ifindex=ifindex)
    sender, receiver = wire.here.udp(wire.here4), wire.there.udp(wire.there4, PORT)
    far = hop.scan(side.nl)[0].far.index
    begin, first, end, last = time.perf_counter(), 0, 0.0, 0
    while end < begin + 1.6:
        sender.sendto(bytes(1400), receiver.getsockname())
        end = time.perf_counter()
        if not first and end > begin + 0.3:  # what may pass at once has passed
            begin, first = end, link.counters(side.nl, far)["rx_bytes"]
    last = link.counters(side.nl, far)["rx_bytes"]
    assert (last - first) * 8 / (end - begin) == pytest.approx(20_000_000, rel=0.05)
    assert recover(side, direction, ifindex=ifindex)


def test_a_rate_on_loopback_takes_whole_64_kib_packets(net: Net) -> None:
    inject(net, Direction.EGRESS, Match(("tcp",)), Tbf(rate=80_000_000))
    took = transfer(net, net, "127.0.0.1", 8_000_000)
    assert 0.7 <= took <= 1.2  # 0.8 s less what may pass at once
    assert recover(net, Direction.EGRESS)


@pytest.mark.usefixtures("netem")
def test_reordering_overtakes(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    inject(net, Direction.EGRESS, UDP, Netem(delay=20 * MS, reorder=25))
    for number in range(400):
        sender.sendto(number.to_bytes(4, "big"), ("127.0.0.1", PORT))
        time.sleep(0.0005)
    arrived = [int.from_bytes(data, "big") for data in drain(receiver)]
    assert sorted(arrived) == list(range(400))
    late = sum(b < a for a, b in itertools.pairwise(arrived))
    assert late > 20


@pytest.mark.usefixtures("netem")
@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto", "paretonormal"])
def test_jitter_follows_its_distribution(net: Net, distribution: str) -> None:
    shape = Netem(delay=60 * MS, jitter=10 * MS, distribution=distribution)
    attached = inject(net, Direction.EGRESS, UDP, shape)
    headers = example(UDP, Direction.EGRESS)
    assert headers is not None
    sock = net.socket(socket.AF_PACKET, socket.SOCK_RAW)
    measured = probing.probe(net.nl, sock, attached, headers, count=400, interval=0.0005)
    delays = sorted(delay / MS for delay in measured.delays)
    assert len(delays) == measured.matched == 400
    low, quarter, median, three, high = (delays[int(400 * q)] for q in (0.1, 0.25, 0.5, 0.75, 0.9))
    middle, spread, skew = {  # in milliseconds, from the quantile functions
        "uniform": (60, 10, 0.0),
        "normal": (60, 13.5, 0.0),
        "pareto": (57.2, 5.6, 0.6),
        "paretonormal": (58.4, 6, 0.45),
    }[distribution]
    assert abs(median - middle) < 4
    assert spread * 0.65 < three - quarter < spread * 1.6
    assert abs((low + high - 2 * median) / (high - low) - skew) < 0.3


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("host", HOSTS)
def test_corruption_looks_like_corruption_on_loopback_too(
    net: Net, direction: Direction, host: str
) -> None:
    before = net.residue()
    receiver, sender = net.udp(host, PORT), net.udp(host)
    name = ("", "Udp6InCsumErrors") if ":" in host else ("Udp:", "InCsumErrors")
    errors = net.snmp(*name)
    attached = inject(net, direction, UDP, None, action=Action(ActionKind.CORRUPT, 30))
    arrived = exchange(sender, receiver, 400)
    hit = classifier.counters(attached).hit
    assert arrived == 400 - hit < 400
    assert net.snmp(*name) - errors == hit
    assert recover(net, direction)
    assert exchange(sender, receiver, 50) == 50
    assert net.residue() == before


def test_corrupted_tcp_is_repeated_and_arrives_right(net: Net) -> None:
    match = Match(("tcp",))
    attached = inject(
        net, Direction.EGRESS, match, None, action=Action(ActionKind.CORRUPT, every=15)
    )
    server = net.listen("127.0.0.1")
    client = net.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(server.getsockname())
    served, _ = server.accept()
    served.settimeout(30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = random.Random(1).randbytes(300_000)

    def write() -> None:
        for start in range(0, len(sent), 1000):
            client.sendall(sent[start : start + 1000])
        client.close()

    writer = threading.Thread(target=write)
    writer.start()
    got = b""
    while data := served.recv(1 << 16):
        got += data
    writer.join()
    served.close()
    assert got == sent
    assert net.snmp("Tcp:", "InCsumErrors") >= classifier.counters(attached).hit > 0


@pytest.mark.usefixtures("netem")
@pytest.mark.parametrize("direction", Direction)
def test_delay_loss_and_duplicates_compose_on_one_device(net: Net, direction: Direction) -> None:
    before = net.residue()
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    inject(net, direction, UDP, Netem(delay=20 * MS), step=1)
    add(net, direction, UDP, Action(ActionKind.DROP, every=2), step=2)
    add(net, direction, UDP, Action(ActionKind.DUPLICATE), step=3)
    inject(net, direction, UDP, Netem(delay=20 * MS), step=4)
    sent = time.perf_counter()
    for number in range(10):
        sender.sendto(bytes([number]), ("127.0.0.1", PORT))
    arrived = sorted(data[0] for data in drain(receiver, 0.3))
    assert arrived == sorted([0, 2, 4, 6, 8] * 2)
    assert time.perf_counter() - sent >= 0.04
    for step in (3, 1, 4, 2):
        recover(net, direction, step=step)
    assert net.residue() == before


def test_our_devices_say_nothing_on_their_own(net: Net) -> None:
    made = hop.create(net.nl, link.get(net.nl, "lo"), mark(), None)
    tap = net.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((made.near.name, 3))
    tap.settimeout(3)
    with pytest.raises(TimeoutError):
        tap.recv(2000)
    for end in (made.near, made.far):
        seen = link.counters(net.nl, end.index)
        assert (seen["tx_packets"], seen["rx_packets"]) == (0, 0)


def _htb_tree(net: Net, index: int) -> None:
    """A user's own tree on the root: HTB with two classes."""
    init = netlink.attribute(2, struct.pack("=5I", 3, 10, 0x20, 0, 0))
    tc.add_qdisc(net.nl, index, "htb", init, handle=0x10000)
    table = bytes(1024)
    for minor, rate in ((0x10, 1_000_000), (0x20, 125_000_000)):
        spec = struct.pack("=BBHhHI", 0, 1, 0, -1, 0, rate)
        options = struct.pack("=12s12sIIIII", spec, spec, 100000, 100000, 1, 0, 0)
        body = netlink.attribute(1, options) + netlink.attribute(3, table)
        body += netlink.attribute(4, table)
        tc.add_class(net.nl, index, "htb", body, handle=0x10000 | minor, parent=0x10000)


@pytest.mark.parametrize("direction", Direction)
def test_a_users_own_tree_is_the_same_before_during_and_after(
    wire: Wire, direction: Direction
) -> None:
    index = wire.here.index("v0")
    _htb_tree(wire.here, index)

    def tree() -> list[tuple[str, int, int, bytes]]:
        found = tc.qdiscs(wire.here.nl, index)
        return [(q.kind, q.handle, q.parent, q.options) for q in found if q.parent == tc.ROOT]

    before = tree()
    inject(wire.here, direction, Match(("udp",)), Tbf(rate=50_000_000), ifindex=index)
    add(wire.here, direction, UDP, Action(ActionKind.DROP, 50), step=2, ifindex=index)
    assert tree() == before
    ends = wire.here.udp(wire.here4, PORT), wire.there.udp(wire.there4, PORT)
    sender, receiver = ends if direction is Direction.EGRESS else (ends[1], ends[0])
    assert 20 < exchange(sender, receiver, 100) < 80
    recover(wire.here, direction, ifindex=index)
    take(wire.here, direction, step=2, ifindex=index)
    assert tree() == before
    assert exchange(sender, receiver, 100) == 100


@pytest.mark.usefixtures("netem")
def test_draining_loses_nothing_and_not_draining_says_what_is_held(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    inject(net, Direction.EGRESS, UDP, Netem(delay=300 * MS))
    for _ in range(50):
        sender.sendto(b"x", ("127.0.0.1", PORT))
    assert hop.backlog(net.nl, UID, "1") == 50
    assert recover(net, Direction.EGRESS, drain=2.0)
    assert len(drain(receiver)) == 50
    inject(net, Direction.EGRESS, UDP, Netem(delay=300 * MS))
    sender.sendto(b"x", ("127.0.0.1", PORT))
    assert recover(net, Direction.EGRESS, drain=0)
    assert drain(receiver, 0.4) == []


@pytest.mark.parametrize("reached", ["pair", "return", "filter"])
def test_undo_works_from_every_point_that_a_crash_can_leave(net: Net, reached: str) -> None:
    before = net.residue()
    device = link.get(net.nl, "lo")
    made = hop.create(net.nl, device, mark(), Tbf(rate=1_000_000))
    if reached != "pair":
        place = classifier.next_place(net.nl, LO, Direction.EGRESS)
        with classifier.new_times() as times:
            classifier.attach_return(net.nl, made.far.index, place, mark(), times)
            if reached == "filter":
                action = Action(ActionKind.REDIRECT, target=made.near.index)
                classifier.attach(net.nl, place, mark(), UDP, action, Guard(), times)
    assert recover(net, Direction.EGRESS)
    assert not recover(net, Direction.EGRESS)
    assert net.residue() == before


def test_injecting_again_after_a_crash_finishes_what_was_begun(net: Net) -> None:
    hop.create(net.nl, link.get(net.nl, "lo"), mark(), Tbf(rate=1_000_000))
    first = inject(net, Direction.EGRESS, UDP, Tbf(rate=1_000_000))
    assert inject(net, Direction.EGRESS, UDP, Tbf(rate=1_000_000)) == first
    assert len(hop.scan(net.nl)) == 1
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    assert exchange(sender, receiver, 10) == 10


def test_the_loopback_settings_of_the_user_come_back_with_the_last_fault(net: Net) -> None:
    link.set_setting4(net.nl, LO, {link.CONF_ACCEPT_LOCAL: 0, link.CONF_ROUTE_LOCALNET: 1})
    inject(net, Direction.EGRESS, UDP, Tbf(rate=1_000_000), step=1)
    inject(net, Direction.INGRESS, UDP, Tbf(rate=1_000_000), step=2)
    settings = link.CONF_ACCEPT_LOCAL, link.CONF_ROUTE_LOCALNET

    def now() -> list[int]:
        return [link.get(net.nl, LO).setting4(position) for position in settings]

    assert now() == [1, 1]
    recover(net, Direction.EGRESS, step=1)
    assert now() == [1, 1]
    recover(net, Direction.INGRESS, step=2)
    assert now() == [0, 1]


def test_a_name_that_somebody_else_has_is_stepped_round(net: Net) -> None:
    taken = hop.names(mark())[0]
    link.add_simple(net.nl, taken, "ifb", "not ours")
    made = hop.create(net.nl, link.get(net.nl, "lo"), mark(), None)
    assert made.near.name != taken
    assert hop.remove(net.nl, UID, "1")
    assert link.get(net.nl, taken).alias == "not ours"


def test_a_missing_discipline_leaves_nothing_behind(net: Net) -> None:
    class Unknown(Tbf):
        kind = "nosuch"

    before = net.residue()
    with pytest.raises(FileNotFoundError):
        inject(net, Direction.EGRESS, UDP, Unknown(rate=1_000_000))
    assert net.residue() == before


def test_the_hop_opens_at_the_deadline(net: Net) -> None:
    from netrig import now

    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    guard = Guard(deadline=now() + 800 * MS)
    attached = inject(net, Direction.EGRESS, UDP, Tbf(rate=1_000_000), guard=guard)
    exchange(sender, receiver, 5)
    assert classifier.counters(attached).hit == 5
    while now() < guard.deadline + 10 * MS:
        time.sleep(0.02)
    assert exchange(sender, receiver, 5) == 5
    assert classifier.counters(attached).hit == 5
