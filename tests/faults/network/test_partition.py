"""Partitions: who can still speak with whom, by direction, address, port, protocol, exclusion."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest
from lanes import Lane, connects, no_errors, on, passes, speaks, until
from netrig import Net, Wire

from faultline.injection.injector import Injector
from faultline.kernel import route

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


@pytest.fixture
def net(wire: Wire) -> Wire:
    """The wire with a second address at each end, and everybody known to everybody."""
    for side, name, last in ((wire.here, "v0", 11), (wire.there, "v1", 12)):
        route.new_address(side.nl, side.index(name), f"10.77.0.{last}", 24)
        route.new_address(side.nl, side.index(name), f"fd77::{last}", 64)
    for host in ("10.77.0.2", "10.77.0.12", "fd77::2", "fd77::12"):
        until(lambda host=host: passes(wire.here, wire.there, host, 4000))
    return wire


def ping(net: Net, host: str) -> bool:
    """Whether an echo request is answered."""
    version = socket.AF_INET6 if ":" in host else socket.AF_INET
    protocol, kind = (58, 128) if version == socket.AF_INET6 else (1, 8)
    with_port = net.socket(version, socket.SOCK_RAW, protocol)
    body = struct.pack(">HH", 77, 1)
    total = (kind << 8) + 77 + 1
    checksum = 0 if version == socket.AF_INET6 else ~(total % 0xFFFF) & 0xFFFF
    with_port.sendto(struct.pack(">BBH", kind, 0, checksum) + body, (host, 0))
    answer, until_when = (129 if version == socket.AF_INET6 else 0), time.monotonic() + 0.4
    try:
        while time.monotonic() < until_when:
            with_port.settimeout(0.1)
            try:
                data = with_port.recv(256)
            except TimeoutError:
                continue
            if data[20 if version == socket.AF_INET else 0] == answer:
                return True
        return False
    finally:
        net.opened.remove(with_port)
        with_port.close()


def test_everything_is_cut_and_comes_back(way: Lane, on_way: Injector) -> None:
    client, served = way.connected()
    sender, receiver = way.udp()
    assert speaks(client, served)
    with on(on_way, "partition", **way.here):
        assert not passes(way.sender, way.receiver, way.host, 4000, way.origin)
        assert not connects(way.sender, way.receiver, way.host, 4001)
        assert not speaks(client, served)
        for number in range(50):
            sender.sendto(bytes([number]), receiver.getsockname())
        no_errors(sender)
    assert passes(way.sender, way.receiver, way.host, 4000, way.origin)
    assert connects(way.sender, way.receiver, way.host, 4001, 5)
    client.settimeout(20)
    assert speaks(client, served, 20)  # it was only waiting


@pytest.mark.parametrize(
    ("direction", "out", "back"),
    [("out", False, True), ("in", True, False), ("both", False, False)],
)
@pytest.mark.parametrize("family", [4, 6])
def test_each_direction_is_cut_alone(
    net: Wire, injector: Injector, direction: str, out: bool, back: bool, family: int
) -> None:
    here, there = (net.here4, net.there4) if family == 4 else (net.here6, net.there6)
    with on(injector, "partition", interface="v0", direction=direction):
        assert passes(net.here, net.there, there, 4000) is out
        assert passes(net.there, net.here, here, 4000) is back
        assert not connects(net.here, net.there, there, 4001)  # it needs both
    assert passes(net.here, net.there, there, 4000)
    assert passes(net.there, net.here, here, 4000)


TARGETS: list[tuple[dict[str, Any], set[str]]] = [
    ({"destination": "10.77.0.2"}, {"10.77.0.2"}),
    ({"destination": "10.77.0.8/29"}, {"10.77.0.12"}),
    ({"destination": "10.77.0.0/24"}, {"10.77.0.2", "10.77.0.12"}),
    ({"destination": "fd77::12"}, {"fd77::12"}),
    ({"destination": "fd77::/64"}, {"fd77::2", "fd77::12"}),
    ({"destination": ["10.77.0.2", "fd77::2"]}, {"10.77.0.2", "fd77::2"}),
    ({"destination": "10.77.0.2,fd77::12"}, {"10.77.0.2", "fd77::12"}),
    (
        {"destination": "10.77.0.2", "exclude": True},
        {"10.77.0.12", "fd77::2", "fd77::12"},
    ),
    (
        {"destination": "fd77::/64", "exclude": True},
        {"10.77.0.2", "10.77.0.12"},
    ),
]


@pytest.mark.parametrize(("asked", "cut"), TARGETS)
def test_addresses_and_networks_are_cut_and_no_others(
    net: Wire, injector: Injector, asked: dict[str, Any], cut: set[str]
) -> None:
    hosts = {"10.77.0.2", "10.77.0.12", "fd77::2", "fd77::12"}
    with on(injector, "partition", interface="v0", direction="both", **asked):
        assert {h for h in hosts if not passes(net.here, net.there, h, 4000)} == cut
        mine = {h: "10.77.0.1" if "." in h else "fd77::1" for h in hosts}
        lost = {h for h in hosts if not passes(net.there, net.here, mine[h], 4000, h)}
        assert lost == cut
    assert all(passes(net.here, net.there, host, 4000) for host in hosts)


def test_a_source_is_cut_and_no_other(net: Wire, injector: Injector) -> None:
    with on(injector, "partition", interface="v0", direction="out", source="10.77.0.11"):
        assert passes(net.here, net.there, net.there4, 4000, "10.77.0.1")
        assert not passes(net.here, net.there, net.there4, 4000, "10.77.0.11")
    with on(injector, "partition", interface="v0", direction="in", source="fd77::12"):
        assert passes(net.there, net.here, net.here6, 4000, "fd77::2")
        assert not passes(net.there, net.here, net.here6, 4000, "fd77::12")


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_ports_and_ranges_are_cut_and_no_others(
    net: Wire, injector: Injector, exclude: bool, family: int
) -> None:
    there = net.there4 if family == 4 else net.there6
    wanted = {"destination_port": "4000,4010-4012", "direction": "out", "exclude": exclude}
    with on(injector, "partition", interface="v0", **wanted):
        for port in (3999, 4000, 4001, 4009, 4010, 4012, 4013):
            cut = (port in (4000, 4010, 4012)) is not exclude
            assert passes(net.here, net.there, there, port) is not cut
        assert connects(net.here, net.there, there, 4011) is exclude
        assert connects(net.here, net.there, there, 4020) is not exclude


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_one_protocol_is_cut_and_no_other(
    net: Wire, injector: Injector, protocol: str, exclude: bool, family: int
) -> None:
    there = net.there4 if family == 4 else net.there6
    wanted = {"protocol": protocol, "exclude": exclude, "direction": "both"}
    with on(injector, "partition", interface="v0", **wanted):
        works = {
            name
            for name, reached in (
                ("tcp", connects(net.here, net.there, there, 4000)),
                ("udp", passes(net.here, net.there, there, 4000)),
                ("icmp", ping(net.here, there)),
            )
            if reached
        }
    assert works == ({protocol} if exclude else {"tcp", "udp", "icmp"} - {protocol})


def test_a_conversation_is_cut_both_ways_and_its_neighbour_is_not(
    net: Wire, injector: Injector
) -> None:
    listener = net.there.listen(net.there4, 4000)
    other = net.there.listen(net.there4, 4100)
    pairs = []
    for one in (listener, other):
        client = net.here.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect(one.getsockname())
        served, _ = one.accept()
        net.there.opened.append(served)
        pairs.append((client, served))
    wanted = {"destination": net.there4, "destination_port": "4000", "protocol": "tcp"}
    with on(injector, "partition", interface="v0", direction="both", **wanted):
        assert not speaks(*pairs[0])
        assert speaks(*pairs[1])
        assert not speaks(*pairs[0][::-1])
    assert speaks(*pairs[0], 20)
