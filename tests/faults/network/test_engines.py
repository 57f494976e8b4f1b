"""The engine that was asked for, or the reason why not; the device that the route leads to."""

from __future__ import annotations

from typing import Any

import pytest
from lanes import Lane, middle_trip, numbers, on, order, send
from netrig import Wire, three_sigma

from faultline.errors import InvalidParameter, TargetGone, Unsupported
from faultline.injection.injector import Injector
from faultline.kernel import link, route, tc

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]

HIT = {"loss": "20%", "duplicate": "20%", "corrupt": "20%"}
HELD: dict[str, dict[str, Any]] = {
    "delay": {"latency": "30ms"},
    "reorder": {"latency": "40ms"},
    "limit": {"rate": "8mbit"},
}


def forced(offered: frozenset[str], engine: str) -> None:
    if engine == "netem" and "netem" not in offered:
        pytest.skip("this kernel has no netem; that it is refused is a test of its own")


@pytest.mark.parametrize("few", ["wire-out-4", "wire-in-6"], indirect=True)
@pytest.mark.parametrize("engine", ["ebpf", "netem", "packets"])
@pytest.mark.parametrize("fault", HIT)
def test_every_engine_hits_the_share(
    few: Lane, on_few: Injector, offered: frozenset[str], engine: str, fault: str
) -> None:
    forced(offered, engine)
    sender, receiver = few.udp()
    if engine == "netem":
        few.deaf(sender)
    wanted = {"percent": HIT[fault], "protocol": "udp", "engine": engine}
    with on(on_few, fault, **wanted, **few.here):
        arrived = numbers(send(sender, receiver, 1000, 200))
    expected = 1200 if fault == "duplicate" else 800
    assert len(arrived) == pytest.approx(expected, abs=10 * three_sigma(20, 1000) * 4 / 3)
    assert len(send(sender, receiver, 100)) == 100


@pytest.mark.parametrize("few", ["lo-out-4", "wire-in-6"], indirect=True)
@pytest.mark.parametrize("engine", ["netem", "packets"])
def test_both_engines_that_hold_packets_delay_them(
    few: Lane, on_few: Injector, offered: frozenset[str], engine: str
) -> None:
    forced(offered, engine)
    sender, receiver = few.udp()
    with on(on_few, "delay", latency="30ms", protocol="udp", engine=engine, **few.here):
        assert 29 <= middle_trip(sender, receiver) < 60
    assert middle_trip(sender, receiver) < 29


@pytest.mark.parametrize("fault", HELD)
def test_ebpf_holds_no_packets_and_says_so(wire: Wire, injector: Injector, fault: str) -> None:
    with pytest.raises(InvalidParameter, match="cannot hold") as refused:
        injector.plan(order(fault, interface="v0", engine="ebpf", **HELD[fault]))
    assert refused.value.field == "engine"


@pytest.mark.parametrize("fault", ["loss", "delay", "reorder"])
def test_a_missing_netem_is_the_reason_of_a_refusal(
    wire: Wire, injector: Injector, offered: frozenset[str], fault: str
) -> None:
    if "netem" in offered:
        pytest.skip("this kernel has netem; that it is used is a test of its own")
    wanted = {"percent": "10%"} if fault == "loss" else HELD[fault]
    with pytest.raises(Unsupported, match="netem"):
        injector.inject(order(fault, interface="v0", engine="netem", **wanted))
    assert [q.kind for q in tc.qdiscs(wire.here.nl) if q.kind != "noqueue"] == []


def test_the_plan_names_what_will_be_made(
    wire: Wire, injector: Injector, offered: frozenset[str]
) -> None:
    def kinds(fault: str, **params: str) -> list[str]:
        plan = injector.plan(order(fault, interface="v0", **params))
        assert all("v0" in step.does or "packet" in step.does for step in plan.steps)
        return [step.kind for step in plan.steps]

    assert kinds("loss", percent="10%") == ["classifier"]
    by_worker = ["worker", "hop"]
    auto = ["hop"] if "netem" in offered else by_worker
    assert kinds("delay", latency="10ms") == auto
    assert kinds("delay", latency="10ms", engine="packets") == by_worker
    assert kinds("limit", rate="1mbit") == ["hop"]  # a token bucket is in every kernel


@pytest.mark.parametrize(
    ("destination", "device"),
    [
        ("10.77.0.2", "v0"),
        ("10.77.0.0/24", "v0"),
        ("fd77::2", "v0"),
        ("127.0.0.1", "lo"),
        ("::1", "lo"),
        ("10.77.0.1", "lo"),
        ("localhost", "lo"),
    ],
)
def test_the_interface_is_found_by_the_route(
    wire: Wire, injector: Injector, destination: str, device: str
) -> None:
    plan = injector.plan(order("loss", percent="10%", destination=destination))
    assert {change.spec["device"] for change in plan.changes if "device" in change.spec} == {device}


def test_without_a_destination_it_is_the_one_of_the_default_route(
    wire: Wire, injector: Injector
) -> None:
    with pytest.raises(InvalidParameter, match="interface"):
        injector.plan(order("loss", percent="10%"))
    packed = bytes([2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0])
    packed += bytes([8, 0, 5, 0, 10, 77, 0, 2])
    assert route.add_route(wire.here.nl, packed)
    plan = injector.plan(order("loss", percent="10%"))
    assert plan.changes[0].spec["device"] == "v0"


def test_no_route_no_device_and_a_device_that_is_down_are_told(
    wire: Wire, injector: Injector
) -> None:
    with pytest.raises(InvalidParameter, match="interface") as unknown:
        injector.plan(order("loss", percent="10%", interface="v9"))
    assert "v0" in str(unknown.value)
    with pytest.raises(InvalidParameter) as nowhere:
        injector.plan(order("loss", percent="10%", destination="192.0.2.1"))
    assert "interface" in nowhere.value.field
    link.set_up(wire.here.nl, "v0", up=False)
    with pytest.raises(TargetGone, match="down"):
        injector.plan(order("loss", percent="10%", interface="v0"))
