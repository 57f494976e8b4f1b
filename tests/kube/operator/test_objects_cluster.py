"""Faults of objects in a cluster with controllers and a node: what really happens to pods."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from tests.kube.kinds_there import kinds_there
from tests.kube.operator.conftest import (
    FAULTS,
    HALTS,
    HOSTS,
    NODES,
    PODS,
    SPACES,
    VERSION,
    settings_for,
    until,
)

from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubefaults.fields import read
from faultline.operator.app import Operator

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(300)]

DEPLOYMENTS = Kind("Deployment", "deployments", "apps/v1")
SERVICES = Kind("Service", "services", "v1")
ENDPOINTS = Kind("Endpoints", "endpoints", "v1")


@dataclass
class Town:
    """A namespace with a Deployment of three pods behind a Service."""

    client: Client
    space: str

    def create(self, kind: Kind, name: str, spec: Object, **meta: Any) -> Object:
        made = {"apiVersion": kind.version, "kind": kind.kind, "metadata": {"name": name, **meta}}
        return self.client.create(kind, {**made, "spec": spec}, self.space)

    def pods(self) -> list[Object]:
        """Those that are ready and not ending."""
        found = self.client.every(PODS, self.space, labels="app=web")
        return [
            each
            for each in found
            if not metadata(each).get("deletionTimestamp")
            and read(each, ("status", "conditions", "type=Ready", "status")) == "True"
        ]

    def uids(self) -> set[str]:
        return {str(metadata(each)["uid"]) for each in self.pods()}

    def apply(self, name: str, fault: str, selector: Object, **fields: Any) -> None:
        spec = {"fault": fault, "duration": "5m", "selector": selector, **fields}
        made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": name}, "spec": spec}
        self.client.create(FAULTS, made, self.space)

    def status(self, name: str) -> Object:
        return self.client.get(FAULTS, name, self.space).get("status") or {}

    def effective(self, name: str) -> Object:
        def told() -> Object:
            found = self.status(name)
            assert found.get("phase") != "refused", found
            return found if found.get("effect") == "effective" else {}

        return until(told, f"{name} has no effect: {self.status(name)}", patience=60)

    def undo(self, name: str) -> None:
        self.client.delete(FAULTS, name, self.space)

        def gone() -> bool:
            try:
                self.status(name)
            except ApiError as error:
                return error.reason == "NotFound"
            return False

        until(gone, f"{name} is not undone", patience=60)

    def ready(self, count: int) -> None:
        until(lambda: len(self.pods()) == count, f"{count} pods are ready", patience=90)


@pytest.fixture(scope="module")
def town() -> Generator[Town]:
    space = f"objects-{uuid.uuid4().hex[:6]}"
    with kinds_there("Fault", "Host", "Halt"), closing(Client(connect("", ""))) as client:
        for kind in (FAULTS, HOSTS, HALTS):
            until(lambda kind=kind: client.rest.request("GET", kind.path()).status == 200)
        for each in (space, f"ops-{space}"):
            client.create(SPACES, {"apiVersion": "v1", "kind": "Namespace",
                                   "metadata": {"name": each}})  # fmt: skip
        operator = Operator(partial(connect, "", ""), settings_for(f"ops-{space}"))
        thread = threading.Thread(target=operator.run)
        thread.start()
        made_town = Town(client, space)
        try:
            _populate(made_town)
            yield made_town
        finally:
            for each in [*client.every(FAULTS, space)]:
                with suppress(ApiError):
                    client.delete(FAULTS, str(metadata(each)["name"]), space)
            until(lambda: not [*client.every(FAULTS, space)], patience=60)
            operator.stop()
            thread.join(20)
            for each in (space, f"ops-{space}"):
                client.delete(SPACES, each)


def _populate(town: Town) -> None:
    container = {
        "name": "web", "image": "localhost/pause:3", "imagePullPolicy": "Never",
    }  # fmt: skip
    labels = {"app": "web"}
    spec = {
        "replicas": 3, "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
        },
    }  # fmt: skip
    town.create(DEPLOYMENTS, "web", spec)
    town.create(SERVICES, "web", {"selector": labels, "ports": [{"port": 80}]})
    town.ready(3)


def test_a_deployment_gets_smaller_and_as_large_as_it_was(town: Town) -> None:
    web = {"objects": {"kind": "Deployment", "name": "web"}}
    town.apply("scale", "workload.scale", web, params={"percent": "34%"})
    told = town.effective("scale")
    assert told["counts"]["effective"] == 1
    town.ready(1)
    town.undo("scale")
    town.ready(3)


@pytest.mark.parametrize("fault", ["pod.delete", "pod.evict"])
def test_a_pod_that_is_ended_is_replaced_and_only_the_chosen_one_goes(
    town: Town, fault: str
) -> None:
    before = town.uids()
    name = fault.replace(".", "-")
    town.apply(name, fault, {"pods": {"labels": {"app": "web"}}, "mode": "fixed", "count": 2})
    town.effective(name)
    ended = until(lambda: _over(town.status(name)), f"{name} is over", patience=60)
    assert (ended["end"], ended["counts"]["targets"]) == ("recovered", 2)
    town.ready(3)
    assert len(before & town.uids()) == 1, "two have others in their places"
    town.undo(name)


def _over(told: Object) -> Object:
    return told if told.get("phase") == "ended" else {}


def test_a_pod_that_fails_runs_again_behind_it(town: Town) -> None:
    before = town.uids()
    town.apply("failure", "pod.failure", {"pods": {"labels": {"app": "web"}}, "mode": "one"})
    town.effective("failure")
    until(lambda: len(town.pods()) == 2, "one is not ready", patience=60)
    town.undo("failure")
    town.ready(3)
    assert town.uids() == before, "no pod was replaced"


def test_a_service_without_pods_and_with_them_again(town: Town) -> None:
    def addresses() -> int:
        found = town.client.get(ENDPOINTS, "web", town.space)
        subsets: list[Object] = found.get("subsets") or []
        return sum(len(each.get("addresses") or []) for each in subsets)

    until(lambda: addresses() == 3, patience=60)
    town.apply("empty", "service.empty", {"objects": {"kind": "Service"}}, params={})
    town.effective("empty")
    assert addresses() == 0
    town.undo("empty")
    until(lambda: addresses() == 3, patience=60)


def test_a_quota_keeps_new_pods_out(town: Town) -> None:
    town.apply("quota", "namespace.quota", {"objects": {}}, params={"resource": "pods"})
    town.effective("quota")
    town.undo("quota")


def test_a_drained_node_is_empty_and_takes_pods_again(town: Town) -> None:
    (node,) = [str(metadata(each)["name"]) for each in town.client.every(NODES)]
    before = town.uids()
    allow = ["control-plane", "bare-pod", "evict"]
    nodes = {"nodes": {"names": [node]}}
    town.apply("drain", "node.drain", nodes, params={"grace": 0}, allow=allow)
    town.effective("drain")
    assert not town.uids() & before
    assert town.client.get(NODES, node)["spec"]["unschedulable"]
    town.undo("drain")
    town.ready(3)
    assert not town.client.get(NODES, node)["spec"].get("unschedulable")
