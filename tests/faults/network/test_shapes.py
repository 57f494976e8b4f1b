"""What packets are told by and how they are held: TCP flags, distributions, bursts at a peak."""

from __future__ import annotations

import statistics
import threading
import time

import pytest
from lanes import Lane, connects, drain, on, order, speaks, trips

from faultline.errors import InvalidParameter
from faultline.injection.injector import Injector
from faultline.kernel.match import Match
from faultline.kernel.predicate import Headers, matches

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]
SYN, ACK, PSH = 2, 16, 8


def test_only_the_first_segments_are_lost(few: Lane, on_few: Injector) -> None:
    """What is connected stays so; nobody new gets through, and datagrams do."""
    client, served = few.connected()
    with on(on_few, "loss", **few.here, percent="100%", tcp_flags="syn,!ack"):
        assert speaks(client, served)
        assert not connects(few.sender, few.receiver, few.host, 9100)
        few.udp()
    assert connects(few.sender, few.receiver, few.host, 9101)


def test_only_the_others_are_lost(few: Lane, on_few: Injector) -> None:
    client, served = few.connected()
    with on(on_few, "loss", **few.here, percent="100%", tcp_flags="psh", engine="ebpf"):
        assert connects(few.sender, few.receiver, few.host, 9102)
        assert not speaks(client, served)


@pytest.mark.parametrize("exclude", [False, True])
def test_the_oracle_knows_flags(exclude: bool) -> None:
    match = Match(flags=SYN, no_flags=ACK, exclude=exclude)
    told = {flags: matches(match, Headers(6, "1.1.1.1", "2.2.2.2", 1, 2, flags))
            for flags in (0, SYN, SYN | PSH, SYN | ACK, ACK)}  # fmt: skip
    assert told == {
        flags: (flags in (SYN, SYN | PSH)) != exclude
        for flags in (0, SYN, SYN | PSH, SYN | ACK, ACK)
    }
    assert matches(match, Headers(17, "1.1.1.1", "2.2.2.2", 1, 2)) == exclude


@pytest.mark.parametrize(
    "wrong",
    [
        {"tcp_flags": "sin"},
        {"tcp_flags": "syn,!syn"},
        {"tcp_flags": "syn", "protocol": "udp"},
    ],
)
def test_flags_that_are_none(few: Lane, on_few: Injector, wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter):
        on_few.inject(order("loss", **few.here, percent="10%", **wrong))


@pytest.mark.parametrize("few", ["wire-out-4"], indirect=True)
@pytest.mark.parametrize("distribution", ["pareto", "paretonormal", "normal"])
def test_long_waits_are_rare(few: Lane, on_few: Injector, distribution: str) -> None:
    spread = {"latency": "40ms", "jitter": "8ms", "distribution": distribution}
    with on(on_few, "delay", **few.here, **spread, protocol="udp"):
        sender, receiver = few.udp()
        drain(receiver, 0.2)  # what is late of the greeting
        taken = trips(sender, receiver, 30)
    middle, mean = statistics.median(taken), statistics.mean(taken)
    assert 30 < middle < 70
    if distribution == "pareto":
        assert middle < mean + 2  # the mean is that asked, most are below it


@pytest.mark.parametrize("few", ["lo-out-4", "wire-in-6"], indirect=True)
@pytest.mark.parametrize("engine", ["auto", "packets"])
def test_a_burst_passes_at_the_peak(few: Lane, on_few: Injector, engine: str) -> None:
    """Of 101 kB at 1 Mbit/s 85 kB pass at 4 Mbit/s, in 170 ms; the rest takes 125 ms."""
    limit = {"rate": "1mbit", "burst": "64000B", "backlog": "1MiB", "peak": "4mbit"}
    limit["min_burst"] = "2KiB"  # on its own it is one packet, which on lo is larger than the burst
    with on(on_few, "limit", **few.here, **limit, protocol="udp", engine=engine):
        sender, receiver = few.udp()
        time.sleep(0.8)  # until the burst is there again
        got = list[tuple[float, bytes]]()
        reader = threading.Thread(target=lambda: got.extend(drain(receiver, 1.0)))
        reader.start()
        begun = time.perf_counter()
        for _ in range(70):
            sender.sendto(bytes(1400), receiver.getsockname())
        reader.join()
    arrived = [at for at, _ in got]
    assert len(arrived) == 70
    # A busy host makes packets later, never earlier.
    assert arrived[40] - begun > 40 * 1442 * 8 / 4e6 * 0.9
    assert arrived[69] - begun > 0.26


def test_a_peak_is_above_the_rate(few: Lane, on_few: Injector) -> None:
    for wrong in ({"peak": "1mbit"}, {"min_burst": "2KiB"}):
        with pytest.raises(InvalidParameter):
            on_few.inject(order("limit", **few.here, rate="2mbit", **wrong))
