"""An agent of a real cluster whose node is this machine: faults on its pods, by identity."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.containers.looking import took
from tests.containers.test_pods import kubectl, pod
from tests.kube.agent.conftest import HOSTS, NAMESPACE, Crew, entry, until
from tests.kube.kinds_there import kinds_there

from faultline.errors import TargetGone
from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.places import pods
from faultline.places.find import Target, find

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow]
LOSS = {"interface": "lo", "percent": "100%"}


@dataclass
class Cluster:
    """The one that KUBECONFIG names, as crews use it."""

    file: Path

    def client(self) -> Client:
        return Client(connect(str(self.file)))

    def kubeconfig(self) -> Path:
        return self.file


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """With our Host and a namespace for leases, both gone afterwards."""
    made = Cluster(Path(os.environ["KUBECONFIG"]))
    with kinds_there("Host"):
        kubectl("create", "namespace", NAMESPACE)
        try:
            yield made
        finally:
            kubectl("delete", "namespace", NAMESPACE)


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Cluster:
    """In the place of the API server without nodes: crews are of this cluster."""
    return cluster


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Generator[str]:
    """A namespace with a pod of one container and a pod of two."""
    name = f"flagent-{os.getpid()}"
    kubectl("create", "namespace", name)
    try:
        for each in (pod("one", name, "app"), pod("two", name, "app", "side")):
            kubectl("create", "-f", "-", given=each)
        for each in ("one", "two"):
            kubectl("wait", "-n", name, "--for=condition=Ready", "--timeout=90s", f"pod/{each}")
        yield name
    finally:
        kubectl("delete", "namespace", name)


def told(space: str, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", "pod", "-n", space, name, "-o", "json"))


def of_pod(space: str, name: str, container: str = "", **more: str) -> dict[str, Any]:
    """The pod as the operator names it."""
    found = told(space, name)
    wanted = {"namespace": space, "name": name, "uid": found["metadata"]["uid"], **more}
    if container:
        states = {each["name"]: each for each in found["status"]["containerStatuses"]}
        wanted |= {"container": container, "containerId": states[container]["containerID"]}
    return wanted


def test_pods_are_found_by_their_uid(space: str) -> None:
    uid = told(space, "two")["metadata"]["uid"]
    wanted = pods.Wanted(space, "two", uid)
    assert pods.find(wanted, network=True).sandbox
    assert pods.find(pods.Wanted(space, "two", uid, "side")).in_pod == "side"
    with pytest.raises(TargetGone, match=r"not on this node"):
        pods.find(pods.Wanted(space, "two", "0" * 8 + uid[8:]))


def test_faults_on_pods(crew: Crew, space: str) -> None:
    crew.start()
    gone = of_pod(space, "one", uid="00000000-1111-2222-3333-444444444444")
    crew.want(
        entry("net-1", "network.loss", **LOSS, _pod=of_pod(space, "one")),
        entry("pause-1", "container.pause", _pod=of_pod(space, "two", "side")),
        entry("several-1", "cpu.burn", percent="10%", _pod=of_pod(space, "two")),
        entry("other-1", "network.loss", **LOSS, _pod=gone),
    )
    assert crew.measured("net-1")["stage"] == "active"
    assert crew.measured("pause-1")["stage"] == "active"
    assert took(find(Target(pod=f"{space}/one"))) is None
    assert took(find(Target(pod=f"{space}/two/app"))) is not None
    assert "app, side" in crew.stage("several-1", "refused")["error"]
    error = crew.stage("other-1", "refused")["error"]
    assert "another pod of that name" in error
    assert crew.host()["status"]["runtimes"] == ["containerd"]
    crew.want()
    assert crew.stage("net-1", "ended")["end"] == "recovered"
    assert crew.stage("pause-1", "ended")["end"] == "recovered"
    assert took(find(Target(pod=f"{space}/one"))) is not None


def test_the_network_of_a_pod_outlives_its_container(crew: Crew, space: str) -> None:
    """And a container that is started anew is hit again where that was asked for."""
    crew.start()
    followed = of_pod(space, "two", "side")
    crew.want(
        entry("net-2", "network.loss", **LOSS, _pod=of_pod(space, "one")),
        entry("fill-1", "memory.fill", bytes="16MiB", _pod=followed, _follow=True),
        entry("fill-2", "memory.fill", bytes="8MiB", _pod=followed),
    )
    for uid in ("net-2", "fill-1", "fill-2"):
        crew.measured(uid)
    for where in (f"{space}/one", f"{space}/two/side"):
        process = find(Target(pod=where)).process
        assert process is not None
        process.send(signal.SIGKILL)
    assert crew.stage("fill-2", "ended")["end"] == "target gone"
    until(lambda: "fill-1.2" in crew.records(), 60, "it was not followed")
    until(lambda: crew.actual("fill-1").get("stage") == "active", 30)
    until(lambda: told(space, "one")["status"]["containerStatuses"][0]["restartCount"], 60)
    assert crew.actual("net-2")["stage"] == "active"
    assert took(find(Target(pod=f"{space}/one"))) is None
    crew.want()
    for uid in ("net-2", "fill-1"):
        assert crew.stage(uid, "ended")["end"] == "recovered"


def test_a_pod_that_is_deleted(crew: Crew, space: str) -> None:
    kubectl("create", "-f", "-", given=pod("short", space, "app"))
    kubectl("wait", "-n", space, "--for=condition=Ready", "--timeout=60s", "pod/short")
    crew.start()
    crew.want(entry("net-3", "network.loss", **LOSS, _pod=of_pod(space, "short")))
    crew.measured("net-3")
    begun = time.monotonic()
    kubectl("delete", "pod", "-n", space, "short")
    assert crew.stage("net-3", "ended")["end"] == "target gone"
    assert time.monotonic() - begun < 60


def test_as_a_service_account_with_no_more_rights_than_it_needs(crew: Crew, space: str) -> None:
    """Its own Host, and leases: nothing else of the API server."""
    rules = [
        {"apiGroups": ["faultline.dev"], "resources": ["hosts"],
         "verbs": ["get", "list", "watch", "create"]},
        {"apiGroups": ["faultline.dev"], "resources": ["hosts/status"], "verbs": ["patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "verbs": ["create", "patch"]},
    ]  # fmt: skip
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    role = f"{space}-agent"
    made = [
        {"apiVersion": "v1", "kind": "ServiceAccount",
         "metadata": {"name": "agent", "namespace": space}},
        {**rbac, "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules},
        {**rbac, "kind": "ClusterRoleBinding", "metadata": {"name": role},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
         "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": space}]},
    ]  # fmt: skip
    for each in made:
        kubectl("create", "-f", "-", given=each)
    try:
        secrets = json.loads(kubectl("get", "secret", "-n", space, "-o", "json"))["items"]
        token = next(each for each in secrets if each["metadata"]["name"].startswith("agent-"))
        file = crew.state.parent / "agent.kubeconfig"
        config = yaml.safe_load(crew.server.kubeconfig().read_text())
        config["users"][0]["user"] = {"token": base64.b64decode(token["data"]["token"]).decode()}
        file.write_text(yaml.safe_dump(config))
        crew.start("--kubeconfig", str(file))
        crew.want(entry("net-4", "network.loss", **LOSS, _pod=of_pod(space, "one")))
        crew.measured("net-4")
        crew.kill(signal.SIGTERM)
        assert crew.client.get(HOSTS, crew.node)["status"]["actual"][0]["end"] == "recovered"
    finally:
        kubectl("delete", "clusterrole,clusterrolebinding", role)
