"""Faults that go by addresses, with others while they are there: nobody else is hit, ever."""

from __future__ import annotations

from typing import Any

import pytest
from lanes import order, passes, until
from netrig import Wire

from faultline.errors import InvalidParameter, TargetGone, UnknownName, Unsupported
from faultline.injection.injector import Injector
from faultline.kernel import route

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]

FIRST, SECOND, THIRD = "10.77.0.2", "10.77.0.12", "fd77::12"
ALL = (FIRST, SECOND, THIRD)


@pytest.fixture
def net(wire: Wire) -> Wire:
    """The wire with more addresses at the far end, known at the near end."""
    route.new_address(wire.there.nl, wire.there.index("v1"), SECOND, 24)
    route.new_address(wire.there.nl, wire.there.index("v1"), THIRD, 64)
    for host in ALL:
        until(lambda host=host: passes(wire.here, wire.there, host, 4000))
        until(lambda host=host: arrives(wire, host))
    return wire


def arrives(net: Wire, host: str) -> bool:
    """Whether a datagram from this address at the far end comes to the near one."""
    near = net.here6 if ":" in host else net.here4
    return passes(net.there, net.here, near, 4001, host)


def cut(net: Wire, way: str) -> set[str]:
    """The hosts to which nothing passes, or from which nothing arrives."""
    if way == "out":
        return {host for host in ALL if not passes(net.here, net.there, host, 4000)}
    return {host for host in ALL if not arrives(net, host)}


@pytest.mark.parametrize("direction", ["out", "in", "both"])
def test_it_goes_by_other_addresses(net: Wire, injector: Injector, direction: str) -> None:
    side = "source" if direction == "in" else "destination"
    wanted: dict[str, Any] = {"interface": "v0", "direction": direction, side: [FIRST]}
    ways = ("out", "in") if direction == "both" else (direction,)
    record = injector.inject(order("partition", **wanted))
    for now in ([FIRST], [SECOND, THIRD], ["0.0.0.0/32"]):
        told = injector.readdress(record.uid, {side: now})
        assert told.params[side] == now
        for way in ways:
            assert cut(net, way) == {host for host in now if host in ALL}, way
        if len(ways) == 1:
            other = "in" if ways == ("out",) else "out"
            assert cut(net, other) == set()
    assert str(injector.observe(record.uid).effect) == "effective"
    injector.recover(record.uid)
    assert cut(net, "out") == cut(net, "in") == set()
    assert injector.residue(record.uid) == []


@pytest.mark.parametrize("fault", [("delay", {"latency": "300ms"}), ("loss", {"percent": "100%"})])
def test_other_faults_that_take_addresses(
    net: Wire, injector: Injector, fault: tuple[str, dict[str, str]]
) -> None:
    name, params = fault
    wanted = {"interface": "v0", "destination": [FIRST], **params}
    record = injector.inject(order(name, **wanted))
    injector.readdress(record.uid, {"destination": [SECOND]})
    hit = {host for host in ALL if not passes(net.here, net.there, host, 4000)}
    assert hit == {SECOND}
    injector.recover(record.uid)
    assert cut(net, "out") == set()


def test_what_cannot_be_changed_is_refused(net: Wire, injector: Injector) -> None:
    with pytest.raises(UnknownName):
        injector.readdress("nothing", {"destination": [FIRST]})
    everywhere = injector.inject(order("loss", percent="1%", interface="v0"))
    with pytest.raises(Unsupported, match="no filter that goes by addresses"):
        injector.readdress(everywhere.uid, {"destination": [FIRST]})
    record = injector.inject(order("loss", percent="1%", interface="v0", destination=FIRST))
    for side, given, error in (
        ("source", [FIRST], Unsupported),
        ("destination", [], Unsupported),
        ("destination", ["a.name"], InvalidParameter),
    ):
        with pytest.raises(error):
            injector.readdress(record.uid, {side: given})
    injector.recover(record.uid)
    with pytest.raises(TargetGone, match="not in place"):
        injector.readdress(record.uid, {"destination": [SECOND]})
