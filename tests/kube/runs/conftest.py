"""Runs of a cluster: an operator against a real API server, with simulated agents and pods."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.operator.conftest import CRDS, FAULTS, PODS, VERSION, Bench, bench, kinds
from tests.kube.operator.conftest import until as soon

from faultline.kube.crds import crd
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata

__all__ = ["bench", "kinds"]
RUNS = Kind("Run", "runs", VERSION)
SCHEDULES = Kind("Schedule", "schedules", VERSION)
EXPERIMENTS = Kind("Experiment", "experiments", VERSION)


def until(what: Callable[[], Any], words: str = "", patience: float = 60.0) -> Any:
    """What it answers as soon as that is something."""
    return soon(what, words, patience)


def install(client: Client) -> None:
    """The kinds that runs need."""
    found = [crd(kind) for kind in ("Run", "Schedule", "Calendar", "Experiment")]
    for made in found:
        client.patch(CRDS, made["metadata"]["name"], made, "apply")
    for made in found:
        path = f"/apis/{VERSION}/{made['spec']['names']['plural']}"
        until(lambda path=path: client.rest.request("GET", path).status == 200)


@pytest.fixture(scope="session")
def all_kinds(kinds: Server) -> Server:
    with closing(kinds.client()) as client:
        install(client)
    return kinds


def experiment(**fields: Any) -> Object:
    """One that slows all pods down for a while, and looks at the API server meanwhile."""
    return {
        "title": "the web is slow",
        "hypothesis": {"text": "nobody notices", "probes": ["pods"]},
        "probes": [{
            "name": "pods", "type": "kubernetes", "kind": "Pod", "selector": "app=web",
            "measure": "count", "expect": "1,", "interval": "200ms",
        }],
        "faults": [{
            "name": "slow", "fault": "network.delay", "params": {"latency": "${latency}"},
            "duration": "${length}",
            "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"},
        }],
        "parameters": {"latency": {"type": "duration", "default": "100ms"},
                       "length": {"type": "duration", "default": "1s"}},
        "baseline": "300ms", "cooldown": "300ms",
        **fields,
    }  # fmt: skip


@dataclass
class Place:
    """Where runs are made."""

    bench: Bench

    @property
    def client(self) -> Client:
        return self.bench.client

    def put(self, kind: Kind, name: str, spec: Object, **meta: Any) -> Object:
        made = {"apiVersion": VERSION, "kind": kind.kind, "metadata": {"name": name, **meta},
                "spec": spec}  # fmt: skip
        return self.client.create(kind, made, self.bench.namespace)

    def run(self, name: str, experiment: str = "slow-web", **fields: Any) -> Object:
        return self.put(RUNS, name, {"experiment": experiment, **fields})

    def get(self, name: str, kind: Kind = RUNS) -> Object:
        try:
            return self.client.get(kind, name, self.bench.namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return {}

    def status(self, name: str) -> Object:
        return self.get(name).get("status") or {}

    def ended(self, name: str, patience: float = 60.0) -> Object:
        end = time.monotonic() + patience
        while (told := self.status(name)).get("phase") != "ended":
            if time.monotonic() > end:
                pytest.fail(f"{name} has not ended: {told}", pytrace=False)
            time.sleep(0.1)
        return told

    def ready(self, count: int) -> None:
        """So many of the pods are ready, the others are not."""
        pods = self.client.every(PODS, self.bench.namespace)
        for number, pod in enumerate(sorted(pods, key=lambda each: metadata(each)["name"])):
            state = "True" if number < count else "False"
            change = {"status": {"conditions": [{"type": "Ready", "status": state}]}}
            name = str(metadata(pod)["name"])
            self.client.patch(PODS, name, change, namespace=self.bench.namespace, part="status")

    def faults(self) -> list[Object]:
        return list(self.client.every(FAULTS, self.bench.namespace))

    def events(self, name: str) -> list[str]:
        """What its timeline says; it lies beside the run."""
        from faultline.api.run import Run
        from faultline.stores.kube import KubeStore

        with KubeStore(self.bench.connect, self.bench.namespace) as store:
            return [each.event for each in store.get(Run, name).status.timeline]


@pytest.fixture
def place(all_kinds: Server, bench: Bench) -> Generator[Place]:
    bench.runs = (f"{bench.namespace}*",)
    made = Place(bench)
    yield made
    bench.end_operators()
    for kind in (RUNS, SCHEDULES, EXPERIMENTS):
        for each in [*made.client.every(kind, bench.namespace)]:
            made.client.delete(kind, str(metadata(each)["name"]), bench.namespace)
