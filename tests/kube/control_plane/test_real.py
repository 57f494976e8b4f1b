"""Components of a real cluster stopped and cut off: what comes of that, and that it ends although
nobody can be told to end it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_pods import kubectl, pod
from tests.kube.agent.conftest import Crew, crew, state_of
from tests.kube.kinds_there import kinds_there
from tests.kube.operator.conftest import FAULTS, HOSTS, VERSION, until

from faultline.kernel import cgroup, procfs
from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.operator.app import Operator, Settings

__all__ = ["crew"]  # fixtures
pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow, pytest.mark.timeout(400),
]  # fmt: skip
OWN = "faultline"  # the namespace of operator and leases
NODES = Kind("Node", "nodes", "v1", namespaced=False)
PODS = Kind("Pod", "pods", "v1")
LEASE = 6  # seconds of the agent's: shorter than the API server is stopped


class Cluster:
    """The one that KUBECONFIG names, whose components are processes of this machine."""

    def __init__(self) -> None:
        self.file = Path(os.environ["KUBECONFIG"])

    def client(self) -> Client:
        return Client(connect(str(self.file)))

    def kubeconfig(self) -> Path:
        return self.file


def process_of(program: str, words: str) -> procfs.Process:
    """The component of this very cluster: others may run on this machine, too."""
    found = procfs.find_by_cmdline(f"^([^ ]*/)?{program} .*{words}")
    if len(found) != 1:
        pytest.skip(f"{program} is no process of this machine, or not the only one")
    return found[0]


@pytest.fixture(scope="module")
def prepared() -> Generator[Cluster]:
    """With our kinds and a namespace for leases."""
    cluster = Cluster()
    with kinds_there("Fault", "Halt", "Host"):
        kubectl("create", "namespace", OWN)
        try:
            yield cluster
        finally:
            kubectl("delete", "namespace", OWN)


@pytest.fixture(scope="module")
def processes(prepared: Cluster) -> dict[str, str]:
    """What tells each component from those of other clusters on this machine."""
    with closing(prepared.client()) as client:
        port = re.search(r":(\d+)/?$", client.rest.server)
    assert port is not None
    api = process_of("kube-apiserver", f"--secure-port={port[1]}( |$)")
    servers = next(each for each in api.cmdline if each.startswith("--etcd-servers="))
    store = re.escape(servers.partition("://")[2].partition(",")[0])
    etcd = process_of("etcd", store)
    folder = re.escape(str(prepared.file.parent))
    scheduler = process_of("kube-scheduler", folder)
    return {
        "kube-apiserver": f"^([^ ]*/)?kube-apiserver .*--secure-port={port[1]}( |$)",
        "etcd": f"^([^ ]*/)?etcd .*{store}",
        "kube-scheduler": f"^([^ ]*/)?kube-scheduler .*{folder}",
        "pids": json.dumps({"kube-apiserver": api.pid, "etcd": etcd.pid,
                            "kube-scheduler": scheduler.pid}),
    }  # fmt: skip


@pytest.fixture
def stage(prepared: Cluster, crew: Crew, processes: dict[str, str]) -> Generator[Stage]:
    """An operator, and an agent on the only node."""
    with closing(prepared.client()) as client:
        crew.node = str(metadata(next(iter(client.every(NODES))))["name"])
        made = Operator(lambda: connect(str(prepared.file)), Settings(OWN, rate=1000, lease=3))
        thread = threading.Thread(target=made.run)
        thread.start()
        crew.start("--lease", f"{LEASE}s", "--renew", "1500ms")
        try:
            until(lambda: made.caches.alive.get(crew.node), "the agent is not seen", 120)
            until(lambda: crew.host().get("status", {}).get("components"), "no components", 120)
            yield Stage(client, crew, processes)
        finally:
            for each in [*client.every(FAULTS)]:
                meta = metadata(each)
                with suppress(ApiError):
                    client.delete(FAULTS, str(meta["name"]), str(meta["namespace"]))
            until(lambda: not [*client.every(FAULTS)], "faults are left", 120)
            made.stop()
            thread.join(20)


class Stage:
    """What a test of this module acts with."""

    def __init__(self, client: Client, crew: Crew, processes: dict[str, str]) -> None:
        self.client, self.crew, self.processes = client, crew, processes
        self.pids: dict[str, int] = json.loads(processes["pids"])

    def apply(self, component: str, duration: str, fault: str = "process.stop", **more: Any) -> str:
        name = f"cp-{uuid.uuid4().hex[:6]}"
        allow = more.pop("allow", ["control-plane", "single-replica"])
        chosen = {"component": component, "process": self.processes[component], **more}
        params = chosen.pop("params", {})
        spec = {"fault": fault, "params": params, "duration": duration, "allow": allow,
                "selector": {"controlPlane": chosen}}  # fmt: skip
        made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": name}, "spec": spec}
        self.client.create(FAULTS, made, "default")
        return name

    def status(self, name: str) -> Object:
        with suppress(ApiError):
            return self.client.get(FAULTS, name, "default").get("status") or {}
        return {}

    def ended(self, name: str) -> Object:
        until(lambda: self.status(name).get("phase") in ("ended", "refused"), "it ends", 120)
        return self.status(name)

    def stopped(self, component: str) -> bool:
        return state_of(self.pids[component]) == "T"


def test_agents_say_what_runs_and_the_only_replica_is_refused(stage: Stage) -> None:
    seen = stage.crew.host()["status"]["components"]
    assert {"kube-apiserver", "etcd", "kube-scheduler", "kubelet"} <= {*seen}
    name = stage.apply("kube-scheduler", "5s", allow=["control-plane"])
    told = stage.ended(name)
    assert told["phase"] == "refused"
    assert "none would be left" in told["message"]
    name = stage.apply("kube-scheduler", "5s", allow=["single-replica"])
    assert "allow: [control-plane]" in stage.ended(name)["message"]
    assert not stage.stopped("kube-scheduler")


def test_without_a_scheduler_pods_stay_where_they_are_and_then_go_on(stage: Stage) -> None:
    name = stage.apply("kube-scheduler", "7s")
    until(lambda: stage.status(name).get("effect") == "effective", "it is stopped", 90)
    assert stage.stopped("kube-scheduler")
    kubectl("create", "-f", "-", given=pod(name, "default", "app"))
    try:
        time.sleep(1)
        assert stage.stopped("kube-scheduler")
        assert not stage.client.get(PODS, name, "default")["spec"].get("nodeName")
        assert stage.ended(name)["end"] == "recovered"
        kubectl("wait", "-n", "default", "--for=condition=Ready", "--timeout=100s", f"pod/{name}")
    finally:
        kubectl("delete", "pod", "-n", "default", name, "--wait=false")


def test_what_nobody_can_be_told_to_end_ends_by_itself(stage: Stage) -> None:
    """It lasts longer than the lease of the agent, which would undo anything else."""
    for component in ("kube-apiserver", "etcd"):
        name = stage.apply(component, f"{LEASE + 4}s")
        until(lambda one=component: stage.stopped(one), f"{component} is stopped", 90)
        begun = time.monotonic()
        answers = subprocess.run(
            ["kubectl", "get", "--raw", "/readyz", "--request-timeout=2s"],
            capture_output=True, check=False,
        )  # fmt: skip
        assert answers.returncode != 0
        until(lambda one=component: not stage.stopped(one), f"{component} goes on", 60)
        assert time.monotonic() - begun > LEASE + 1
        told = stage.ended(name)
        assert told["end"] == "recovered", told
        assert told["counts"]["recovered"] == 1
        entries = stage.client.get(HOSTS, stage.crew.node)["status"]["actual"]
        assert all("lease" not in each.get("note", "") for each in entries)


def test_the_scheduler_cut_off_from_the_api_server(stage: Stage) -> None:
    """Its own packets alone: others on the same machine reach the API server."""
    if not any(each.version == 2 and each.writable for each in cgroup.layout().hierarchies):
        pytest.skip("sockets are told apart by control groups of version 2")
    name = stage.apply("kube-scheduler", "8s", fault="network.partition", cutFrom="kube-apiserver")
    until(lambda: stage.status(name).get("phase") == "active", "it is cut off", 90)
    kubectl("create", "-f", "-", given=pod(name, "default", "app"))
    try:
        time.sleep(1)
        assert not stage.client.get(PODS, name, "default")["spec"].get("nodeName")
        assert stage.ended(name)["end"] == "recovered"
        kubectl("wait", "-n", "default", "--for=condition=Ready", "--timeout=100s", f"pod/{name}")
    finally:
        kubectl("delete", "pod", "-n", "default", name, "--wait=false")
