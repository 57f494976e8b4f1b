"""How exact the injected value is, measured without the tool's own reading.

    python -m benchmarks.accuracy

Processors from /proc/stat, memory from /proc/meminfo, delays by time stamps in packets of the
benchmark's own, losses by counting packets, rates by bytes at the interface.
"""

from __future__ import annotations

import math
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.figure import Figure, Measured, Missing, alone
from benchmarks.ground import Ground, ground, isolated, tried
from benchmarks.packets import PORT, child, one_way, world
from faultline.errors import Unsupported
from faultline.injection.reading import Effect
from faultline.kernel import cpustat, link, memory, netns

SECOND_KERNEL = True
SETTLE = 1.5  # seconds until a level stands
WINDOW = 4.0  # seconds of one measurement of a level
PERCENT = (20, 50, 80)
FILLS = (64, 256)  # MiB
TURNS = 5
DELAYS = (1, 10, 100, 500)  # ms
LOSSES = (1, 10, 50)  # per cent
RATES = (5, 20, 100)  # Mbit/s
PACKETS = 20_000
ENGINES = ("netem", "packets")


def processors(place: Ground) -> Measured:
    """The error of the busy share of one core, over four seconds."""
    core = max(os.sched_getaffinity(0))
    for asked in PERCENT:
        before = cpustat.core_times()
        time.sleep(0.5)
        others = cpustat.used_between(before, cpustat.core_times(), [core])
        with place.injected("cpu.burn", percent=f"{asked}%", cores=str(core)) as record:
            time.sleep(SETTLE)
            before = cpustat.core_times()
            time.sleep(WINDOW)
            found = cpustat.used_between(before, cpustat.core_times(), [core])
            reading = place.injector.observe(record.uid)
        name = f"cpu burn {asked} %: error"
        if reading.effect is Effect.ABOVE or others > asked:
            yield Missing(name, "others used more than that, so that the fault had nothing to add")
            continue
        spread = f"measured {found:.2f} %, others used {others:.0f} % before"
        yield Figure(name, found - asked, "points", "within 3 points", spread)


def fills(place: Ground) -> Measured:
    """The error of a fill: locked memory of the host for `ram`, shared memory for `cache`.

    Others may lock and unlock meanwhile; so the median of several turns.
    """
    for mode, counter in (("ram", "Mlocked"), ("cache", "Shmem")):
        for size in FILLS:
            taken: list[float] = []
            for _ in range(TURNS):
                place.warm()
                before = memory.meminfo()[counter]
                with place.injected("memory.fill", bytes=f"{size}MiB", mode=mode):
                    time.sleep(SETTLE)
                    taken.append((memory.meminfo()[counter] - before) / (1 << 20))
            middle = statistics.median(taken)
            spread = f"median {middle:.2f} MiB by {counter}, {min(taken):.2f} to {max(taken):.2f}"
            name = f"memory fill {size} MiB, {mode}: error"
            yield Figure(name, 100 * (middle - size) / size, "%", "within 1 %", spread, TURNS)


def delays(place: Ground) -> Measured:
    """The error of the median delay of one-way packets, less what they take without a fault."""
    space = netns.current()
    params = {"interface": "lo", "destination_port": [str(PORT)]}
    for engine in ENGINES:
        for asked in DELAYS:
            name = f"network delay {asked} ms, {engine}: error of the median"
            bare = statistics.median(one_way(space, 200, 0.5))
            try:
                with place.injected("network.delay", latency=f"{asked}ms", engine=engine, **params):
                    found = one_way(space, 200, 1 + asked / 250)
            except Unsupported as error:
                yield Missing(name, error.message)
                break
            error = (statistics.median(found) - bare) / 1e6 - asked
            aim = f"within {max(1.0, asked / 20):g} ms"
            spread = f"p99 {found[len(found) * 99 // 100] / 1e6 - asked:.2f} ms late"
            yield Figure(name, error, "ms", aim, spread, len(found))
    os.close(space)


def received(count: int) -> int:
    """How many of so many packets of ours over loopback arrive."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(("127.0.0.1", PORT))
        receiver.setblocking(False)
        sender.connect(("127.0.0.1", PORT))
        arrived = 0
        for sent in range(count):
            sender.send(b"x")
            if sent % 50 == 49 or sent == count - 1:
                arrived += _drained(receiver)
        return arrived


def _drained(receiver: socket.socket) -> int:
    count = 0
    while True:
        try:
            receiver.recv(16)
        except BlockingIOError:
            return count
        count += 1


def losses(place: Ground) -> Measured:
    """How far the loss of twenty thousand packets is from what was asked, in standard errors."""
    for asked in LOSSES:
        params = {"interface": "lo", "destination_port": [str(PORT)]}
        with place.injected("network.loss", percent=f"{asked}%", **params):
            lost = PACKETS - received(PACKETS)
        share = asked / 100
        spread = f"lost {100 * lost / PACKETS:.3f} % of the packets"
        errors = (lost - share * PACKETS) / math.sqrt(share * (1 - share) * PACKETS)
        name = f"network loss {asked} %: error"
        yield Figure(name, errors, "standard errors", "within 3", spread, PACKETS)


def _flood() -> None:
    """Send packets of 1400 bytes for ever, about four times faster than the fastest rate asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        block = bytes(1400)
        while True:
            for _ in range(45):
                sender.sendto(block, ("10.77.0.2", PORT))
            time.sleep(0.001)


def rates(place: Ground) -> Measured:
    """The error of the rate of bytes that leave a cable's near end, headers included."""
    with world() as (near, far, nl), netns.entered(near), ground() as there:
        index = link.get(nl, "va").index
        with netns.entered(far):
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sink:
            sink.bind(("10.77.0.2", PORT))
            for engine in ENGINES:
                for asked in RATES:
                    name = f"network limit {asked} Mbit/s, {engine}: error"
                    order = {"interface": "va", "rate": f"{asked}mbit", "engine": engine}
                    yield from _rate(there, name, order, asked, lambda: _sent(nl, index, near))


def _sent(nl: link.Netlink, index: int, near: int) -> float:
    """Bits per second at the device while it is flooded."""
    with child(near, _flood):
        time.sleep(1.0)
        before, begun = link.counters(nl, index)["tx_bytes"], time.monotonic()
        time.sleep(3.0)
        sent = link.counters(nl, index)["tx_bytes"] - before
        return 8 * sent / (time.monotonic() - begun)


def _rate(
    place: Ground, name: str, order: dict[str, str], asked: int, run: Callable[[], float]
) -> Measured:
    try:
        with place.injected("network.limit", **order):
            found = run() / 1e6
    except Unsupported as error:
        yield Missing(name, error.message)
        return
    spread = f"measured {found:.2f} Mbit/s"
    yield Figure(name, 100 * (found - asked) / asked, "%", "within 5 %", spread)


def _all(place: Ground) -> Measured:
    for part in (processors, fills, delays, losses, rates):
        yield from tried(part.__name__, lambda part=part: part(place))


def measure() -> Measured:
    """Every fault that injects an amount, at several amounts."""
    yield from isolated(_all)


if __name__ == "__main__":
    sys.exit(alone(measure))
