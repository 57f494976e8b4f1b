"""Who leads: one of several operators, by a Lease.

A holder is dead when its Lease has not changed for as long as it lasts, by the clock of whoever
looks: the times that stand in it are of another clock. Who cannot renew stops leading before others
may think so.
https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, version_of

LEASES = Kind("Lease", "leases", "coordination.k8s.io/v1")
NAME = "faultline-operator"
_log = logging.getLogger(__name__)


@dataclass
class Leader:
    """One candidate; `leads` is true while it may act."""

    client: Client
    namespace: str
    identity: str
    lasts: float = 15.0
    every: float = 4.0
    changed: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    _until: float = 0.0  # by our own clock
    _seen: tuple[str, float] = ("", 0.0)  # version of the Lease, and when it was seen first
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def leads(self) -> bool:
        return self.clock() < self._until

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let go of the Lease, so that another one need not wait."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        if self.leads:
            self._until = 0.0
            try:
                held = self.client.get(LEASES, NAME, self.namespace)
                spec: dict[str, Any] = held.get("spec") or {}
                if spec.get("holderIdentity") == self.identity:
                    held["spec"] = {**spec, "holderIdentity": ""}
                    self.client.replace(LEASES, held)
            except ApiError as error:
                _log.warning("the lease ends by itself: %s", error.message)
        self.client.close()

    def _keep(self) -> None:
        while not self._stop.is_set():
            led = self.leads
            try:
                self.step()
            except ApiError as error:
                if error.reason not in ("Conflict", "AlreadyExists"):
                    _log.warning("the lease: %s", error.message)
            if self.leads != led:
                _log.info("%s %s", self.identity, "leads" if self.leads else "does not lead")
                self.changed()
            self._stop.wait(self.every if self.leads else self.every / 2)

    def step(self) -> None:
        """Take it, renew it, or see that another one has it; raises ApiError."""
        sent = self.clock()
        try:
            found = self.client.get(LEASES, NAME, self.namespace)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            self.client.create(LEASES, self._made({}), self.namespace)
            self._until = sent + self.lasts * 0.7
            return
        spec: dict[str, Any] = found.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        if self._seen[0] != version_of(found):
            self._seen = (version_of(found), self.clock())
        lasts = float(spec.get("leaseDurationSeconds") or self.lasts)
        if holder not in ("", self.identity) and self.clock() - self._seen[1] < lasts:
            self._until = 0.0
            return
        self.client.replace(LEASES, self._made(found))
        self._until = sent + self.lasts * 0.7

    def _made(self, found: Object) -> Object:
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"
        spec: dict[str, Any] = found.get("spec") or {}
        ours = spec.get("holderIdentity") == self.identity
        return {
            "apiVersion": LEASES.version,
            "kind": LEASES.kind,
            "metadata": found.get("metadata") or {"name": NAME, "namespace": self.namespace},
            "spec": {
                **spec,
                "holderIdentity": self.identity,
                "leaseDurationSeconds": round(self.lasts),
                "renewTime": stamp,
                "acquireTime": spec.get("acquireTime") if ours else stamp,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not ours),
            },
        }
