"""Delay, reordering and limits, timed by the programs that send and receive."""

from __future__ import annotations

import itertools
import socket
import statistics
import threading
import time

import pytest
from lanes import (
    HALF,
    Lane,
    datagram,
    drain,
    middle_trip,
    no_errors,
    numbers,
    on,
    send,
    stream,
    trips,
)

from faultline.injection.injector import Injector

FRAME = 1400 + 8 + 14  # payload, UDP, Ethernet; the IP header depends on the version
EARLY = 1.0  # milliseconds by which a packet may go early

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def test_every_packet_waits_as_long_as_asked(way: Lane, on_way: Injector) -> None:
    sender, receiver = way.udp()
    still = middle_trip(sender, receiver)
    with on(on_way, "delay", latency="40ms", protocol="udp", **way.here):
        late = trips(sender, receiver)
        no_errors(sender)
    assert min(late) >= 40 - EARLY
    assert statistics.median(late) - still < 40 * 1.25
    assert middle_trip(sender, receiver) < 40


def test_a_delay_makes_tcp_connections_slower_by_as_much(few: Lane, on_few: Injector) -> None:
    listener = few.listener()

    def connecting() -> float:
        client = few.sender.socket(few.family, socket.SOCK_STREAM)
        begun = time.perf_counter()
        client.connect(listener.getsockname())
        return (time.perf_counter() - begun) * 1e3

    still = connecting()
    both = few.device == "lo"  # the answer passes the same filter there
    with on(on_few, "delay", latency="30ms", protocol="tcp", **few.here):
        late = min(connecting() for _ in range(3))
    asked = 60 if both else 30
    assert asked - 2 * EARLY <= late < asked * 1.25 + still
    assert connecting() < 30


def test_jitter_spreads_the_wait_to_both_sides(few: Lane, on_few: Injector) -> None:
    sender, receiver = few.udp()
    wanted = {"latency": "30ms", "jitter": "10ms", "protocol": "udp"}
    with on(on_few, "delay", **wanted, **few.here):
        late = trips(sender, receiver, 40)
    assert min(late) >= 20 - EARLY
    assert min(late) < 28
    assert 25 < statistics.median(late) < 36
    assert sum(wait > 32 for wait in late) > 4


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_every_third_packet_overtakes_and_none_is_lost(way: Lane, on_way: Injector) -> None:
    sender, receiver = way.udp()
    wanted = {"latency": "80ms", "gap": 3, "protocol": "udp"}
    with on(on_way, "reorder", **wanted, **way.here):
        arrived = numbers(send(sender, receiver, 120))
    assert sorted(arrived) == list(range(120))
    first, rest = arrived[:30], arrived[45:]  # those that did not wait, and those that did
    assert {b - a for a, b in itertools.pairwise(first)} == {3}
    assert {b - a for a, b in itertools.pairwise(rest)} <= {1, 2}
    ordered = numbers(send(sender, receiver, 100))
    assert ordered == list(range(100))


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_the_rate_at_the_interface_is_the_one_asked_for(way: Lane, on_way: Injector) -> None:
    sender, receiver = way.udp()
    size = FRAME + (20 if "." in way.host else 40)
    arrived: list[tuple[float, bytes]] = []
    with on(on_way, "limit", rate="8mbit", protocol="udp", **way.here):
        reader = threading.Thread(target=lambda: arrived.extend(drain(receiver, 0.3)))
        reader.start()
        for number in range(300):
            assert sender.sendto(datagram(number, 1400), receiver.getsockname()) == 1400
        reader.join()
        no_errors(sender)
    assert len(arrived) > 100
    tail = [at for at, _ in arrived[len(arrived) // 2 :]]  # the burst has passed by then
    rate = (len(tail) - 1) * size * 8 / (tail[-1] - tail[0])
    assert rate == pytest.approx(8_000_000, rel=0.1)
    assert numbers(send(sender, receiver, 50)) == list(range(50))


@pytest.mark.parametrize("latency", [10, 50])
def test_tcp_fills_a_long_wire_as_on_a_network(few: Lane, on_few: Injector, latency: int) -> None:
    """The sender is not held back by packets that the fault holds.

    A queue that keeps the sender's own buffers lets some 250 kB be on the way at a time, whatever
    the window; a network lets the windows grow.
    """
    with on(on_few, "delay", latency=f"{latency}ms", protocol="tcp", **few.here):
        seen = stream(few, 24_000_000)
    assert seen.intact
    # By TCP's own figure, which dates a segment when it means to send it: that may be later.
    assert seen.shortest * 1e3 >= latency - 2 * EARLY
    assert seen.in_flight > 500_000


def test_two_senders_share_what_the_limit_leaves(few: Lane, on_few: Injector) -> None:
    with on(on_few, "limit", rate="40mbit", protocol="tcp", **few.here):
        begun, whole = time.perf_counter(), list[bool]()
        threads = [
            threading.Thread(target=lambda: whole.append(stream(few, 1_500_000).intact))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begun
    assert whole == [True, True]
    assert took >= 2 * 1_500_000 * 8 / 40_000_000 * 0.85  # less what may pass at once
