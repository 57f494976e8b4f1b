"""Queries that are answered by us, as the program that asks sees it, and those that are not."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from netrig import Wire
from servers import ask, ask_by_tcp, serving

from faultline.changes.model import End, Record, mark
from faultline.errors import InvalidParameter, TargetGone
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect, Reading
from faultline.kernel import frame, link, procfs
from faultline.kernel.tap import VNET_SIZE
from faultline.units import Duration
from faultline.workers import name_packets

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]
TRUE = "203.0.113.5"


def order(fault: str, duration: str = "60s", **params: Any) -> Order:
    return Order(f"dns.{fault}", params, Duration.parse(duration))


@contextmanager
def on(injector: Injector, fault: str, **params: Any) -> Iterator[tuple[Record, Reading]]:
    """The fault for the block; effective by its own account, and gone afterwards."""
    record = injector.inject(order(fault, **params))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, (reading.measured, reading.reason)
    yield record, reading
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED, ended
    assert injector.residue(record.uid) == []


@pytest.mark.parametrize("family", [4, 6])
def test_only_the_names_meant_get_the_error(wire: Wire, inside: Injector, family: int) -> None:
    host = wire.there4 if family == 4 else wire.there6
    with serving(wire.there, host) as server:
        with on(inside, "error", host="db.test,*.cluster.test", server=host) as (_, reading):
            assert reading.measured.startswith("3 of 3 queries answered SERVFAIL")
            for name in ("db.test", "DB.test", "a.cluster.test", "a.b.cluster.test"):
                told = ask(wire.here, host, name)
                assert told is not None
                assert (told.code, told.addresses) == ("SERVFAIL", [])
            assert server.seen == []
            for name in ("cluster.test", "x.db.test", "other.test"):
                told = ask(wire.here, host, name)
                assert told is not None
                assert (told.code, told.addresses) == ("NOERROR", [TRUE])
            assert server.seen == ["cluster.test", "x.db.test", "other.test"]
        told = ask(wire.here, host, "db.test")
        assert told is not None
        assert told.addresses == [TRUE]


@pytest.mark.parametrize("mode", ["nxdomain", "refused", "none"])
def test_what_the_program_is_told(wire: Wire, inside: Injector, mode: str) -> None:
    with serving(wire.there, wire.there4) as server:
        with on(inside, "error", host="*", mode=mode, interface="v0", server=wire.there4):
            told = ask(wire.here, wire.there4, "any.test", patience=0.3)
            by_tcp = ask_by_tcp(wire.here, wire.there4, "any.test", patience=0.3)
            assert server.seen == []
        if mode == "none":
            assert told is by_tcp is None
        else:
            assert told is not None
            assert by_tcp is not None
            assert told.code == by_tcp.code == mode.upper()


def test_a_query_over_tcp_is_answered_and_the_next_one_is_served(
    wire: Wire, inside: Injector
) -> None:
    with serving(wire.there, wire.there6) as server:
        with on(inside, "error", host="db.test", server=wire.there6):
            for _ in range(3):
                told = ask_by_tcp(wire.here, wire.there6, "db.test")
                assert told is not None
                assert told.code == "SERVFAIL"
            other = ask_by_tcp(wire.here, wire.there6, "other.test")
            assert other is not None
            assert other.addresses == [TRUE]
        assert server.seen == ["other.test"]


def test_a_server_that_is_not_there_makes_no_difference(wire: Wire, inside: Injector) -> None:
    with on(inside, "error", host="*", server=wire.there4, interface="v0"):
        told = ask(wire.here, wire.there4, "any.test")
        assert told is not None
        assert told.code == "SERVFAIL"
    assert ask(wire.here, wire.there4, "any.test", patience=0.2) is None


@pytest.mark.parametrize("host", ["127.0.0.53", "::1"])
def test_a_resolver_on_this_host(wire: Wire, inside: Injector, host: str) -> None:
    with serving(wire.here, host) as server:
        with on(inside, "error", host="db.test", interface="lo", mode="nxdomain"):
            told = ask(wire.here, host, "db.test")
            by_tcp = ask_by_tcp(wire.here, host, "db.test")
            other = ask(wire.here, host, "other.test")
        assert told is not None
        assert by_tcp is not None
        assert told.code == by_tcp.code == "NXDOMAIN"
        assert other is not None
        assert other.addresses == [TRUE]
        assert server.seen == ["other.test"]


def test_without_a_device_every_one_that_queries_leave_by_is_watched(
    wire: Wire, inside: Injector
) -> None:
    with serving(wire.here, "127.0.0.53"), on(inside, "error", host="*") as (record, reading):
        devices = {step.change.spec.get("device") for step in record.steps}
        assert "lo" in devices
        assert "answered SERVFAIL" in reading.measured
        told = ask(wire.here, "127.0.0.53", "any.test")
        assert told is not None
        assert told.code == "SERVFAIL"


def test_given_addresses_are_answered(wire: Wire, inside: Injector) -> None:
    given = "192.0.2.7,192.0.2.8,2001:db8::7"
    with (
        serving(wire.there, wire.there4),
        on(inside, "random", host="*.test", address=given, server=wire.there4),
    ):
        a = ask(wire.here, wire.there4, "db.test")
        aaaa = ask(wire.here, wire.there4, "db.test", "AAAA")
        text = ask(wire.here, wire.there4, "db.test", "TXT")
        other = ask(wire.here, wire.there4, "db.example")
    assert a is not None
    assert a.addresses == ["192.0.2.7", "192.0.2.8"]
    assert aaaa is not None
    assert aaaa.addresses == ["2001:db8::7"]
    assert text is not None
    assert text.code == "NOERROR"
    assert other is not None
    assert other.addresses == [TRUE]


def test_random_addresses_belong_to_nobody(wire: Wire, inside: Injector) -> None:
    with on(inside, "random", host="*", server=wire.there4):
        told = [ask(wire.here, wire.there4, "db.test") for _ in range(4)]
        six = ask(wire.here, wire.there4, "db.test", "AAAA")
    found = {each.addresses[0] for each in told if each}
    assert len(found) > 1
    assert all(ip_address(each) in ip_network("198.18.0.0/15") for each in found)
    assert six is not None
    assert ip_address(six.addresses[0]) in ip_network("2001:db8::/32")


def test_a_delay_is_added_and_the_server_is_still_asked(wire: Wire, inside: Injector) -> None:
    with serving(wire.there, wire.there4) as server:
        with on(inside, "delay", host="db.test", latency="200ms", server=wire.there4):
            slow = ask(wire.here, wire.there4, "db.test")
            by_tcp = ask_by_tcp(wire.here, wire.there4, "db.test")
            other = ask(wire.here, wire.there4, "other.test")
        assert slow is not None
        assert by_tcp is not None
        assert other is not None
        assert slow.addresses == by_tcp.addresses == [TRUE]
        assert min(slow.seconds, by_tcp.seconds) >= 0.2 > other.seconds
        assert set(server.seen) == {"db.test", "other.test"}  # none of the measurement's own


def test_a_share_of_the_queries(wire: Wire, inside: Injector) -> None:
    with (
        serving(wire.there, wire.there4) as server,
        on(inside, "error", host="*", percent="30%", server=wire.there4) as (record, reading),
    ):
        assert reading.values["n"] == 200
        assert server.seen == []
        told = [ask(wire.here, wire.there4, "db.test") for _ in range(60)]
        hit = sum(1 for each in told if each and each.code == "SERVFAIL")
        assert 4 <= hit <= 34  # 18 expected, four standard errors either way
        again = inside.observe(record.uid)
        assert f"{hit} of 60 others hit before" in again.measured


def test_a_dead_worker_lets_queries_pass(wire: Wire, inside: Injector) -> None:
    with serving(wire.there, wire.there4):
        record = inside.inject(order("error", host="*", server=wire.there4))
        (worker,) = procfs.find_marked(mark(record.uid, 0))
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            time.sleep(0.4)
            told = ask(wire.here, wire.there4, "db.test")
            assert told is not None
            assert told.addresses == [TRUE]
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        assert inside.recover(record.uid).end is End.RECOVERED


def test_what_cannot_be_done_is_said_before(wire: Wire, inside: Injector) -> None:
    for bad in ("", "a b", "*.*.test", "a..b", "x*.test"):
        with pytest.raises(InvalidParameter):
            inside.inject(order("error", host=bad))
    link.set_up(wire.here.nl, "v0", up=False)
    with pytest.raises(TargetGone, match="down"):
        inside.inject(order("error", host="*", interface="v0"))


@pytest.mark.parametrize("family", [4, 6])
def test_bytes_of_anybody_are_no_query_or_are_answered(family: int) -> None:
    """Whatever a packet holds, reading it raises nothing."""
    chance = random.Random(5)
    ether = bytes(12) + (b"\x08\x00" if family == 4 else b"\x86\xdd")
    for _ in range(3000):
        good = bytearray(name_packets.ask("a.b.test", name_packets.A, 7))
        for _ in range(chance.randrange(4)):
            good[chance.randrange(len(good))] = chance.randrange(256)
        message = bytes(good[: chance.randrange(len(good) + 1)])
        udp = (5353).to_bytes(2) + (53).to_bytes(2) + (8 + len(message)).to_bytes(2) + bytes(2)
        if family == 4:
            head = bytes([0x45, 0]) + (28 + len(message)).to_bytes(2) + bytes(5) + b"\x11"
            head += bytes(2) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
        else:
            head = bytes([0x60, 0, 0, 0]) + (8 + len(message)).to_bytes(2) + b"\x11\x40" + bytes(32)
        packet = bytes(VNET_SIZE) + ether + head + udp + message
        found = name_packets.asked(packet, 53)
        if found is None:
            continue
        told = name_packets.reply(packet, found, name_packets.answer(found.query, 2))
        back = frame.parse(told, VNET_SIZE)
        assert back is not None
        assert back.ports == (53, 5353)
        name_packets.read_answer(told[back.transport + 8 :])
        assert checks(told, back)


def checks(packet: bytes, found: frame.Packet) -> bool:
    """Whether the checksum of the protocol is right, computed the simple way."""
    data = found.source + found.destination + (found.end - found.transport).to_bytes(4)
    data += found.protocol.to_bytes(4) + packet[found.transport : found.end]
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF
