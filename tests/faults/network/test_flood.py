"""A load on one address, as its target sees it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lanes import off, on, order
from netrig import Net, Wire

from faultline.changes.model import End, mark
from faultline.errors import InvalidParameter, Protected
from faultline.injection.injector import Injector
from faultline.injection.reading import Effect
from faultline.kernel import netns, procfs
from faultline.workers.flood import Pace

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def arrived(receiver: socket.socket, seconds: float) -> tuple[int, float]:
    """How many datagrams arrive in so many seconds, and how long that was."""
    receiver.settimeout(0.2)
    begun = time.monotonic()
    count = 0
    while time.monotonic() - begun < seconds:
        try:
            receiver.recv(65536)
        except TimeoutError:
            continue
        count += 1
    return count, time.monotonic() - begun


def empty(receiver: socket.socket) -> None:
    receiver.setblocking(False)
    try:
        while receiver.recv(65536):
            continue
    except BlockingIOError:
        return


@contextmanager
def sink(net: Net, host: str) -> Iterator[tuple[int, dict[str, int]]]:
    """A listener that accepts everybody and reads everything: its port and what it counted."""
    listener = net.listen(host)
    listener.settimeout(0.05)
    seen = {"connections": 0, "bytes": 0, "stop": 0}
    threads: list[threading.Thread] = []

    def read(wire: socket.socket) -> None:
        with wire:
            wire.settimeout(0.1)
            while not seen["stop"]:
                try:
                    data = wire.recv(1 << 16)
                except TimeoutError:
                    continue
                except ConnectionError:
                    return
                if not data:
                    return
                seen["bytes"] += len(data)

    def serve() -> None:
        while not seen["stop"]:
            try:
                wire, _ = listener.accept()
            except TimeoutError:
                continue
            seen["connections"] += 1
            threads.append(threading.Thread(target=read, args=(wire,)))
            threads[-1].start()

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        seen["stop"] = 1
        server.join()
        for each in threads:
            each.join()


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_arrive_at_the_rate_asked(wire: Wire, injector: Injector, family: int) -> None:
    host = wire.there4 if family == 4 else wire.there6
    receiver = wire.there.udp(host)
    port = receiver.getsockname()[1]
    asked: dict[str, Any] = {"destination": host, "destination_port": port, "packets": 200}
    with on(injector, "flood", **asked, bytes="200B", parallel=2):
        empty(receiver)  # of what came while it was measured
        count, seconds = arrived(receiver, 1.0)
        assert 100 * seconds <= count <= 202 * seconds + 45  # the most that a busy sender is late
        assert len(receiver.recv(2000)) == 200
    empty(receiver)
    assert arrived(receiver, 0.3)[0] == 0


def test_a_rate_is_one_of_the_wire(wire: Wire, injector: Injector) -> None:
    receiver = wire.there.udp(wire.there4)
    port = receiver.getsockname()[1]
    asked = {"destination": wire.there4, "destination_port": port, "rate": "4mbit"}
    record = injector.inject(order("flood", **asked, bytes="1000B"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, (reading.measured, reading.reason)
    per_second = 4e6 / (8 * 1042)
    assert reading.values["asked"] == pytest.approx(per_second)
    assert reading.values["measured"] == pytest.approx(per_second, rel=0.1)
    off(injector, record.uid)


def test_bytes_over_connections(wire: Wire, injector: Injector) -> None:
    with sink(wire.there, wire.there4) as (port, seen):
        asked = {"destination": wire.there4, "destination_port": port, "rate": "8mbit"}
        with on(injector, "flood", mode="tcp", parallel=2, **asked):
            assert seen["connections"] == 2
            assert seen["bytes"] > 500_000
        time.sleep(0.1)
        before = seen["bytes"]
        time.sleep(0.2)
        assert seen["bytes"] == before


def test_connections_that_are_reset(wire: Wire, injector: Injector) -> None:
    with sink(wire.there, wire.there4) as (port, seen):
        asked = {"destination": wire.there4, "destination_port": port, "packets": 30}
        with on(injector, "flood", mode="connect", **asked):
            assert seen["connections"] > 20
        assert wire.here.snmp("Tcp:", "CurrEstab") == 0  # nothing is left behind


def test_what_is_refused_is_no_effect(wire: Wire, injector: Injector) -> None:
    asked = {"destination": wire.there4, "destination_port": 9, "rate": "8mbit"}
    record = injector.inject(order("flood", mode="tcp", **asked))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.INEFFECTIVE
    assert "refuses" in reading.reason
    off(injector, record.uid)


def test_it_ends_by_itself(wire: Wire, injector: Injector) -> None:
    asked = {"destination": "127.0.0.1", "destination_port": 9, "packets": 100}
    record = injector.inject(order("flood", duration="5s", **asked))
    senders = procfs.find_marked(mark(record.uid, 0))
    assert senders
    assert all(each.id.wait(10) for each in senders)
    with netns.entered(wire.here.fd):
        assert injector.recover(record.uid).end is End.RECOVERED


def test_strangers_and_groups_are_not_loaded(wire: Wire, injector: Injector) -> None:
    for stranger in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        with pytest.raises(Protected) as refused:
            injector.inject(order("flood", destination=stranger, destination_port=9, packets=1))
        assert "flood-public" in refused.value.hint
    for group in ("224.0.0.1", "ff02::1", "0.0.0.0", "255.255.255.255"):
        with pytest.raises(InvalidParameter):
            injector.inject(order("flood", destination=group, destination_port=9, packets=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"rate": "1mbit", "packets": 5},
        {"mode": "tcp", "packets": 5},
        {"mode": "connect", "rate": "1mbit"},
        {"packets": 2_000_000},
        {"rate": "100gbit"},
        {"packets": 5, "parallel": 65},
    ],
)
def test_rates_have_bounds(injector: Injector, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        injector.inject(order("flood", destination="127.0.0.1", destination_port=9, **wrong))


def test_what_is_late_is_not_made_up_for() -> None:
    pace = Pace(1_000_000, 0)
    sent = [pace.due(now)[0] for now in range(0, 10_000_001, 500_000)]
    assert sum(sent) == 11
    count, late = pace.due(1_000_000_000)
    assert late > 700
    assert count <= 64
    total, now = count, 1_000_000_000
    for _ in range(1000):
        now += 700_000
        total += pace.due(now)[0]
    assert 699 <= total <= 700 + 202  # a fifth of a second is made up for
