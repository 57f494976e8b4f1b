"""Addresses and routes come back as they were after a device was down."""

from __future__ import annotations

import errno
import struct
import time

import pytest
from netrig import PORT, Net, Wire, exchange

from faultline.kernel import link, netlink, route
from faultline.kernel.netlink import Netlink
from faultline.kernel.netns import entered

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]


def _extra_routes(net: Net, gateway: str, gateway6: str) -> None:
    """Routes as a user has them: by a gateway, with a metric, in a table of their own."""
    for family, target, hop, table, metric in (
        (2, "203.0.113.0", gateway, 254, 50), (2, "0.0.0.0", gateway, 254, 0),
        (2, "198.51.100.0", gateway, 100, 0), (10, "2001:db8::", gateway6, 254, 77),
    ):  # fmt: skip
        packed = route.ip_address(target).packed
        bits = 0 if target == "0.0.0.0" else 24 if family == 2 else 32
        body = struct.pack("=8BI", family, bits, 0, 0, min(table, 255), 4, 0, 1, 0)
        if bits:
            body += netlink.attribute(1, packed)
        body += netlink.attribute(5, route.ip_address(hop).packed)
        body += netlink.u32(4, net.index("v0")) + netlink.u32(15, table)
        if metric:
            body += netlink.u32(6, metric)
        assert route.add_route(net.nl, body)


def test_a_device_that_was_down_has_its_routes_and_addresses_again(wire: Wire) -> None:
    nl, index = wire.here.nl, wire.here.index("v0")
    _extra_routes(wire.here, wire.there4, wire.there6)

    def state() -> tuple[set[tuple[str, str, int, int]], set[tuple[str, int]]]:
        listed = route.routes(nl, index)
        ways = {(r.destination, r.gateway, r.table, r.metric) for r in listed}
        return ways, {(a.address, a.prefix) for a in route.addresses(nl, index)}

    before = state()
    assert ("203.0.113.0/24", wire.there4, 254, 50) in before[0]
    addresses = [a.raw for a in route.addresses(nl, index)]
    ways = [r.raw for r in route.routes(nl, index)]
    link.set_up(nl, index, up=False)
    assert state() != before
    with pytest.raises(OSError, match="unreachable"):
        route.path_to(nl, "203.0.113.5")
    link.set_up(nl, index)
    assert route.restore(nl, addresses, ways) == []
    assert state() == before
    assert route.restore(nl, addresses, ways) == []
    assert state() == before
    for here, there in ((wire.here4, wire.there4), (wire.here6, wire.there6)):
        receiver, sender = wire.there.udp(there, PORT), wire.here.udp(here)
        until = time.monotonic() + 8  # the other side may check its address again first
        while not (arrived := exchange(sender, receiver, 3)) and time.monotonic() < until:
            time.sleep(0.1)
        assert arrived


def test_the_interface_is_found_by_route(wire: Wire) -> None:
    nl, index = wire.here.nl, wire.here.index("v0")
    assert route.default_interface(nl) is None
    _extra_routes(wire.here, wire.there4, wire.there6)
    assert route.default_interface(nl) == index
    found = route.path_to(nl, "203.0.113.5")
    assert (found.ifindex, found.source, found.gateway) == (index, wire.here4, wire.there4)
    assert route.path_to(nl, wire.there6).ifindex == index
    assert route.path_to(nl, "127.0.0.1").ifindex == 1


def test_an_error_says_what_was_done_and_what_the_kernel_said(net: Net) -> None:
    with pytest.raises(OSError, match="nowhere") as caught:
        link.get(net.nl, "nowhere")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(OSError, match="Unknown device type") as caught:
        link.add_simple(net.nl, "x", "nosuchkind")
    assert "make the nosuchkind device x" in str(caught.value)
    assert link.get(net.nl, "lo").loopback  # the socket is in step after an error


def test_cookies_tell_namespaces_apart_that_share_an_inode_number(net: Net) -> None:
    seen = {net.nl.cookie()}
    for _ in range(3):
        other = Net.make()
        seen.add(other.nl.cookie())
        with entered(other.fd), Netlink.open() as again:
            assert again.cookie() == other.nl.cookie()
        other.close()
    assert len(seen) == 4
