"""What an agent costs while nothing is to be done, and how quickly it acts on what is applied.

    python -m benchmarks.agent [--minutes 1] [--rounds 10]

Against an API server of its own (etcd and kube-apiserver from KUBEBUILDER_ASSETS), as root, with
the real command. Memory and processor time are those of the agent's own process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kube.apiserver import Server, running
from tests.kube.programs import program

from benchmarks.figure import Figure, Measured, NotHere, alone, median
from benchmarks.keepers import used
from faultline.changes import keepers
from faultline.changes.store import open_store
from faultline.kernel import memory
from faultline.kube.crds import crd
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind

HOSTS = Kind("Host", "hosts", "faultline.dev/v1alpha1", namespaced=False)
DEFINITIONS = Kind(
    "CustomResourceDefinition",
    "customresourcedefinitions",
    "apiextensions.k8s.io/v1",
    namespaced=False,
)
NODE = "bench"
PATIENCE = 60.0
SETTLED = 10.0  # seconds after which helpers have ended and memory was given back


def until(what: Callable[[], Any], words: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (answer := what()):
        if time.monotonic() > end:
            raise NotHere(f"not within {PATIENCE:g} s: {words}")
        time.sleep(0.02)
    return answer


@contextmanager
def server() -> Generator[Server]:
    """An API server with what an agent needs."""
    if os.geteuid() or not all(map(program, ("etcd", "kube-apiserver", "openssl"))):
        raise NotHere("needs root, etcd, kube-apiserver and openssl")
    folder = Path(tempfile.mkdtemp(prefix="faultline-bench-"))
    try:
        with running(folder) as made:
            client = made.client()
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "faultline"}}
            client.rest.request("POST", "/api/v1/namespaces", None, namespace).json()
            client.create(DEFINITIONS, crd("Host"))
            until(lambda: _served(client), "Host is served")
            client.close()
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _served(client: Client) -> bool:
    try:
        list(client.every(HOSTS))
    except ApiError:
        return False
    return True


@contextmanager
def agent(at: Server, state: Path) -> Generator[int]:
    """The real command; its pid."""
    words = [sys.executable, "-m", "faultline.cli.main", "--state", str(state), "agent",
             "--node", NODE, "--kubeconfig", str(at.kubeconfig()), "--no-doctor"]  # fmt: skip
    with tempfile.TemporaryFile() as log:
        made = subprocess.Popen(words, stderr=log)
    try:
        yield made.pid
    finally:
        made.send_signal(signal.SIGTERM)
        made.wait(60)
        keepers.retire(open_store(state))


def _entries(client: Client) -> dict[str, dict[str, Any]]:
    try:
        status: dict[str, Any] = client.get(HOSTS, NODE).get("status") or {}
    except ApiError:
        return {}
    listed: list[dict[str, Any]] = status.get("actual") or []
    return {each["uid"]: each for each in listed}


def _want(client: Client, *uids: str, pids: tuple[int, ...] = ()) -> None:
    desired = [
        {"uid": uid, "owner": "Fault/bench/bench", "ownerUid": "0", "fault": "process.stop",
         "params": {"pid": pid}, "duration": "5m", "askedAt": time.time()}
        for uid, pid in zip(uids, pids, strict=True)
    ]  # fmt: skip
    client.patch(HOSTS, NODE, {"spec": {"desired": desired}})


def _round(client: Client, number: int, count: int) -> tuple[float, float]:
    """Milliseconds from the write of the Host to what it tells: effective, and gone."""
    victims = [subprocess.Popen(["sleep", "600"]) for _ in range(count)]
    uids = [f"b-{number}-{index}" for index in range(count)]
    try:
        begun = time.perf_counter()
        _want(client, *uids, pids=tuple(each.pid for each in victims))
        until(lambda: _all(client, uids, "effect", "effective"), "effective")
        effective = (time.perf_counter() - begun) * 1000
        begun = time.perf_counter()
        _want(client)
        until(lambda: _all(client, uids, "stage", "ended"), "recovered")
        return effective, (time.perf_counter() - begun) * 1000
    finally:
        for each in victims:
            each.kill()
            each.wait()


def _all(client: Client, uids: list[str], field: str, value: str) -> bool:
    told = _entries(client)
    return all(told.get(uid, {}).get(field) == value for uid in uids)


def _idle(pid: int, seconds: float, name: str) -> Measured:
    sizes = memory.process_memory(pid)
    mib = 1 << 20
    yield Figure(f"agent, {name}: resident memory", sizes.resident / mib, "MiB", "under 17 MiB")
    yield Figure(f"agent, {name}: proportional memory", sizes.proportional / mib, "MiB")
    before, begun = used(pid), time.monotonic()
    time.sleep(seconds)
    share = (used(pid) - before) / 1e9 / (time.monotonic() - begun) * 100
    words = f"over {seconds:g} s, with its lease renewed every 10 s"
    yield Figure(f"agent, {name}: processor time", share, "%", "under 0.1 %", words)
    after = memory.process_memory(pid).resident / mib
    yield Figure(f"agent, {name}: resident memory {seconds:g} s later", after, "MiB")


def measure(minutes: float = 1.0, rounds: int = 5) -> Measured:
    """All figures of the agent."""
    with server() as at, tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder:
        client = at.client()
        state = Path(folder) / "state"
        with agent(at, state) as pid:
            until(lambda: _told(client), "a Host that tells")
            time.sleep(SETTLED)
            yield from _idle(pid, minutes * 60, "idle since its start")
            cold: list[tuple[float, float]] = []
            warm: list[tuple[float, float]] = []
            for number in range(rounds):
                cold.append(_round(client, number, 1))
                warm.append(_round(client, 100 + number, 1))
                time.sleep(6)  # its helpers end
            many = _round(client, 1000, 30)
            yield median("agent, applied to effective, nothing loaded",
                         [one for one, _ in cold], "ms")  # fmt: skip
            yield median("agent, applied to effective, while at work",
                         [one for one, _ in warm], "ms")  # fmt: skip
            gone = [two for _, two in (*cold, *warm)]
            yield Figure("agent, taken out to proven absence", statistics.median(gone), "ms", "",
                         f"{min(gone):.4g} to {max(gone):.4g}", len(gone))  # fmt: skip
            yield Figure("agent, 30 faults: applied to all effective", many[0], "ms")
            yield Figure("agent, 30 faults: taken out to all proven absent", many[1], "ms")
            time.sleep(SETTLED)
            yield from _idle(pid, min(30.0, minutes * 60), "idle after 30 faults")
        client.close()


def _told(client: Client) -> bool:
    try:
        return "runtimes" in (client.get(HOSTS, NODE).get("status") or {})
    except ApiError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    sys.exit(alone(lambda: measure(given.minutes, given.rounds)))
