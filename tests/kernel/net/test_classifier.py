"""Drop-like faults on real packets: asked, counted by the kernel, and seen by a receiver."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from netrig import (
    PORT,
    UDP,
    Net,
    Wire,
    add,
    drain,
    exchange,
    now,
    take,
    three_sigma,
)  # fmt: skip

from faultline.kernel import classifier, netns
from faultline.kernel.match import Action, ActionKind, Exempt, Guard, Match
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

HOSTS = ("127.0.0.1", "::1")
DROP = Action(ActionKind.DROP)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("host", HOSTS)
def test_the_receiver_misses_exactly_what_the_filter_counts_as_hit(
    net: Net, direction: Direction, host: str
) -> None:
    receiver, sender = net.udp(host, PORT), net.udp(host)
    before = net.residue()
    attached = add(net, direction, UDP, Action(ActionKind.DROP, 10))
    arrived = exchange(sender, receiver, 3000)
    counts = classifier.counters(attached)
    assert counts.matched == 3000
    assert arrived == 3000 - counts.hit
    assert counts.share is not None
    assert abs(counts.share - 10) < 1.34 * three_sigma(10, 3000)  # four standard errors
    assert take(net, direction)
    assert exchange(sender, receiver, 100) == 100
    assert net.residue() == before


def test_every_nth_packet_is_exact(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    attached = add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP, every=4))
    for number in range(40):
        sender.sendto(bytes([number]), ("127.0.0.1", PORT))
    assert [data[0] for data in drain(receiver)] == [n for n in range(40) if n % 4 != 3]
    assert classifier.counters(attached).hit == 10


def test_correlated_losses_come_in_bursts_and_keep_their_share(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    attached = add(net, Direction.EGRESS, UDP, Action(ActionKind.DROP, 30, correlation=80))
    count = 6000
    for number in range(count):
        sender.sendto(number.to_bytes(4, "big"), ("127.0.0.1", PORT))
    arrived = {int.from_bytes(data, "big") for data in drain(receiver)}
    lost = [number not in arrived for number in range(count)]
    pairs = sum(a and b for a, b in itertools.pairwise(lost))
    share = classifier.counters(attached).share
    assert share is not None
    assert abs(share - 30) < 4 / 3 * 3 * three_sigma(
        30, count
    )  # (1+r)/(1-r) = 9 times the variance
    assert pairs / sum(lost) > 0.75  # 0.86 expected; 0.30 without correlation


def test_the_sender_of_a_lost_packet_is_not_told(net: Net) -> None:
    sender = net.udp("127.0.0.1")
    sender.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: would report ENOBUFS
    add(net, Direction.EGRESS, UDP, DROP)
    assert all(sender.sendto(b"x", ("127.0.0.1", PORT)) == 1 for _ in range(200))
    sender.settimeout(0.05)
    with pytest.raises(TimeoutError):
        sender.recv(16)


@pytest.mark.parametrize("direction", Direction)
def test_tcp_takes_the_loss_for_a_loss_and_repeats(net: Net, direction: Direction) -> None:
    server = net.listen("127.0.0.1")
    match = Match(protocols=("tcp",))
    attached = add(net, direction, match, Action(ActionKind.DROP, every=20))
    client = net.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.connect(server.getsockname())
    served, _ = server.accept()
    served.settimeout(30)
    got = [0]

    def receive() -> None:
        while data := served.recv(1 << 16):
            got[0] += len(data)

    reader = threading.Thread(target=receive)
    reader.start()
    for _ in range(1500):
        client.sendall(bytes(1200))
    client.shutdown(socket.SHUT_WR)
    reader.join()
    served.close()
    assert got[0] == 1500 * 1200
    hit = classifier.counters(attached).hit
    assert hit > 0
    assert net.snmp("Tcp:", "RetransSegs") > 0  # a local drop would be sent again uncounted


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [((), {"tcp", "udp", "icmp"}), (("udp",), {"udp"}), (("tcp", "icmp"), {"tcp", "icmp"})],
)
@pytest.mark.parametrize("host", HOSTS)
def test_protocols_are_told_apart(
    net: Net, host: str, protocols: tuple[str, ...], expected: set[str]
) -> None:
    add(net, Direction.EGRESS, Match(protocols=protocols), DROP)
    lost: set[str] = set()
    receiver = net.udp(host, PORT)
    if not exchange(net.udp(host), receiver, 3):
        lost.add("udp")
    server = net.listen(host)
    client = net.socket(server.family, socket.SOCK_STREAM)
    client.settimeout(0.2)
    try:
        client.connect(server.getsockname())
    except TimeoutError:
        lost.add("tcp")
    if not _ping(net, host):
        lost.add("icmp")
    assert lost == expected


def _ping(net: Net, host: str) -> bool:
    six = ":" in host
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    raw = net.socket(family, socket.SOCK_RAW, protocol)
    request = bytes((128 if six else 8, 0, 0, 0, 0, 7, 0, 1))
    if not six:
        request = request[:2] + (0xFFFF - 0x0800 - 7 - 1).to_bytes(2, "big") + request[4:]
    raw.sendto(request, (host, 0))
    found = drain(raw)
    answers = [data if six else data[20:] for data in found]
    return any(data[0] == (129 if six else 0) for data in answers)


@pytest.mark.parametrize("host", HOSTS)
def test_port_ranges_include_both_ends(net: Net, host: str) -> None:
    match = Match(destination_ports=((6001, 6003), (6007, 6007)))
    add(net, Direction.INGRESS, match, DROP)
    sender = net.udp(host)
    passed = {port for port in range(6000, 6010) if exchange(sender, net.udp(host, port), 1)}
    assert passed == {6000, 6004, 6005, 6006, 6008, 6009}


@pytest.mark.parametrize("exclude", [False, True])
def test_networks_of_both_families_and_their_exclusion(net: Net, exclude: bool) -> None:
    match = Match(
        ("udp",), destinations=("127.1.0.0/16", "::ffff:127.2.0.7", "::1"), exclude=exclude
    )
    add(net, Direction.EGRESS, match, DROP)
    hosts = ["127.1.0.1", "127.1.255.255", "127.2.0.7", "127.2.0.8", "127.0.0.1", "::1"]
    lost = {h for h in hosts if not exchange(net.udp(h), net.udp(h, PORT), 2)}
    inside = {"127.1.0.1", "127.1.255.255", "127.2.0.7", "::1"}
    assert lost == (set(hosts) - inside if exclude else inside)


def test_source_and_destination_are_not_confused(net: Net) -> None:
    add(net, Direction.EGRESS, Match(("udp",), sources=("127.0.0.9",)), DROP)
    receiver = net.udp("127.0.0.1", PORT)
    assert exchange(net.udp("127.0.0.9"), receiver, 3) == 0
    answerer = net.udp("127.0.0.9", PORT)
    assert exchange(net.udp("127.0.0.1"), answerer, 3) == 3


def test_a_list_without_addresses_matches_nothing_until_it_is_followed(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    attached = add(net, Direction.EGRESS, Match(("udp",), destinations=()), DROP)
    assert exchange(sender, receiver, 10) == 10
    classifier.follow(attached, destinations=("127.0.0.1", "fd00::/8"))
    assert exchange(sender, receiver, 10) == 0
    classifier.follow(attached, destinations=("127.0.0.2",))
    assert exchange(sender, receiver, 10) == 10
    with pytest.raises(ValueError, match="no list"):
        classifier.follow(attached, sources=("127.0.0.1",))


@pytest.mark.parametrize("host", HOSTS)
def test_an_exempt_connection_lives_on_inside_a_partition(net: Net, host: str) -> None:
    server = net.listen(host)
    client = net.socket(server.family, socket.SOCK_STREAM)
    client.connect(server.getsockname())
    served, _ = server.accept()
    port, local = server.getsockname()[1], client.getsockname()[1]
    ours = Exempt(host, port, local), Exempt(host, local, port)  # lo carries both ends
    attached = add(net, Direction.EGRESS, Match(), DROP, Guard(exempt=ours))
    for _ in range(5):
        client.sendall(b"still here")
        served.settimeout(2)
        assert served.recv(64) == b"still here"
    served.close()
    other = net.socket(server.family, socket.SOCK_STREAM)
    other.settimeout(0.2)
    with pytest.raises(TimeoutError):
        other.connect(server.getsockname())
    assert classifier.counters(attached).exempted >= 10


def test_the_deadline_ends_the_fault_with_none_of_our_processes_alive(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    deadline = now() + 1_500_000_000
    program = (
        "import sys\n"
        "from faultline.kernel import classifier as c, netlink, mark, match, tc\n"
        "nl = netlink.Netlink.from_fd(int(sys.argv[1]))\n"
        "place = c.next_place(nl, 1, tc.Direction.EGRESS)\n"
        "g = match.Guard(deadline=int(sys.argv[2]))\n"
        "a = match.Action(match.ActionKind.DROP)\n"
        "c.attach(nl, place, mark.Mark('test', '1'), match.Match(('udp',)), a, g)\n"
    )
    fd = net.nl.fileno()
    command = [sys.executable, "-c", program, str(fd), str(deadline)]
    subprocess.run(command, pass_fds=(fd,), check=True)
    assert exchange(sender, receiver, 20) == 0
    assert now() < deadline, "this machine was too slow for the test to mean anything"
    while now() < deadline + 20_000_000:
        time.sleep(0.02)
    assert exchange(sender, receiver, 20) == 20
    assert take(net, Direction.EGRESS)


def test_a_worker_that_stops_writing_its_heartbeat_opens_the_way(net: Net) -> None:
    receiver, sender = net.udp("127.0.0.1", PORT), net.udp("127.0.0.1")
    attached = add(net, Direction.EGRESS, UDP, DROP, Guard(heartbeat=300_000_000))
    assert exchange(sender, receiver, 5) == 5  # never written: nobody is there
    with classifier.heartbeat(attached) as beat:
        beat[:8] = now().to_bytes(8, sys.byteorder)
        assert exchange(sender, receiver, 5) == 0
        time.sleep(0.4)
        assert exchange(sender, receiver, 5) == 5


def test_arp_and_neighbour_discovery_pass_a_partition(wire: Wire) -> None:
    for direction in Direction:
        add(wire.here, direction, Match(), DROP, step=direction, ifindex=wire.here.index("v0"))
    sender = wire.here.udp(wire.here4)
    assert exchange(sender, wire.there.udp(wire.there4, PORT), 3) == 0
    sender6 = wire.here.udp(wire.here6)
    assert exchange(sender6, wire.there.udp(wire.there6, PORT), 3) == 0
    with netns.entered(wire.here.fd):
        lines = Path("/proc/thread-self/net/arp").read_text(encoding="ascii").splitlines()
    assert any(line.startswith(wire.there4) and "0x2" in line for line in lines)


def test_later_fragments_match_without_ports_and_never_with(wire: Wire) -> None:
    index = wire.here.index("v0")
    by_port = add(wire.here, Direction.EGRESS, UDP, Action(ActionKind.DROP, 0), ifindex=index)
    plain = Match(("udp",), destinations=(wire.there4, wire.there6))
    every = add(
        wire.here, Direction.EGRESS, plain, Action(ActionKind.DROP, 0), step=2, ifindex=index
    )
    for here, there in ((wire.here4, wire.there4), (wire.here6, wire.there6)):
        before = classifier.counters(by_port).matched, classifier.counters(every).matched
        receiver = wire.there.udp(there, PORT)
        assert exchange(wire.here.udp(here), receiver, 1, size=6000) == 1
        after = classifier.counters(by_port).matched, classifier.counters(every).matched
        assert after[0] - before[0] == 1
        assert after[1] - before[1] == 5


def test_ipv6_extension_headers_are_stepped_over(net: Net) -> None:
    receiver, sender = net.udp("::1", PORT), net.udp("::1")
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes((0, 0, 1, 4, 0, 0, 0, 0)))
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, bytes((0, 0, 1, 4, 0, 0, 0, 0)))
    assert exchange(sender, receiver, 5) == 5
    attached = add(net, Direction.INGRESS, UDP, DROP)
    assert exchange(sender, receiver, 5) == 0
    assert classifier.counters(attached).hit == 5
