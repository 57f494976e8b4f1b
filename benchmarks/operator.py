"""The operator: one Fault on many hosts, with a real API server and simulated agents.

python -m benchmarks.operator
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, Measured, NotHere, alone
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubeapi.plain import Access, Plain

HOSTS = int(os.environ.get("FAULTLINE_BENCH_HOSTS", "500"))
EACH = int(os.environ.get("FAULTLINE_BENCH_TARGETS", "20"))
LIMIT = 240  # seconds after which it is not waited for any more
VERSION = "faultline.dev/v1alpha1"
NAMESPACE, OWN = "shop", "faultline"
FAULTS = Kind("Fault", "faults", VERSION)
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


def measure() -> Measured:
    """Time to all effective and to all recovered; what the operator uses of everything."""
    programs: Any = importlib.import_module("tests.kube.programs")
    missing = [name for name in ("etcd", "kube-apiserver") if not programs.program(name)]
    if missing:
        raise NotHere(f"needs {' and '.join(missing)}")
    servers: Any = importlib.import_module("tests.kube.apiserver")
    with tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(servers.running(Path(folder)))
        access: Access = server.access()
        client = Client(Plain(access))
        stack.callback(client.close)
        _kinds(client)
        names = [f"node-{number:04d}" for number in range(HOSTS)]
        _populate(access, names)
        from faultline.testing.agents import Agents

        agents = stack.enter_context(
            Agents(lambda: Plain(access), names, OWN, lease=60.0, writers=2)
        )
        words = [sys.executable, "-c", OPERATOR, access.server, str(access.authority),
                 str(access.token), str(RATE)]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as operator:
            try:
                yield from _one_fault(client, agents, operator, server.pid)
            finally:
                operator.kill()


def _one_fault(
    client: Client, agents: Any, operator: subprocess.Popen[str], server: int
) -> Measured:
    targets = HOSTS * EACH
    assert operator.stdout is not None
    operator.stdout.readline()
    time.sleep(5)
    idle = _bytes(operator.pid, "VmRSS:")
    spec = {"fault": "network.delay", "params": {"latency": "100ms"}, "duration": "30m",
            "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"}}  # fmt: skip
    made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": "many"}, "spec": spec}
    before = _processor(server), _processor(os.getpid())
    begun = time.monotonic()
    client.create(FAULTS, made, NAMESPACE)
    status = _until(client, lambda s: s.get("counts", {}).get("effective", 0) >= targets)
    effective = time.monotonic() - begun
    whole = status.get("effect")
    begun = time.monotonic()
    client.delete(FAULTS, "many", NAMESPACE)
    _until(client, lambda s: not s)
    recovered = time.monotonic() - begun
    left = agents.suffering()
    processor, most = _processor(operator.pid), _bytes(operator.pid, "VmHWM:")
    others = [_processor(pid) for pid in (server, os.getpid())]
    used = [now - then for now, then in zip(others, before, strict=True)]
    operator.terminate()
    spent = int(operator.stdout.readline())
    of = f"{targets} targets on {HOSTS} simulated hosts"
    note = f"{of}; {whole}; two cores with server, agents and operator"
    yield Figure("operator: from apply to all effective", effective, "s", spread=note)
    note = f"{left} left in place" if left else "nothing left in place"
    yield Figure("operator: from delete to all recovered and gone", recovered, "s", spread=note)
    note = f"with {targets} pods watched; {idle / 2**20:.0f} MiB before the fault"
    yield Figure("operator: memory, at most", most / 2**20, "MiB", "under 300 MiB", spread=note)
    yield Figure("operator: requests per target", spent / targets, "", "under 2",
                 spread=f"{spent} in all, lists, watches and its lease with them")  # fmt: skip
    yield Figure("operator: requests per target, with those of the agents",
                 (spent + agents.requests) / targets, "", "under 2",
                 spread=f"{agents.requests} of agents, their leases apart")  # fmt: skip
    yield Figure("operator: processor for one fault, from begin to end", processor, "s",
                 spread=f"API server {used[0]:.0f} s, agents {used[1]:.0f} s")  # fmt: skip


def _until(client: Client, holds: Callable[[Object], bool]) -> Object:
    end = time.monotonic() + LIMIT
    while True:
        try:
            found = client.get(FAULTS, "many", NAMESPACE)
            status: Object = found.get("status") or {"phase": "pending"}
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            status = {}
        if holds(status):
            return status
        if time.monotonic() > end:
            raise NotHere(f"not within {LIMIT} s: {status.get('counts')}")
        time.sleep(0.2)


# ---------------------------------------------------------------------- the cluster


def _kinds(client: Client) -> None:
    from faultline.kube.crds import crd

    for name in ("Fault", "Host", "Halt"):
        made = crd(name)
        client.patch(CRDS, made["metadata"]["name"], made, "apply")
        path = f"/apis/{VERSION}/{made['spec']['names']['plural']}"
        while client.rest.request("GET", path).status != 200:
            time.sleep(0.05)
    for name in (NAMESPACE, OWN):
        client.create(SPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def _populate(access: Access, names: Iterable[str]) -> None:
    """Nodes with pods that say that they run. A server fresh from its start counts no quota."""
    local = threading.local()
    made: list[Client] = []

    def one(name: str) -> None:
        if not hasattr(local, "client"):
            local.client = Client(Plain(access))
            made.append(local.client)
        client: Client = local.client
        client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        for number in range(EACH):
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


def _bytes(pid: int, name: str) -> int:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == name), 0)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    alone(measure)
