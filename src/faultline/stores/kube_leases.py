"""Who carries out what, in Kubernetes: one Lease object per engine, and its name at each run.

A run names in an annotation the Lease object of the engine that has taken it, with a number that
grows. One write renews all that an engine has. An engine is dead when others have seen its Lease
unchanged for as long as it is to last, each by its own clock, which needs no two clocks to agree
(as the leader election of client-go does it). Whoever finds that deletes the Lease, if it is still
unchanged then: from then on that engine can renew nothing, and its runs are free. Its next Lease
has another name.
https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from faultline.kernel import clock
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.kubeapi.model import version_of as text_version
from faultline.stores.kube_documents import (
    FENCE,
    HOLDER,
    OURS,
    notes_of,
    pointer,
    time_text,
)
from faultline.stores.kube_rows import Row
from faultline.stores.model import Lease

LEASES = Kind("Lease", "leases", "coordination.k8s.io/v1")
_TTL = f"{OURS}ttl"  # seconds; the server keeps whole ones
_LOOKS = 4  # how often another engine's Lease is looked at while it lasts
_REQUEST = 5.0  # seconds that a renewal may take: the next one is to come in time


@dataclass(slots=True)
class Engine:
    """One that takes runs through this store."""

    holder: str
    name: str = ""  # of its Lease object; empty while it has none
    until_ns: int = 0  # CLOCK_BOOTTIME; until then nobody can have found it dead
    active: dict[str, int] = field(default_factory=dict[str, int])  # the fences that it has, by uid
    unreleased: list[Lease] = field(default_factory=list[Lease])
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Other:
    """What was seen of the Lease of another engine."""

    version: str
    since: float  # when it was first seen like that; this and the next on our monotonic clock
    looked: float
    lasts: float


class Leases:
    """The Lease objects of a namespace."""

    def __init__(self, connect: Callable[[], Client], namespace: str) -> None:
        self._connect = connect
        self._made: Client | None = None
        self._namespace = namespace
        self._engines: dict[str, Engine] = {}
        self._others: dict[str, _Other] = {}
        self._gone: set[str] = set()  # names are never used again
        self._lock = threading.Lock()
        self._looking = threading.Lock()

    @property
    def client(self) -> Client:
        """One of its own: a renewal must not wait until another request has its answer."""
        with self._lock:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def close(self) -> None:
        """Engines that hold nothing leave nothing behind."""
        for engine in self._engines.values():
            if engine.name and not engine.active:
                with suppress(ApiError):  # it ends by itself
                    self.client.delete(LEASES, engine.name, self._namespace)
        if self._made is not None:
            self._made.close()

    def sent(self) -> Client | None:
        """The client, if it was ever needed."""
        return self._made

    # ------------------------------------------------------------------ our own

    def engine(self, holder: str, ttl: float) -> Engine:
        """The engine of this name with a Lease that lasts; raises ApiError."""
        with self._lock:
            engine = self._engines.setdefault(holder, Engine(holder))
        with engine.lock:
            if not engine.name or engine.until_ns - clock.now() < ttl * 2e9 / 3:
                self._extend(engine, ttl)
        return engine

    def known(self, holder: str) -> Engine | None:
        return self._engines.get(holder)

    def lost(self, uid: str, fence: int) -> None:
        """Somebody else has it."""
        for engine in self._engines.values():
            if engine.active.get(uid) == fence:
                del engine.active[uid]

    def extend(self, engine: Engine, ttl: float) -> bool:
        """Renew all that it has; False if it has lost it all. Raises ApiError."""
        with engine.lock:
            if not engine.name:
                return False
            before = engine.name
            self._extend(engine, ttl)
            return engine.name == before

    def _extend(self, engine: Engine, ttl: float) -> None:
        until = clock.now() + int(ttl * 1e9)  # before it is sent
        if engine.name and not self._patched(engine, ttl):
            engine.name = ""  # somebody found it dead
            engine.active.clear()
        if not engine.name:
            self._create(engine, ttl)
        engine.until_ns = until

    def _patched(self, engine: Engine, ttl: float) -> bool:
        change = {"metadata": {"annotations": _notes(ttl)}, "spec": _spec(engine, ttl)}
        path = LEASES.path(self._namespace, engine.name)
        query, content = {"fieldManager": "faultline"}, "application/merge-patch+json"
        try:
            self.client.rest.request("PATCH", path, query, change, content, _REQUEST).json()
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _create(self, engine: Engine, ttl: float) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", engine.holder.lower()).strip("-")[:200] or "engine"
        name = f"{slug}-{secrets.token_hex(3)}"
        labels = {"app.kubernetes.io/name": "faultline", "app.kubernetes.io/component": "engine"}
        meta = {"name": name, "labels": labels, "annotations": _notes(ttl)}
        spec = {**_spec(engine, ttl), "acquireTime": time_text(time.time())}
        made = {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec,
        }  # fmt: skip
        self.client.create(LEASES, made, self._namespace)
        engine.name = name

    # ------------------------------------------------------------------ others

    def free(self, row: Row, holder: str) -> bool:
        """Whether it may be taken; raises ApiError."""
        if not row.holder:
            return True
        engine = self._engines.get(holder)
        if engine is not None and row.holder == engine.name:
            # An answer that was lost, or a release that did not get through.
            return engine.active.get(row.summary.uid) != row.fence
        with self._looking:
            return self._dead(row.holder)

    def _dead(self, name: str) -> bool:
        if name in self._gone:
            return True
        now = time.monotonic()
        other = self._others.get(name)
        if other is not None and now < min(
            other.since + other.lasts, other.looked + other.lasts / _LOOKS
        ):
            return False
        raw = self._read(name)
        if raw is None:
            return self._bury(name)
        version, now = text_version(raw), time.monotonic()
        if other is None or other.version != version:
            self._others[name] = _Other(version, now, now, _lasts(raw))
            return False
        other.looked = now
        if now - other.since < other.lasts or not self._delete(name, version):
            return False
        return self._bury(name)

    def _bury(self, name: str) -> bool:
        self._gone.add(name)
        self._others.pop(name, None)
        return True

    def _read(self, name: str) -> Object | None:
        try:
            return self.client.get(LEASES, name, self._namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _delete(self, name: str, version: str) -> bool:
        """Whether it is gone, and was as we saw it."""
        options = {"preconditions": {"resourceVersion": version}}
        path = LEASES.path(self._namespace, name)
        try:
            self.client.rest.request("DELETE", path, None, options).json()
        except ApiError as error:
            if error.status in (404, 409):
                return error.status == 404
            raise
        return True


def _notes(ttl: float) -> dict[str, str]:
    return {_TTL: repr(ttl)}


def _spec(engine: Engine, ttl: float) -> Object:
    return {
        "holderIdentity": engine.holder,
        "leaseDurationSeconds": max(1, math.ceil(ttl)),
        "renewTime": time_text(time.time()),
    }


def _lasts(raw: Object) -> float:
    told = notes_of(raw).get(_TTL)
    try:
        return float(told or raw.get("spec", {}).get("leaseDurationSeconds") or 0)
    except ValueError:
        return 15.0


# ---------------------------------------------------------------------- at the run


def taken(engine: Engine, row: Row) -> Object:
    """The merge patch by which an engine takes a run, if it is still as in this row."""
    notes = {HOLDER: engine.name, FENCE: str(row.fence + 1)}
    return {"metadata": {"resourceVersion": str(row.summary.version), "annotations": notes}}


def let_go(lease: Lease) -> list[Object]:
    """The JSON patch by which a run is let go; the server refuses it if somebody else has it."""
    return [fenced(lease.fence), {"op": "remove", "path": pointer(HOLDER)}]


def fenced(fence: int) -> Object:
    """The part of a JSON patch that makes the server refuse it once somebody else has the run."""
    return {"op": "test", "path": pointer(FENCE), "value": str(fence)}


def kept(leases: Sequence[Lease], engine: Engine, rows: dict[tuple[str, str], Row]) -> list[Lease]:
    """Those that the engine still has, by what stands at the runs."""
    found: list[Lease] = []
    for lease in leases:
        row = rows.get((lease.kind, lease.name))
        ours = row is not None and (row.holder, row.fence) == (engine.name, lease.fence)
        if ours and engine.active.get(lease.uid) == lease.fence:
            found.append(replace(lease, until_ns=engine.until_ns))
    return found
