"""Faults of objects, carried out by the operator alone: no agent, no node, no controller."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.objects.targets import essence, make
from tests.kube.operator.conftest import FAULTS, HOSTS, Bench, until

from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import notes
from faultline.operator.hosts import OBJECTS

pytestmark = pytest.mark.needs_apiserver


@pytest.fixture
def bench(kinds: Server, namespace: str) -> Generator[Bench]:
    """A cluster without agents."""
    with closing(kinds.client()) as client:
        made = Bench(kinds, client, namespace)
        try:
            yield made
        finally:
            made.end_operators()
            for each in [*client.every(FAULTS, namespace)]:
                name = str(metadata(each)["name"])
                client.patch(FAULTS, name, {"metadata": {"finalizers": None}}, namespace=namespace)
                client.delete(FAULTS, name, namespace)
            try:
                client.delete(HOSTS, OBJECTS)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise


def scale(bench: Bench, name: str = "scale", **fields: Any) -> Object:
    return bench.apply(
        name, fault="workload.scale", params={"replicas": 1},
        selector={"objects": {"kind": "Deployment"}, "mode": "all"}, **fields,
    )  # fmt: skip


def now(bench: Bench, target: Object) -> Object:
    kind = bench.client.exact(target["kind"], target["apiVersion"])
    return bench.client.get(kind, "shop", bench.namespace)


def test_one_is_made_measured_undone_and_forgotten(bench: Bench) -> None:
    target = make(bench.client, "ConfigMap", bench.namespace)
    bench.operate()
    bench.apply(
        "wild", fault="config.value", params={"key": "mode", "value": "wild"}, duration="3s",
        selector={"objects": {"kind": "ConfigMap", "name": "shop"}},
    )  # fmt: skip
    active = bench.phase("wild", "active")
    assert active["counts"]["targets"] == 1
    until(lambda: bench.status("wild").get("effect") == "effective")
    there = now(bench, target)
    assert there["data"]["mode"] == "wild"
    (uid,) = notes.holders(there)
    told = notes.about(there, uid)
    assert told["owner"] == f"Fault/{bench.namespace}/wild"
    assert told["until"] > 0
    ended = bench.phase("wild", "ended")
    assert (ended["end"], ended["counts"]["recovered"]) == ("recovered", 1)
    assert essence(now(bench, target)) == essence(target)
    assert {"Resolved", "Effective", "Recovered"} <= bench.events().keys()
    states = {each["type"]: each["status"] for each in ended["conditions"]}
    assert states == dict.fromkeys(("Resolved", "Injected", "Effective", "Recovered"), "True")
    until(lambda: not (bench.get("wild") or {})["metadata"].get("finalizers"))
    host = bench.client.get(HOSTS, OBJECTS)
    assert not host["spec"].get("desired")
    until(lambda: not (bench.client.get(HOSTS, OBJECTS).get("status") or {}).get("actual"))
