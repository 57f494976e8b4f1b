"""Leases that are kept for as long as their engine lives."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable

from faultline.errors import Conflict, UnknownName
from faultline.stores.model import Claimed, Filter, Lease, R, Store, StoreFailed, kind_name

TTL = 15.0
"""Seconds after which another engine may take over what one does not renew any more."""

_log = logging.getLogger(__name__)


def holder() -> str:
    """A name for this engine that no other one has, and that people can find it by."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Renewal:
    """Renews the leases of one engine from a thread of its own, three times before they end."""

    def __init__(self, store: Store, ttl: float = TTL) -> None:
        self.store = store
        self.ttl = ttl
        self.holder = holder()
        self._leases: dict[tuple[str, str], Lease] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun = False
        self.begin: Callable[[], None] = self._in_a_thread
        """How it is seen to that `renew` is called every third of the time that a lease lasts."""

    def take(self, kind: type[R], name: str) -> Claimed[R]:
        """Take one resource and keep it; raises Conflict if somebody else has it."""
        taken = self.claim(kind, 1, Filter(names=(name,)))
        if taken:
            return taken[0]
        if not self.store.summaries(kind, Filter(names=(name,), ended=False)):
            raise UnknownName(f"there is no {kind_name(kind)} {name!r} that has not ended")
        raise Conflict(
            f"{kind_name(kind)} {name!r} is held by another engine",
            holder=name,
            hint=f"an engine that died is taken over from after {self.ttl:g} s",
        )

    def claim(self, kind: type[R], limit: int, where: Filter | None = None) -> list[Claimed[R]]:
        """Take what is free and keep it."""
        taken = list(self.store.claim(kind, limit, self.holder, self.ttl, where))
        with self._lock:
            self._leases.update({(each.lease.kind, each.lease.name): each.lease for each in taken})
            first = bool(taken) and not self._begun
            self._begun = self._begun or first
        if first:
            self.begin()
        return taken

    def lease(self, kind: type[R], name: str) -> Lease | None:
        """The lease as it is now; None if it was lost or let go."""
        with self._lock:
            return self._leases.get((kind_name(kind), name))

    def release(self, kind: type[R], name: str) -> None:
        """Let somebody else have it."""
        with self._lock:
            lease = self._leases.pop((kind_name(kind), name), None)
        if lease is not None:
            self.store.release(lease)

    def close(self) -> None:
        """Let go of everything; what cannot be let go of ends by itself."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        held = list(self._leases.values())
        self._leases.clear()
        for lease in held:
            try:
                self.store.release(lease)
            except StoreFailed as error:
                _log.warning("%s %s could not be let go: %s", lease.kind, lease.name, error)

    def renew(self) -> None:
        """Renew once what is held; what somebody else has taken is held no more."""
        with self._lock:
            asked = dict(self._leases)
        try:
            kept = self.store.renew(list(asked.values()), self.ttl)
        except StoreFailed as error:  # the leases run on; the next look may come in time
            _log.warning("leases could not be renewed: %s", error)
            return
        renewed = {(lease.kind, lease.name): lease for lease in kept}
        with self._lock:
            for key, lease in asked.items():
                if self._leases.get(key) != lease:  # let go, or taken anew meanwhile
                    continue
                if key in renewed:
                    self._leases[key] = renewed[key]
                else:
                    del self._leases[key]
                    _log.warning("%s %s was taken over by another engine", *key)

    def _in_a_thread(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="faultline leases", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._ending.wait(self.ttl / 3):
            self.renew()
