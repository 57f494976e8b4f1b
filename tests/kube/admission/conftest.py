"""An operator with a webhook against a real API server, and people with few rights."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.kube.agent.conftest import crew, prepared
from tests.kube.conftest import Server
from tests.kube.operator.conftest import FAULTS, HALTS, HOSTS, NODES, PODS, SPACES, VERSION, until

from faultline.kube import rbac, webhook
from faultline.kube.crds import crd
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubeapi.plain import Access, Plain
from faultline.kubefaults import webhooks
from faultline.operator.admission.service import Address
from faultline.operator.app import Operator, Settings
from faultline.testing.agents import Agents

__all__ = ["VERSION", "crew", "prepared", "until"]
CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1", False
)
ACCOUNTS = Kind("ServiceAccount", "serviceaccounts", "v1")
WHOLE = ("Fault", "Host", "Halt")
PLURALS = {
    "Fault": "faults", "Halt": "halts", "Run": "runs", "Schedule": "schedules",
    "Experiment": "experiments", "Probe": "probes", "Traffic": "traffics", "Calendar": "calendars",
}  # fmt: skip
BINDING = "rbac.authorization.k8s.io/v1"
DELAY: Object = {
    "fault": "network.delay", "params": {"latency": "100ms"}, "duration": "30s",
    "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"},
}  # fmt: skip


def kind_of(name: str) -> Kind:
    return Kind(name, PLURALS[name], VERSION, name != "Halt")


@dataclass
class World:
    """A cluster of one test module: an operator with its webhook, and who asks it for something."""

    server: Server
    client: Client
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    operators: list[tuple[Operator, threading.Thread]] = field(default_factory=list[Any])
    hosts: list[str] = field(default_factory=list[str])  # those of our own nodes

    def __post_init__(self) -> None:
        self.admin = self.server.access()  # once: it writes the token anew, which others read
        self.own, self.people = self.space("ops"), self.space("people")
        rules = [
            *rbac.OPERATOR, *rbac.RUNS, *rbac.objects(rbac.OBJECTS), *webhook.OPERATOR,
            *webhook.FAULTS,
        ]  # fmt: skip
        self.account("operator", rules)
        home = [*rbac.OPERATOR_AT_HOME, *webhook.OPERATOR_AT_HOME]
        self.allow("operator", home, self.own)
        self.account("agent", [*rbac.AGENT, *webhook.AGENT])
        self.allow("agent", [*rbac.AGENT_AT_HOME, *webhook.AGENT_AT_HOME], self.own)

    def space(self, name: str, **annotations: str) -> str:
        """A namespace of this test."""
        full = f"{name}-{self.mark}-{uuid.uuid4().hex[:4]}"
        notes = {f"faultline.dev/{key}": value for key, value in annotations.items()}
        meta = {"name": full, "annotations": notes}
        self.client.create(SPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        return full

    def home(self, name: str) -> str:
        """Where an account lives: ours with the operator, people elsewhere."""
        return self.own if name in ("operator", "agent") else self.people

    def account(self, name: str, rules: list[Any] | None = None) -> Access:
        """A real account with these rights in the whole cluster, and how it connects."""
        made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        try:
            self.client.create(ACCOUNTS, made, self.home(name))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        if rules:
            self.allow(name, rules)
        return self.access(name)

    def access(self, name: str) -> Access:
        path = ACCOUNTS.path(self.home(name), name, "token")
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                 "spec": {"audiences": ["https://kubernetes.default.svc"]}}  # fmt: skip
        told = self.client.rest.request("POST", path, None, asked).json()
        return self.server.access_by(str(told["status"]["token"]), f"{name}-{self.own}")

    def allow(self, name: str, rules: list[Any], namespace: str = "") -> None:
        """Rights for an account, in one namespace or everywhere."""
        kind = "Role" if namespace else "ClusterRole"
        called = f"{name}-{uuid.uuid4().hex[:6]}"
        for what, body in (
            (kind, {"rules": rules}),
            (
                f"{kind}Binding",
                {
                    "roleRef": {"apiGroup": BINDING.partition("/")[0], "kind": kind,
                                "name": called},
                    "subjects": [{"kind": "ServiceAccount", "name": name,
                                  "namespace": self.home(name)}],
                },
            ),
        ):  # fmt: skip
            where = Kind(what, f"{what.lower()}s", BINDING, bool(namespace))
            made = {"apiVersion": BINDING, "kind": what, "metadata": {"name": called}, **body}
            self.client.create(where, made, namespace)

    def as_user(self, name: str) -> Client:
        return Client(Plain(self.access(name)))

    # ------------------------------------------------------------------ the operator

    def operate(self, **settings: Any) -> Operator:
        access = self.access("operator")
        told = {"webhook": Address.read("127.0.0.1:0"), **settings}
        made = Operator(lambda: Plain(access), Settings(self.own, rate=1000, lease=8, **told))
        thread = threading.Thread(target=made.run)
        thread.start()
        self.operators.append((made, thread))
        hook = made.guarded.webhook
        if hook is not None:
            until(lambda: hook.user, "the API server reaches the webhook", 40)
            until(lambda: made.leader.leads, "it leads", 30)
        return made

    def end_operators(self) -> None:
        for made, _ in self.operators:
            made.stop()
        for _, thread in self.operators:
            thread.join(30)
            assert not thread.is_alive()
        self.operators.clear()

    # ------------------------------------------------------------------ objects

    def make(self, kind: str, name: str, spec: Object, namespace: str = "",
             by: Client | None = None, **meta: Any) -> Object:  # fmt: skip
        made = {"apiVersion": VERSION, "kind": kind, "spec": spec,
                "metadata": {"name": name, **meta}}  # fmt: skip
        return (by or self.client).create(kind_of(kind), made, namespace)

    def refused(self, what: Callable[[], Any]) -> ApiError:
        """What the server says of something that must not be possible."""
        with pytest.raises(ApiError) as said:
            what()
        return said.value

    def status(self, name: str, namespace: str) -> Object:
        return self.client.get(FAULTS, name, namespace).get("status") or {}

    def phase(self, name: str, namespace: str, phase: str) -> Object:
        def there() -> Object:
            told = self.status(name, namespace)
            if told.get("phase") == "refused" != phase:
                pytest.fail(f"{name} is refused: {told['message']}", pytrace=False)
            return told if told.get("phase") == phase else {}

        return until(there, f"{name} is not {phase}", 30)

    def pod(self, name: str, namespace: str, node: str = "", **labels: str) -> Object:
        made = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web", **labels}},
            "spec": {"nodeName": node or None, "containers": [{"name": "main", "image": "x"}],
                     "automountServiceAccountToken": False,
                     "terminationGracePeriodSeconds": 0},
        }  # fmt: skip
        there = self.client.create(PODS, made, namespace)
        there["status"] = {
            "phase": "Running",
            "containerStatuses": [{
                "name": "main", "ready": True, "restartCount": 0, "image": "x", "imageID": "x",
                "containerID": f"containerd://{metadata(there)['uid']}",
                "state": {"running": {}},
            }],
        }  # fmt: skip
        return self.client.replace(PODS, there, "status")

    @contextmanager
    def nodes(self, count: int) -> Iterator[list[str]]:
        """Nodes with simulated agents."""
        names = [f"n{number}-{self.mark}-{uuid.uuid4().hex[:4]}" for number in range(count)]
        for name in names:
            meta = {"name": name}
            self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        self.hosts += names
        with Agents(lambda: Plain(self.admin), names, self.own, lease=8):
            yield names
        for name in names:
            gone(self.client, HOSTS, name)
            gone(self.client, NODES, name)


def gone(client: Client, kind: Kind, name: str, namespace: str = "") -> None:
    try:
        client.delete(kind, name, namespace, grace=0)
    except ApiError as error:
        if error.reason != "NotFound":
            raise


def unhooked(client: Client) -> None:
    """Nobody is asked any more: the server has seen that our configurations are gone."""
    for kind in webhooks.KINDS:
        gone(client, kind, webhooks.NAME)
        for slot in webhooks.SLOTS:
            gone(client, kind, slot)
    made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": "try"}, "spec": DELAY}

    def passes() -> bool:
        path = FAULTS.path("default")
        return client.rest.request("POST", path, {"dryRun": "All"}, made).status == 201

    until(passes, "the server still asks the webhook", 30)


def open_kind(name: str) -> Object:
    """A kind without a schema: with all fields of a Run the server is busy for many seconds."""
    plural, group = PLURALS[name], VERSION.partition("/")
    names = {"kind": name, "listKind": f"{name}List", "plural": plural, "singular": name.lower()}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": group[2], "served": True, "storage": True, "subresources": {"status": {}},
               "schema": {"openAPIV3Schema": schema}}  # fmt: skip
    return {
        "apiVersion": CRDS.version,
        "kind": CRDS.kind,
        "metadata": {"name": f"{plural}.{group[0]}"},
        "spec": {"group": group[0], "names": names, "scope": "Namespaced", "versions": [version]},
    }


@pytest.fixture(scope="session")
def all_kinds(apiserver: Server) -> Server:
    """The server with all of our kinds."""
    with closing(apiserver.client()) as client:
        there = {str(metadata(each)["name"]) for each in client.every(CRDS)}
        for name in ("Host", *PLURALS):
            made = crd(name) if name in WHOLE else open_kind(name)
            if metadata(made)["name"] not in there:
                client.patch(CRDS, str(metadata(made)["name"]), made, "apply")
        for plural in PLURALS.values():
            path = f"/apis/{VERSION}/{plural}"
            until(lambda path=path: client.rest.request("GET", path).status == 200)
    return apiserver


@pytest.fixture(scope="module")
def world(all_kinds: Server) -> Generator[World]:
    with closing(all_kinds.client()) as client:
        made = World(all_kinds, client)
        try:
            yield made
        finally:
            made.end_operators()
            unhooked(client)
            for halt in [*client.every(HALTS)]:
                gone(client, HALTS, str(metadata(halt)["name"]))
            for fault in [*client.every(FAULTS)]:
                meta = metadata(fault)
                if meta.get("finalizers"):
                    change = {"metadata": {"finalizers": None}}
                    client.patch(FAULTS, str(meta["name"]), change, namespace=meta["namespace"])
                gone(client, FAULTS, str(meta["name"]), str(meta["namespace"]))
            for pod in [*client.every(PODS)]:
                gone(client, PODS, str(metadata(pod)["name"]), str(metadata(pod)["namespace"]))
