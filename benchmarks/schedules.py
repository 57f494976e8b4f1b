"""How quickly 1,000 Schedules of a cluster are reconciled: KubeStore on a real API server (its etcd
does not wait for the disk), as the operator that leads does it.

python -m benchmarks.schedules
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.kube.apiserver import Server, running
from tests.kube.programs import program

from benchmarks.figure import Figure, Measured, NotHere, alone, median, timed
from faultline.api.run import Run
from faultline.api.schedule import Schedule
from faultline.engine.schedules import Schedules
from faultline.kube.crds import crd
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Kind
from faultline.kubeapi.plain import Plain
from faultline.operator.running.bounds import check_fault
from faultline.stores.kube import KubeStore

SCHEDULES = 1_000
TIMES = 15
THREADS = 8
HOUR = 3600.0
SPACE = "default"
VERSION = "faultline.dev/v1alpha1"
KINDS = ("Run", "Schedule", "Calendar", "Experiment")
_CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1", False
)
_SELECTOR: dict[str, Any] = {"pods": {"labels": {"app": "web"}}}
_EXPERIMENT: dict[str, Any] = {
    "title": "the web is slow",
    "hypothesis": {"text": "nobody notices", "probes": ["up"]},
    "probes": [{"name": "up", "type": "tcp", "host": "web", "port": 80}],
    "faults": [{"name": "slow", "fault": "network.delay", "params": {"latency": "100ms"},
                "duration": "1m", "selector": _SELECTOR}],
}  # fmt: skip


def measure() -> Measured:
    """One server, one namespace."""
    if not (program("kube-apiserver") and program("etcd")):
        raise NotHere("there is no kube-apiserver and etcd here")
    with (
        tempfile.TemporaryDirectory(prefix="faultline-bench-") as name,
        running(Path(name)) as server,
    ):
        _prepare(server)
        access = server.access()
        with KubeStore(lambda: Plain(access), SPACE, cached=True) as store:
            yield from _measured(store)


def _measured(store: KubeStore) -> Measured:
    schedules = Schedules(store, check_fault)
    now, sent = time.time(), store.requests
    first = timed(lambda: schedules.step(now))
    named = f"schedules: {SCHEDULES} in Kubernetes,"
    yield Figure(f"{named} first look, each written", first / 1000, "s")
    per = (store.requests - sent) / SCHEDULES
    yield Figure(f"{named} requests for each at the first look", per, "", "under 2")
    quiet = [timed(partial(schedules.step, now + 1 + each)) for each in range(TIMES)]
    yield median(f"{named} a look with nothing due", quiet, "ms", "under 100 ms")
    edited = _edited(store, schedules, now)
    yield median(f"{named} one is edited and reconciled", edited, "ms", "under 1 s")
    due = _begin() + HOUR
    schedules.step(due - 5)  # as an engine that looks all the time
    sent, due = store.requests, due + 1
    took = timed(lambda: schedules.step(due)) / 1000
    made = store.count(Run)
    if made != SCHEDULES:
        raise NotHere(f"{made} runs were made, not {SCHEDULES}")
    yield Figure(f"{named} all due at once: until every run is there", took, "s")
    per = (store.requests - sent) / SCHEDULES
    yield Figure(f"{named} all due at once: requests for each", per, "", "under 6")


@cache
def _begin() -> float:
    """The instant from which all of them count."""
    return float(round(time.time()))


def _edited(store: KubeStore, schedules: Schedules, now: float) -> list[float]:
    """Milliseconds from the write of a spec until the status says that it was seen."""
    found: list[float] = []
    for number in range(TIMES):
        read = store.get(Schedule, f"s{number}")
        spec = read.spec.model_copy(update={"parameters": {"number": number}})
        begun = time.perf_counter()
        store.update(read.model_copy(update={"spec": spec}))
        schedules.step(now + 2 * TIMES + number)
        found.append((time.perf_counter() - begun) * 1000)
    return found


def _prepare(server: Server) -> None:
    with closing(server.client()) as client:
        for kind in KINDS:
            made = crd(kind)
            client.patch(_CRDS, made["metadata"]["name"], made, "apply")
            path = f"/apis/{VERSION}/{made['spec']['names']['plural']}"
            while client.rest.request("GET", path).status != 200:
                time.sleep(0.1)
        number = {"number": {"type": "integer", "default": 0}}
        made = {**_EXPERIMENT, "parameters": number}
        _create(client, "Experiment", "experiments", "slow", made)
    anchor = datetime.fromtimestamp(_begin(), UTC).isoformat()
    spec = {"experiment": {"name": "slow"}, "when": {"every": "1h", "anchor": anchor}}
    clients = [server.client() for _ in range(THREADS)]

    def create(number: int) -> None:
        client = clients[number % THREADS]
        _create(client, "Schedule", "schedules", f"s{number}", spec)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(create, range(SCHEDULES)))
    for each in clients:
        each.close()


def _create(client: Client, kind: str, plural: str, name: str, spec: dict[str, Any]) -> None:
    made = {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    client.create(Kind(kind, plural, VERSION), made, SPACE)


if __name__ == "__main__":
    raise SystemExit(alone(measure))
