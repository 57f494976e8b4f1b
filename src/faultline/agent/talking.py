"""The three conversations with the API server, a thread each: what is wanted, what is, the lease.

Each goes on by itself when the server does not answer, with pauses that grow and are never the same
on two nodes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faultline.agent.model import LEASE, Document
from faultline.changes import lease
from faultline.kernel import clock
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind
from faultline.kubeapi.plain import Access, Plain

HOSTS = Kind("Host", "hosts", "faultline.dev/v1alpha1", namespaced=False)
LEASES = Kind("Lease", "leases", "coordination.k8s.io/v1")
BETWEEN = 1.0  # seconds between two writes of the status, in the long run
BURST = 5  # writes that may come sooner after one another, when there were none for a while
GATHER = 0.05  # seconds in which what changes together is gathered into one write
LONGEST = 30.0  # seconds of a pause after errors

Say = Callable[[str], None]


class Pauses:
    """Pauses that grow with each failure, from half of what they could be to all of it."""

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._failures = 0

    def ended(self) -> None:
        """It worked."""
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        self._failures += 1
        whole = min(self._longest, 0.5 * 2 ** min(self._failures, 10))
        return whole * random.uniform(0.5, 1.0)


class Watcher:
    """What the host should suffer: its own object, made if there is none."""

    def __init__(self, access: Access, node: str, heard: Callable[[Document | None], None],
                 say: Say) -> None:  # fmt: skip
        self._client = Client(Plain(access))
        self._node, self._heard, self._say = node, heard, say
        self.stop = threading.Event()

    def again(self) -> None:
        """Begin anew: the connection may be dead without anybody having said so."""
        self._client.close()

    def run(self) -> None:
        pauses = Pauses()
        while not self.stop.is_set():
            try:
                self._watch(pauses)
            except ApiError as error:
                self._say(f"what is wanted cannot be read: {error.message}")
                self.stop.wait(pauses.next())

    def _watch(self, pauses: Pauses) -> None:
        there = False
        for seen in self._client.watch(HOSTS, self.stop, fields=f"metadata.name={self._node}"):
            pauses.ended()
            if seen.type == "put":
                there = True
                self._heard(seen.object)
            elif seen.type == "deleted" or not there:
                there = False
                self._heard(None)
                self._make()

    def _make(self) -> None:
        made: Document = {
            "apiVersion": HOSTS.version,
            "kind": HOSTS.kind,
            "metadata": {"name": self._node},
            "spec": {},
        }
        try:
            self._client.create(HOSTS, made)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


class Budget:
    """How often something may be done: BURST times at once, then every BETWEEN seconds."""

    def __init__(self) -> None:
        self._free_at = 0.0  # when the budget is whole again

    def spend(self) -> float:
        """Take one; the seconds to wait before it may be used."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + BETWEEN
        return max(0.0, self._free_at - now - BURST * BETWEEN)


class Writer:
    """What the host suffers: only what has changed, and not more often than there is budget for."""

    def __init__(self, access: Access, node: str, say: Say) -> None:
        self._client = Client(Plain(access))
        self._node, self._say = node, say
        self._changed = threading.Condition()
        self._wanted: Document = {}
        self._sent: Document = {}
        self._stopping = False

    def knows(self, status: Document) -> None:
        """What the server has, of an object that was met anew."""
        with self._changed:
            self._sent = dict(status)
            self._changed.notify()

    def want(self, status: Document) -> None:
        """What it should have."""
        with self._changed:
            self._wanted = status
            if self._due():
                self._changed.notify()

    def _due(self) -> Document:
        return {k: v for k, v in self._wanted.items() if self._sent.get(k) != v}

    @property
    def done(self) -> bool:
        """Whether the server has all of it."""
        with self._changed:
            return not self._due()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        pauses, budget = Pauses(), Budget()
        while not self._stopping:
            with self._changed:
                while not self._due() and not self._stopping:
                    self._changed.wait()
            time.sleep(GATHER + budget.spend())
            with self._changed:
                due = self._due()
            if not due:
                continue
            try:
                # An empty text would be taken for null by servers of 1.20, and then refused.
                change = {k: v if v != "" else None for k, v in due.items()}
                self._client.patch(HOSTS, self._node, {"status": change}, part="status")
            except ApiError as error:
                if error.reason != "NotFound":  # it is just being made again
                    self._say(f"what is cannot be written: {error.message}")
                time.sleep(pauses.next())
                continue
            pauses.ended()
            with self._changed:
                self._sent.update(due)


class Renewer:
    """The lease: how long ago the server has last heard of us, by our own clock.

    It counts from before the request was sent. Keepers read it in memory, so that faults end with
    it whatever has become of this process.
    """

    def __init__(self, access: Access, node: str, namespace: str, run: Path, duration: float,
                 interval: float, say: Say) -> None:  # fmt: skip
        self._client = Client(Plain(access))
        self._name, self._namespace, self._run = f"agent-{node}", namespace, run
        self._duration, self._interval, self._say = duration, interval, say
        self._holder = f"{node}_{clock.boot_id()[:8]}_{random.getrandbits(32):08x}"
        self.back: Callable[[], None] = lambda: None  # the server answers again
        self.stop = threading.Event()
        self.until = self._left()

    def _left(self) -> int:
        """What an agent before us has left; never more than a lease is long."""
        last = lease.Lease(self._run, LEASE)
        until = last.until()
        last.close()
        return until if until <= clock.now() + round(self._duration * 1e9) else 0

    @property
    def holds(self) -> bool:
        return clock.now() < self.until

    def run(self) -> None:
        pauses, failed = Pauses(self._interval / 2), False
        while not self.stop.is_set():
            sent = clock.now()
            try:
                self._renew()
            except ApiError as error:
                self._say(f"the lease cannot be renewed: {error.message}")
                failed = True
                self.stop.wait(pauses.next())
                continue
            pauses.ended()
            back, failed = failed or not self.holds, False
            self.until = sent + round(self._duration * 1e9)
            try:
                lease.renew(self._run, LEASE, self.until)
            except OSError as error:
                self._say(f"the keepers cannot be told of the lease: {error}")
            if back:
                self.back()
            self.stop.wait(self._interval * random.uniform(0.9, 1.1))

    def _renew(self) -> None:
        now = time.time()
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        spec: Document = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "renewTime": f"{seconds}.{int(now % 1 * 1e6):06d}Z",
        }
        # An answer that comes later than this is of no use.
        patience = max(1.0, self._duration / 4)
        path = LEASES.path(self._namespace, self._name)
        try:
            self._client.rest.request(
                "PATCH", path, None, {"spec": spec}, "application/merge-patch+json", patience
            ).json()
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            made: Document = {
                "apiVersion": LEASES.version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": {**spec, "acquireTime": spec["renewTime"]},
            }
            self._client.create(LEASES, made, self._namespace)

    def let_go(self) -> None:
        """We end: whoever looks for a holder finds none."""
        gone: Document = {"spec": {"holderIdentity": None}}
        with suppress(ApiError):
            self._client.patch(LEASES, self._name, gone, namespace=self._namespace)
