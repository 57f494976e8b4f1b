"""A duty of a few agents: webhook configurations of faults of admission are removed when they are
overdue, or when the operator that answers for them is lost.

A configuration that fails requests when nobody answers outlives an operator that was killed. So an
agent asks every few seconds which there are; with every answer it hears that it is still connected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from faultline.agent.model import Document
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, version_of
from faultline.kubeapi.plain import Access, Plain

if TYPE_CHECKING:
    from faultline.agent.talking import Say

LEASE = "faultline-operator"
LEASES = Kind("Lease", "leases", "coordination.k8s.io/v1")
EVERY = 5.0  # seconds between two looks
LATE = 15.0  # seconds beyond the lease of the operator in which another one may take over


class Warden:
    """The duty of one agent; a thread of its own, which waits while it has none."""

    def __init__(
        self, access: Access, namespace: str, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._access, self._namespace, self._say, self._clock = access, namespace, say, clock
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._seen: tuple[str, float] = ("", clock())  # the lease, and since when it is so
        self.every = EVERY

    def duty(self, *, wanted: bool) -> None:
        """Whether this agent has it from now on."""
        if wanted and self._thread is None:
            self._stop = threading.Event()
            self._seen = ("", self._clock())
            self._thread = threading.Thread(target=self._run, args=(self._stop,), daemon=True)
            self._thread.start()
        elif not wanted and self._thread is not None:
            self._stop.set()
            self._thread = None

    def _run(self, stop: threading.Event) -> None:
        client, failed = Client(Plain(self._access)), False
        while not stop.is_set():
            try:
                self.look(client)
                failed = False
            except ApiError as error:
                if not failed:  # once: the agent says by itself that the server does not answer
                    self._say(f"webhook configurations cannot be read: {error.message}")
                failed = True
            stop.wait(self.every)
        client.close()

    def look(self, client: Client) -> list[str]:
        """Remove what is to go now; the names of what was removed. Raises ApiError."""
        from faultline.kubefaults import webhooks  # only those with the duty load it

        found = list(webhooks.standing(client))
        if not found:
            self._seen = ("", self._clock())
            return []
        lost = self._lost(client)
        gone: list[str] = []
        for each in found:
            if (each.overdue or lost) and webhooks.remove(client, each):
                why = "its time is over" if each.overdue else "the operator is lost"
                self._say(f"{each.kind.kind} {each.name} of {each.fault} is removed: {why}")
                gone.append(each.name)
        return gone

    def _lost(self, client: Client) -> bool:
        """Whether the lease of the operator has not changed for longer than it lasts."""
        try:
            lease = client.get(LEASES, LEASE, self._namespace)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            lease = {}
        spec: Document = lease.get("spec") or {}
        lasts = float(spec.get("leaseDurationSeconds") or 15)
        if self._seen[0] != version_of(lease):
            self._seen = (version_of(lease), self._clock())
        return self._clock() - self._seen[1] > lasts + LATE
