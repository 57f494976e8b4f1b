"""Faults that come and go, and faults that go in steps, as an operator carries them out."""

from __future__ import annotations

import pytest
from tests.kube.objects.targets import make
from tests.kube.operator.conftest import FAULTS, Bench, until
from tests.kube.operator.test_objects import bench

from faultline.kubeapi.model import Kind

pytestmark = pytest.mark.needs_apiserver
__all__ = ["bench"]
POLICIES = Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io/v1")
DEPLOYMENTS = Kind("Deployment", "deployments", "apps/v1")


def denied(bench: Bench) -> bool:
    return any(True for _ in bench.client.every(POLICIES, bench.namespace))


def deny(bench: Bench, **more: object) -> None:
    aimed = {"objects": {"kind": "Namespace", "name": bench.namespace}}
    bench.apply("flap", fault="namespace.deny", params={"direction": "in"}, selector=aimed, **more)


def test_a_policy_comes_and_goes_also_under_another_operator(bench: Bench) -> None:
    bench.operate()
    deny(bench, flap={"present": "1s", "absent": "1s"}, duration="5m")
    for _ in range(2):
        until(lambda: denied(bench), "it is there")
        until(lambda: not denied(bench), "it is away")
    bench.end_operators()
    bench.operate()
    for _ in range(2):
        until(lambda: denied(bench), "it is there again")
        until(lambda: not denied(bench), "it is away again")
    bench.client.delete(FAULTS, "flap", bench.namespace)
    until(lambda: bench.get("flap") is None)
    assert not denied(bench)


def test_it_ends_at_its_time_wherever_it_stands(bench: Bench) -> None:
    bench.operate()
    deny(bench, flap={"present": "1s", "absent": "1s"}, duration="4s")
    told = bench.phase("flap", "ended")
    assert told["end"] == "recovered"
    assert not denied(bench)


def test_copies_jump_and_come_back(bench: Bench) -> None:
    make(bench.client, "Deployment", bench.namespace)

    def copies() -> int:
        return bench.client.get(DEPLOYMENTS, "shop", bench.namespace)["spec"]["replicas"]

    bench.operate()
    seen: set[int] = set()
    aimed = {"objects": {"kind": "Deployment", "name": "shop"}, "seed": "x"}
    params = {"low": 10, "high": 99, "every": "1s"}
    bench.apply("jump", fault="workload.random", params=params, selector=aimed, duration="5m")
    until(lambda: seen.add(copies()) or len(seen - {4}) >= 3, "three numbers")
    assert all(10 <= each <= 99 for each in seen - {4})
    bench.client.delete(FAULTS, "jump", bench.namespace)
    until(lambda: bench.get("jump") is None)
    assert copies() == 4


def test_a_load_is_begun_again_by_the_one_that_takes_over(bench: Bench) -> None:
    from faultline.kubefaults import loads

    def running() -> list[loads.Load]:
        return [each for each in loads._running.values() if not each.over]

    bench.operate()
    aimed = {"objects": {"kind": "Namespace", "name": bench.namespace}}
    bench.apply("watches", fault="namespace.watches", params={"count": 5}, selector=aimed,
                duration="5m")  # fmt: skip
    until(lambda: bench.status("watches").get("effect") == "effective")
    (first,) = running()
    bench.end_operators()
    first.end()  # as with the process that makes it
    bench.operate()
    (second,) = until(running, "begun again")
    assert second is not first
    until(lambda: second.figures.open == 5)
    bench.client.delete(FAULTS, "watches", bench.namespace)
    until(lambda: bench.get("watches") is None)
    assert running() == []
