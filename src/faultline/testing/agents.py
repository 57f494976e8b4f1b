"""Simulated agents: hosts that say over the API that they suffer what they are asked to, and suffer
nothing. For tests and figures of what is above them.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, Rest, metadata
from faultline.units import Duration

HOSTS = Kind("Host", "hosts", "faultline.dev/v1alpha1", namespaced=False)
LEASES = Kind("Lease", "leases", "coordination.k8s.io/v1")


@dataclass
class Simulated:
    """One of them."""

    name: str
    generation: int = 0
    desired: list[Object] = field(default_factory=list[Object])
    halted: str = ""
    actual: dict[str, Object] = field(default_factory=dict[str, Object])  # by uid
    silent: bool = False  # it is cut off, or dead
    deaf: bool = False  # it renews its lease and does nothing else
    sent: list[Object] = field(default_factory=list[Object])
    sent_generation: int = -1


class Agents:
    """Some hosts. A context manager; their leases are renewed as long as it is open."""

    def __init__(
        self,
        connect: Callable[[], Rest],
        names: Sequence[str],
        namespace: str,
        lease: float = 15.0,
        writers: int = 2,
    ) -> None:
        self.hosts = {name: Simulated(name) for name in names}
        self.requests = 0  # without those for leases
        self.effect = "effective"
        self.values: dict[str, float] = {}  # what was `asked` and `measured`
        self._connect, self._namespace, self._lease = connect, namespace, lease
        self._stop = threading.Event()
        self._due: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._queued: set[str] = set()
        self._ends: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        works = [self._watch, self._renew, self._wait, *([self._write] * writers)]
        self._threads = [threading.Thread(target=each, daemon=True) for each in works]

    def __enter__(self) -> Agents:
        client = self._client()
        for name in self.hosts:
            made = {"apiVersion": HOSTS.version, "kind": "Host", "metadata": {"name": name}}
            try:
                client.create(HOSTS, {**made, "spec": {}})
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
            self._beat(client, name)
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.close()
        for each in self._threads:
            each.join(10)

    def suffering(self) -> int:
        """How many faults are there."""
        with self._lock:
            return sum(
                e["stage"] == "active" for h in self.hosts.values() for e in h.actual.values()
            )

    def _client(self) -> Client:
        self._clients.append(Client(self._connect()))
        return self._clients[-1]

    # ------------------------------------------------------------------ threads

    def _watch(self) -> None:
        client = self._client()
        while not self._stop.is_set():
            try:
                for seen in client.watch(HOSTS, self._stop):
                    host = self.hosts.get(str(metadata(seen.object).get("name")))
                    if seen.type == "put" and host is not None:
                        self._hear(host, seen.object)
            except ApiError:
                self._stop.wait(0.2)

    def _renew(self) -> None:
        client = self._client()
        while not self._stop.wait(self._lease / 3):
            for name, host in self.hosts.items():
                if host.silent or self._stop.is_set():
                    continue
                try:
                    self._beat(client, name)
                except ApiError:
                    continue

    def _wait(self) -> None:
        """Deadlines, and hosts that were silent."""
        while not self._stop.wait(0.05):
            with self._lock:
                while self._ends and self._ends[0][0] <= time.time():
                    _, name, uid = heapq.heappop(self._ends)
                    host = self.hosts[name]
                    entry = host.actual.get(uid)
                    if entry is not None and entry["stage"] == "active":
                        self._end(host, entry)

    def _write(self) -> None:
        client = self._client()
        while not self._stop.is_set():
            try:
                name = self._due.get(timeout=0.2)
            except queue.Empty:
                continue
            host = self.hosts[name]
            with self._lock:
                self._queued.discard(name)
                actual = [dict(entry) for entry in host.actual.values()]
                generation = host.generation
                if host.silent or (actual, generation) == (host.sent, host.sent_generation):
                    continue
                host.sent, host.sent_generation = actual, generation
                self.requests += 1
            change = {"status": {"actual": actual, "observedGeneration": generation}}
            try:
                client.patch(HOSTS, name, change, part="status")
            except ApiError:
                host.sent_generation = -1
                self._later(host)
                self._stop.wait(0.1)

    def _beat(self, client: Client, name: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        spec = {"holderIdentity": name, "leaseDurationSeconds": round(self._lease),
                "renewTime": now}  # fmt: skip
        lease = {"apiVersion": LEASES.version, "kind": "Lease",
                 "metadata": {"name": f"agent-{name}"}, "spec": spec}  # fmt: skip
        client.patch(LEASES, f"agent-{name}", lease, "apply", namespace=self._namespace, force=True)

    # ------------------------------------------------------------------ what an agent does

    def _hear(self, host: Simulated, found: Object) -> None:
        spec = cast(Object, found.get("spec") or {})
        with self._lock:
            host.generation = int(metadata(found).get("generation") or 0)
            host.desired = cast("list[Object]", spec.get("desired") or [])
            host.halted = str(spec.get("halted") or "")
            if not host.silent and not host.deaf:
                self._act(host)

    def answer_again(self, name: str) -> None:
        """A host that was silent is back: it has undone everything meanwhile."""
        host = self.hosts[name]
        with self._lock:
            host.silent = host.deaf = False
            for entry in host.actual.values():
                if entry["stage"] == "active":
                    entry.update(stage="ended", end="recovered", endedAt=time.time())
            self._act(host)

    def _act(self, host: Simulated) -> None:
        wanted = {str(each["uid"]): each for each in host.desired}
        for uid, each in wanted.items():
            entry = host.actual.get(uid)
            leave = bool(each.get("undo")) or bool(host.halted)
            if entry is None:
                host.actual[uid] = self._begun(host, uid, each, leave=leave)
            elif leave and entry["stage"] == "active":
                self._end(host, entry)
        for uid in host.actual.keys() - wanted.keys():
            del host.actual[uid]
        self._later(host)

    def _begun(self, host: Simulated, uid: str, each: Object, *, leave: bool) -> dict[str, Any]:
        now = time.time()
        length = int(Duration.parse(each.get("duration", "10m"))) / 1e9
        if leave or now > float(each["askedAt"]) + length:
            return {"uid": uid, "stage": "refused", "error": "it is not to begin"}
        heapq.heappush(self._ends, (now + length, host.name, uid))
        told = {"text": "asked 100 ms, measured 100.2 ms", **self.values}
        return {"uid": uid, "stage": "active", "effect": self.effect, "injectedAt": now,
                "effectiveAt": now, **told}  # fmt: skip

    def _end(self, host: Simulated, entry: Object) -> None:
        entry.update(stage="ended", end="recovered", endedAt=time.time())
        self._later(host)

    def _later(self, host: Simulated) -> None:
        if host.name not in self._queued:
            self._queued.add(host.name)
            self._due.put(host.name)
