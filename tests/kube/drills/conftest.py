"""A real cluster whose node is this machine, with an operator and the agent of that node."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.containers.test_pods import IMAGE, kubectl
from tests.kube.agent.conftest import Crew, keepers
from tests.kube.kinds_there import kinds_there

from faultline.changes.keepers import dismiss
from faultline.changes.store import open_store
from faultline.injection.recovery import Recovery
from faultline.kube.crds import crds
from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.kubeapi.model import Object
from faultline.operator.app import Operator, Settings
from faultline.places.find import Target, find

PORT = 8080
NAMESPACE = "faultline"
GROUP = "faultline.dev"


def until(what: Callable[[], Any], words: str = "", patience: float = 60.0) -> Any:
    """What it answers as soon as that is something."""
    end = time.monotonic() + patience
    while not (answer := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {patience:g} s: {words or what}", pytrace=False)
        time.sleep(0.1)
    return answer


@dataclass
class Cluster:
    """The one that KUBECONFIG names, as crews use it."""

    file: Path

    def client(self) -> Client:
        return Client(connect(str(self.file)))

    def kubeconfig(self) -> Path:
        return self.file


@dataclass
class Field:
    """A namespace with programs in it, and who makes them suffer."""

    cluster: Cluster
    client: Client
    space: str
    crew: Crew

    def get(self, *words: str) -> Any:
        return json.loads(kubectl("get", "-n", self.space, *words, "-o", "json"))

    def serve(self, name: str, copies: int) -> None:
        """Programs that answer HTTP, behind a service of that name."""
        labels = {"app": name}
        page = f"echo ok > /tmp/index.html && exec httpd -f -p {PORT} -h /tmp"
        container = {
            "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", page],
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        }  # fmt: skip
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container],
                "automountServiceAccountToken": False}  # fmt: skip
        kubectl("create", "-n", self.space, "-f", "-", given={
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": copies, "selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels}, "spec": spec}}})  # fmt: skip
        kubectl("create", "-n", self.space, "-f", "-", given={
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": PORT}]}})  # fmt: skip

    def ready(self, *names: str) -> None:
        for name in names:
            kubectl("rollout", "status", "-n", self.space, f"deployment/{name}", "--timeout=90s")

    def pods(self, app: str) -> dict[str, str]:
        """The addresses of its pods that are ready, by name."""
        found = self.get("pods", "-l", f"app={app}")["items"]
        return {
            each["metadata"]["name"]: each["status"]["podIP"]
            for each in found
            if not each["metadata"].get("deletionTimestamp")
            and any(c["type"] == "Ready" and c["status"] == "True"
                    for c in each["status"].get("conditions") or [])
        }  # fmt: skip

    def address(self, service: str) -> str:
        return self.get("service", service)["spec"]["clusterIP"]

    def reaches(self, pod: str, address: str, seconds: float = 1.0) -> bool:
        """Whether a program in this pod can connect there."""
        with find(Target(pod=f"{self.space}/{pod}")).entered():
            try:
                socket.create_connection((address, PORT), timeout=seconds).close()
            except OSError:
                return False
        return True

    def fault(self, name: str, **spec: Any) -> None:
        made = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Fault", "metadata": {"name": name},
                "spec": {"duration": "5m", **spec}}  # fmt: skip
        kubectl("create", "-n", self.space, "-f", "-", given=made)

    def status(self, kind: str, name: str) -> Object:
        return self.get(kind, name).get("status") or {}

    def effective(self, name: str) -> Object:
        def there() -> Object:
            told = self.status("fault", name)
            if told.get("phase") in ("refused", "ended"):
                pytest.fail(f"{name}: {told}\n{self.crew.log.read_text()[-2000:]}", pytrace=False)
            return told if told.get("effect") == "effective" else {}

        try:
            return until(there, name)
        except pytest.fail.Exception:
            told = self.status("fault", name)
            pytest.fail(f"{told}\n{self.crew.log.read_text()[-2000:]}", pytrace=False)

    def gone(self, name: str) -> None:
        kubectl("delete", "fault", "-n", self.space, name, "--timeout=60s")


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """With all our kinds, and a namespace for leases; all of it gone afterwards."""
    made = Cluster(Path(os.environ["KUBECONFIG"]))
    with kinds_there(*(each["spec"]["names"]["kind"] for each in crds())):
        kubectl("create", "namespace", NAMESPACE)
        try:
            yield made
        finally:
            kubectl("delete", "namespace", NAMESPACE)


@pytest.fixture(scope="module")
def node() -> str:
    return kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")


@pytest.fixture(scope="module")
def crew(cluster: Cluster, node: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Crew]:
    """The agent of the node."""
    made = Crew(cluster, tmp_path_factory.mktemp("agent"))  # pyright: ignore[reportArgumentType]
    made.node = node
    made.start()
    until(made.host, "no Host was made")
    yield made
    made.kill(15)
    with Recovery(made.state) as recovery:
        recovery.recover_all()
        dismiss(recovery.store)
    until(lambda: not keepers(made.state), "keepers did not end")
    run = open_store(made.state).run
    subprocess.run(["rm", "-rf", str(run)], check=False)
    made.client.close()


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Generator[Operator]:
    made = Operator(lambda: connect(str(cluster.file)), Settings(NAMESPACE, rate=1000, lease=5))
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(30)
    assert not thread.is_alive()


@contextmanager
def fielded(cluster: Cluster, crew: Crew, operator: Operator) -> Generator[Field]:
    """A namespace for the block; whatever was done in it is undone."""
    name = f"fldrill-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    client = cluster.client()
    made = Field(cluster, client, name, crew)
    until(lambda: operator.caches.alive.get(crew.node), "the agent is not seen")
    try:
        yield made
    finally:
        kubectl("delete", "faults", "-n", name, "--all", "--timeout=60s")
        kubectl("delete", "namespace", name, "--wait=false")
        client.close()


@pytest.fixture
def field(cluster: Cluster, crew: Crew, operator: Operator) -> Generator[Field]:
    with fielded(cluster, crew, operator) as made:
        yield made


def load(path: Path) -> Object:
    return yaml.safe_load(path.read_text())
