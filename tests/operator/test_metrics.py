"""What the operator counts, and that it stays small however many targets there are."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from faultline.api.fault import FaultCounts, FaultResourceStatus
from faultline.api.host import Actual, Desired, HostSpec, HostStatus
from faultline.api.targets import AimedFaultSpec
from faultline.errors import UsageError
from faultline.injection import registry
from faultline.operator import exposition
from faultline.operator.exposition import KEPT, SHOWN, Exposition, serve
from faultline.operator.hosts import OBJECTS, HostObject, view_of
from faultline.operator.measures import UNITS, unit_of
from faultline.operator.meters import Meters, Spread
from faultline.operator.model import FaultView

NOW = 10_000.0


def host(name: str, actual: list[dict[str, Any]], uid: str = "f1") -> HostObject:
    desired = [
        Desired(uid=each["uid"], owner="Fault/shop/delay", owner_uid=uid, fault="network.delay",
                asked_at=NOW, duration="1m")  # type: ignore[arg-type]
        for each in actual
    ]  # fmt: skip
    told = HostStatus(actual=[Actual(**each) for each in actual])
    spec = HostSpec(desired=desired)
    return HostObject(name, f"uid-{name}", "1", spec, view_of(name, spec, told))


def fault(uid: str = "f1", name: str = "delay", **fields: Any) -> FaultView:
    spec = AimedFaultSpec(fault="network.delay", params={"latency": "100ms"})
    status = FaultResourceStatus(**{"phase": "active", "started": NOW, **fields})
    return FaultView("shop", name, uid, spec=spec, status=status)


def page(faults: list[FaultView], hosts: list[HostObject], now: float = NOW) -> str:
    """The exposition of an operator that leads and has seen these."""
    caches = SimpleNamespace(
        synced=True,
        views=lambda: {each.name: each.view for each in hosts},
        faults=SimpleNamespace(all=lambda: {f.name: SimpleNamespace(view=f) for f in faults}),
        halts=SimpleNamespace(all=dict),
    )
    operator = SimpleNamespace(leader=SimpleNamespace(leads=True), caches=caches, meters=Meters(),
                               waiting=dict)  # fmt: skip
    made = CollectorRegistry()
    made.register(Exposition(operator, lambda: now))  # type: ignore[arg-type]
    return generate_latest(made).decode()


def test_ten_thousand_targets_are_a_few_series() -> None:
    hosts = [
        host(f"n{n}", [
            {"uid": f"f1-{n}-{m}", "stage": "active", "asked": 0.1, "measured": n / 1000}
            for m in range(20)
        ])
        for n in range(500)
    ]  # fmt: skip
    begun = time.monotonic()
    told = page([fault(counts=FaultCounts(targets=10_000))], hosts)
    assert time.monotonic() - begun < 5
    ours = [line for line in told.splitlines() if 'name="delay"' in line]
    assert len(ours) < 25
    assert 'stat="median"} 0.2495' in told
    assert 'stat="max"} 0.499' in told


def test_faults_that_are_over_are_shown_for_a_while_and_not_all_of_them() -> None:
    many = [fault(f"f{n}", f"over-{n}", phase="ended", ended=NOW + n) for n in range(SHOWN + 50)]
    here = fault("here", "here")
    told = page([*many, here], [], NOW + 300)
    assert 'name="here"' in told
    assert f"faultline_faults_not_shown {51:.1f}" in told
    assert f'faultline_faults{{phase="ended"}} {SHOWN + 50:.1f}' in told
    old = fault("old", "old", phase="ended", ended=NOW)
    bad = fault("bad", "bad", phase="ended", ended=NOW, counts=FaultCounts(person=1))
    told = page([old, bad], [], NOW + KEPT + 1)
    assert 'name="old"' not in told
    assert 'name="bad",namespace="shop",state="needs_person"} 1.0' in told


def test_a_target_is_counted_when_it_is_told_and_once() -> None:
    meters, entry = Meters(), {"uid": "f1-1", "stage": "active", "injected_at": NOW + 1}
    first = host("n1", [entry])
    second = host("n1", [{**entry, "effective_at": NOW + 2, "effect": "effective"}])
    third = host("n1", [{**entry, "effective_at": NOW + 2, "stage": "ended", "end": "recovered",
                         "ended_at": NOW + 63}])  # fmt: skip
    meters.host(None, second, {})  # what was there before is not ours to count
    for old, new in ((first, second), (second, second), (second, third), (third, third)):
        meters.host(old, new, {"f1": NOW + 90})
    assert (meters.effects["network.delay"].sum, meters.ends["recovered"]) == (2.0, 1)
    assert meters.absences["network.delay"].sum == 2.0  # from its deadline, which came first
    meters.host(first, host("n1", [{"uid": "f1-1", "stage": "refused"}]), {})
    assert meters.refused == 1
    person = host("n1", [{**entry, "stage": "ended", "end": "needs a person"}])
    meters.host(first, person, {})
    assert meters.ends["needs a person"] == 1


def test_a_spread_counts_up() -> None:
    made = Spread((1.0, 2.0))
    for each in (0.5, 1.0, 1.5, 9.0, -3.0):
        made.add(each)
    assert made.buckets() == [("1", 3.0), ("2", 4.0), ("+Inf", 5.0)]
    assert made.sum == 12.0


def test_values_are_told_in_base_units() -> None:
    assert UNITS.keys() <= registry.everything().keys()
    assert unit_of("network.delay", {}).name == "seconds"
    assert (unit_of("cpu.burn", {}).name, unit_of("cpu.burn", {}).factor) == ("ratio", 0.01)
    assert unit_of("memory.fill", {"bytes": "1GiB"}).name == "bytes"
    assert unit_of("memory.fill", {"percent": "10%"}).name == "ratio"
    assert unit_of("process.kill", {}).name == "number"
    names = {unit_of(each, {}).name for each in registry.everything()}
    assert all(re.fullmatch(r"[a-z_]+", each) for each in names)


@pytest.mark.parametrize("address", ["9095", ":9095", "here:port", "127.0.0.1:70000"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        serve(SimpleNamespace(), address)  # type: ignore[arg-type]


def test_where_nobody_can_listen_is_said() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        serve(SimpleNamespace(), "192.0.2.1:9095")  # type: ignore[arg-type]


def test_all_states_of_targets_are_told() -> None:
    assert exposition.STATES.keys() <= FaultCounts.model_fields.keys()


def test_the_host_of_objects_is_no_agent() -> None:
    assert 'faultline_agents{state="ready"} 1.0' in page([], [host("n1", []), host(OBJECTS, [])])
