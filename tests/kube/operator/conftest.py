"""An operator against a real API server, with simulated agents and pods that nobody runs."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.kube.conftest import Server

from faultline.kube.crds import crd
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubeapi.plain import Plain
from faultline.operator.app import Operator, Settings
from faultline.testing.agents import Agents

VERSION = "faultline.dev/v1alpha1"
FAULTS = Kind("Fault", "faults", VERSION)
HOSTS = Kind("Host", "hosts", VERSION, namespaced=False)
HALTS = Kind("Halt", "halts", VERSION, namespaced=False)
CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1", False
)
PODS, NODES = Kind("Pod", "pods", "v1"), Kind("Node", "nodes", "v1", namespaced=False)
SPACES = Kind("Namespace", "namespaces", "v1", namespaced=False)
EVENTS = Kind("Event", "events", "v1")
LEASE = 8  # seconds: on a busy machine, who is late by less must not be taken for dead


def until(what: Callable[[], Any], words: str = "", patience: float = 20.0) -> Any:
    """What it answers as soon as that is something."""
    end = time.monotonic() + patience
    while not (answer := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {patience:g} s: {words or what}", pytrace=False)
        time.sleep(0.03)
    return answer


def settings_for(namespace: str) -> Settings:
    return Settings(namespace, rate=1000, lease=LEASE, runs=())


@dataclass
class Bench:
    """A cluster of one test: its nodes, pods, agents and operators."""

    server: Server
    client: Client
    namespace: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    agents: Agents | None = None
    operators: list[tuple[Operator, threading.Thread]] = field(default_factory=list[Any])
    runs: tuple[str, ...] = ()  # namespaces in which runs are carried out: others have theirs

    def node(self, number: int) -> str:
        return f"n{number}-{self.mark}"

    def __post_init__(self) -> None:
        self.access = self.server.access()  # once: it writes the token anew, which others read
        self.own = f"ops-{self.mark}"
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.own}}
        self.client.create(SPACES, made)

    def connect(self) -> Plain:
        return Plain(self.access)

    def populate(self, nodes: int, pods: int, **labels: str) -> list[str]:
        names = [self.node(number) for number in range(nodes)]
        for name in names:
            made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
            self.client.create(NODES, made)
            for number in range(pods):
                self.pod(f"web-{name}-{number}", name, **{"app": "web", **labels})
        return names

    def pod(self, name: str, node: str, **labels: str) -> Object:
        made = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x"}],
                     "automountServiceAccountToken": False,
                     "terminationGracePeriodSeconds": 0},
        }  # fmt: skip
        there = self.client.create(PODS, made, self.namespace)
        there["status"] = {
            "phase": "Running",
            "containerStatuses": [{
                "name": "main", "ready": True, "restartCount": 0, "image": "x", "imageID": "x",
                "containerID": f"containerd://{metadata(there)['uid']}",
                "state": {"running": {}},
            }],
        }  # fmt: skip
        return self.client.replace(PODS, there, "status")

    def operate(self) -> Operator:
        made = Operator(self.connect, replace(settings_for(self.own), runs=self.runs))
        thread = threading.Thread(target=made.run)
        thread.start()
        self.operators.append((made, thread))
        return made

    def end_operators(self) -> None:
        for made, _ in self.operators:
            made.stop()
        for _, thread in self.operators:
            thread.join(20)
            assert not thread.is_alive()
        self.operators.clear()

    def apply(self, name: str, **fields: Any) -> Object:
        spec = {
            "fault": "network.delay", "params": {"latency": "100ms"}, "duration": "30s",
            "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"}, **fields,
        }  # fmt: skip
        made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": name}, "spec": spec}
        return self.client.create(FAULTS, made, self.namespace)

    def get(self, name: str) -> Object | None:
        try:
            return self.client.get(FAULTS, name, self.namespace)
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise

    def status(self, name: str) -> Object:
        return (self.get(name) or {}).get("status") or {}

    def phase(self, name: str, phase: str) -> Object:
        def there() -> Object:
            told = self.status(name)
            if told.get("phase") == "refused" != phase:
                pytest.fail(f"{name} is refused: {told['message']}", pytrace=False)
            return told if told.get("phase") == phase else {}

        return until(there, f"{name} is not {phase}")

    def desired(self) -> list[Object]:
        found: list[Object] = []
        for host in self.client.every(HOSTS):
            if str(metadata(host)["name"]).endswith(self.mark):
                found += (host.get("spec") or {}).get("desired") or []
        return found

    def events(self) -> dict[str, str]:
        return {
            each["reason"]: each["message"] for each in self.client.every(EVENTS, self.namespace)
        }


@pytest.fixture(scope="session")
def kinds(apiserver: Server) -> Server:
    """The server with our kinds."""
    with closing(apiserver.client()) as client:
        for name in ("Fault", "Host", "Halt"):
            made = crd(name)
            client.patch(CRDS, made["metadata"]["name"], made, "apply")
        for plural in ("faults", "hosts", "halts"):
            path = f"/apis/{VERSION}/{plural}"
            until(lambda path=path: client.rest.request("GET", path).status == 200)
    return apiserver


@pytest.fixture
def bench(kinds: Server, namespace: str) -> Generator[Bench]:
    """Three nodes with two pods and an agent each."""
    with closing(kinds.client()) as client:
        made = Bench(kinds, client, namespace)
        names = made.populate(3, 2)
        with Agents(made.connect, names, made.own, lease=LEASE) as made.agents:
            try:
                yield made
            finally:
                made.end_operators()
                for kind in (FAULTS, PODS):
                    for each in [*client.every(kind, namespace)]:
                        name = str(metadata(each)["name"])
                        if metadata(each).get("finalizers"):
                            change = {"metadata": {"finalizers": None}}
                            client.patch(kind, name, change, namespace=namespace)
                        _gone(client, kind, name, namespace)
                for each in [*client.every(HALTS)]:
                    _gone(client, HALTS, str(metadata(each)["name"]), "")
        for name in names:
            _gone(client, HOSTS, name, "")
            _gone(client, NODES, name, "")


def _gone(client: Client, kind: Kind, name: str, namespace: str) -> None:
    try:
        client.delete(kind, name, namespace, grace=0)
    except ApiError as error:
        if error.reason != "NotFound":
            raise
