"""A cluster to measure in: a real API server with pods, simulated agents, and an operator in a
process of its own.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figure import NotHere
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubeapi.plain import Access, Plain

LIMIT = 240  # seconds after which it is not waited for any more
LEASE = 60.0  # seconds for which an agent is taken for alive
VERSION = "faultline.dev/v1alpha1"
NAMESPACE, OWN = "shop", "faultline"
FAULTS = Kind("Fault", "faults", VERSION)
HALTS = Kind("Halt", "halts", VERSION, namespaced=False)
PODS, NODES = Kind("Pod", "pods", "v1"), Kind("Node", "nodes", "v1", namespaced=False)
SPACES = Kind("Namespace", "namespaces", "v1", namespaced=False)
CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1",
    namespaced=False,
)  # fmt: skip
OPERATOR = """
import signal, sys
from pathlib import Path
from faultline.kubeapi.plain import Access, Plain
from faultline.operator.app import Operator, Settings
server, authority, token, rate = sys.argv[1:]
access = Access(server, Path(authority), Path(token))
made = Operator(lambda: Plain(access), Settings("faultline", rate=float(rate)))
signal.signal(signal.SIGTERM, lambda *_: made.stop())
print("ready", flush=True)
made.run()
print(made.budget.spent, flush=True)
"""
RATE = 400  # requests a second that the operator may make


@dataclass(frozen=True)
class Standing:
    """The cluster, and what runs in it."""

    client: Client
    agents: Any  # faultline.testing.agents.Agents
    operator: subprocess.Popen[str]
    server: int  # the process of the API server

    def delay(self, name: str) -> None:
        """Ask for a fault on every pod that there is."""
        spec = {"fault": "network.delay", "params": {"latency": "100ms"}, "duration": "30m",
                "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"}}  # fmt: skip
        made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": name}, "spec": spec}
        self.client.create(FAULTS, made, NAMESPACE)

    def until(
        self, kind: Kind, name: str, holds: Callable[[Object], bool], namespace: str = ""
    ) -> Object:
        """Wait until the status of an object is so ({} when it is gone); the status."""
        end = time.monotonic() + LIMIT
        while True:
            try:
                found = self.client.get(kind, name, namespace)
                status: Object = found.get("status") or {"phase": "pending"}
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
                status = {}
            if holds(status):
                return status
            if time.monotonic() > end:
                raise NotHere(f"not within {LIMIT} s: {str(status)[:300]}")
            time.sleep(0.2)

    def ended(self) -> int:
        """End the operator; how many requests it has made."""
        assert self.operator.stdout is not None
        self.operator.terminate()
        return int(self.operator.stdout.readline())


@contextmanager
def standing(hosts: int, each: int) -> Generator[Standing]:
    """A cluster of so many hosts with so many pods each; raises NotHere without a server."""
    programs: Any = importlib.import_module("tests.kube.programs")
    missing = [name for name in ("etcd", "kube-apiserver") if not programs.program(name)]
    if missing:
        raise NotHere(f"needs {' and '.join(missing)}")
    servers: Any = importlib.import_module("tests.kube.apiserver")
    from faultline.testing.agents import Agents

    with tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(servers.running(Path(folder)))
        access: Access = server.access()
        client = Client(Plain(access))
        stack.callback(client.close)
        _kinds(client)
        names = [f"node-{number:04d}" for number in range(hosts)]
        _populate(access, names, each)
        agents = stack.enter_context(
            Agents(lambda: Plain(access), names, OWN, lease=LEASE, writers=2)
        )
        words = [sys.executable, "-c", OPERATOR, access.server, str(access.authority),
                 str(access.token), str(RATE)]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as operator:
            try:
                assert operator.stdout is not None
                operator.stdout.readline()
                time.sleep(5)
                yield Standing(client, agents, operator, server.pid)
            finally:
                operator.kill()


def _kinds(client: Client) -> None:
    from faultline.kube.crds import crds

    for made in crds():
        client.patch(CRDS, made["metadata"]["name"], made, "apply")
        path = f"/apis/{VERSION}/{made['spec']['names']['plural']}"
        while client.rest.request("GET", path).status != 200:
            time.sleep(0.05)
    for name in (NAMESPACE, OWN):
        client.create(SPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def _populate(access: Access, names: Iterable[str], each: int) -> None:
    """Nodes with pods that say that they run. A server fresh from its start counts no quota."""
    local = threading.local()
    made: list[Client] = []

    def one(name: str) -> None:
        if not hasattr(local, "client"):
            local.client = Client(Plain(access))
            made.append(local.client)
        client: Client = local.client
        client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        for number in range(each):
            there = client.create(PODS, _pod(f"web-{name}-{number:02d}", name), NAMESPACE)
            there["status"] = _running(str(metadata(there)["uid"]))
            client.replace(PODS, there, "status")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, names))
    for client in made:
        client.close()


def _pod(name: str, node: str) -> Object:
    container = {
        "name": "main", "image": "registry.example.com/shop/web:1.0",
                 "env": [{"name": f"VARIABLE_{n}", "value": "x" * 60} for n in range(15)],
    }  # fmt: skip
    spec = {"nodeName": node, "containers": [container], "automountServiceAccountToken": False}
    meta = {"name": name, "labels": {"app": "web", "version": "1.0"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _running(uid: str) -> Object:
    told: Object = {"name": "main", "ready": True, "restartCount": 0, "image": "x", "imageID": "x",
            "containerID": f"containerd://{uid}", "state": {"running": {}}}  # fmt: skip
    return {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [told]}
