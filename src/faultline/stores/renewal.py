"""Leases that are kept for as long as their engine lives."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading

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
            if taken and self._thread is None:
                self._thread = threading.Thread(
                    target=self._renew, name="faultline leases", daemon=True
                )
                self._thread.start()
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
        """Let go of everything."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        for lease in list(self._leases.values()):
            self.store.release(lease)
        self._leases.clear()

    def _renew(self) -> None:
        while not self._ending.wait(self.ttl / 3):
            with self._lock:
                asked = dict(self._leases)
            try:
                kept = self.store.renew(list(asked.values()), self.ttl)
            except StoreFailed as error:  # the leases run on; the next look may come in time
                _log.warning("leases could not be renewed: %s", error)
                continue
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
