"""Taking, keeping and letting go of runs in Kubernetes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from faultline.errors import InvalidDocument
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.stores import kube_documents as objects
from faultline.stores.kube_calls import kind_of
from faultline.stores.kube_leases import Engine, kept, let_go, taken
from faultline.stores.kube_rows import Row
from faultline.stores.kube_rows import row as row_of
from faultline.stores.model import Claimed, Filter, Lease, R

if TYPE_CHECKING:
    from faultline.api.model import Resource
    from faultline.stores.kube import KubeStore

FEW = 4  # resources that are asked for one by one; of more, all are listed
_log = logging.getLogger(__name__)


def claim(
    store: KubeStore, kind: type[R], limit: int, holder: str, ttl: float, where: Filter
) -> list[Claimed[R]]:
    """Take what is free, oldest first; raises ApiError."""
    named = kind_of(kind)
    found: list[Claimed[R]] = []
    if limit <= 0:
        return found
    rows = store.rows(kind, replace(where, ended=False))
    for row in sorted(rows, key=lambda each: each.order):
        if len(found) >= limit:
            break
        raw = _taken(store, named, row, holder, ttl)
        if raw is not None:
            made = _claimed(store, kind, raw, holder)
            if made is not None:
                found.append(made)
    return found


def _taken(store: KubeStore, kind: Kind, row: Row, holder: str, ttl: float) -> Object | None:
    """The object as it is after it was taken; None if somebody has it. What is known of it may be
    old: then it is looked at once more.
    """
    for again in (True, False):
        if row.incomplete or row.summary.ended is not None or not store.leases.free(row, holder):
            return None
        engine = store.leases.engine(holder, ttl)
        name = row.summary.name
        try:
            raw = store.client.patch(kind, name, taken(engine, row), namespace=store.namespace)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            if error.status == 404 or not again:
                return None
            row = row_of(kind.kind, store.raw(kind, name))
        else:
            engine.active[row.summary.uid] = objects.fence_of(raw)
            store.learn(kind.kind, raw)
            return raw
    return None


def _claimed(store: KubeStore, kind: type[R], raw: Object, holder: str) -> Claimed[R] | None:
    """What was taken, as it is now; None for what our models refuse: nobody can carry it out."""
    from faultline.stores.series import has_some

    fence, uid = objects.fence_of(raw), objects.uid_of(raw)
    engine = store.leases.known(holder)
    until = engine.until_ns if engine is not None else 0
    lease = Lease(kind_of(kind).kind, objects.name_of(raw), uid, holder, fence, until)
    try:
        store.flusher.drop(raw)
        if raw.get("status") and has_some(kind):
            made, _ = store.from_log(kind, raw, fence)
        else:
            made = objects.resource(kind, raw)
            store.flusher.keep(kind_of(kind), raw, fence, {})
    except InvalidDocument as error:
        store.refuse(raw, error)
        _refused(store, kind, raw, error)
        release(store, lease)
        return None
    store.held[uid] = fence
    return Claimed(made, lease)


def _refused(store: KubeStore, kind: type[Resource], raw: Object, error: InvalidDocument) -> None:
    """Tell where people look that it will never run. What has begun already is left as it is: an
    engine of another version may know what to do with it.
    """
    status = cast(Object, raw.get("status") or {})
    if kind_of(kind).kind != "Run" or status.get("started") is not None:
        return
    told = {"phase": "ended", "verdict": "error", "reason": error.message, "ended": time.time()}
    patch = [
        objects.at_version(objects.version_of(raw)),
        {"op": "add", "path": "/status", "value": told},
    ]
    name = objects.name_of(raw)
    try:
        raw = store.client.patch(
            kind_of(kind), name, patch, "json", namespace=store.namespace, part="status"
        )
        store.learn("Run", raw)
    except ApiError as other:
        _log.warning("run %s cannot be told that it is not valid: %s", name, other.message)


def renew(store: KubeStore, leases: Sequence[Lease], ttl: float) -> list[Lease]:
    """Keep what is still ours; raises ApiError."""
    found: list[Lease] = []
    for holder in {lease.holder for lease in leases}:
        engine = store.leases.known(holder)
        ours = [lease for lease in leases if lease.holder == holder]
        if engine is None or not store.leases.extend(engine, ttl):
            continue
        _let_go_late(store, engine)
        found += kept(ours, engine, _rows(store, ours))
    return found


def _let_go_late(store: KubeStore, engine: Engine) -> None:
    """What could not be let go of when it was to be."""
    for lease in tuple(engine.unreleased):
        engine.unreleased.remove(lease)
        try:
            release(store, lease)
        except ApiError:
            return


def _rows(store: KubeStore, leases: Sequence[Lease]) -> dict[tuple[str, str], Row]:
    """What stands at these now."""
    from faultline.api.kinds import KINDS

    found: dict[tuple[str, str], Row] = {}
    for named in {lease.kind for lease in leases}:
        names = tuple(lease.name for lease in leases if lease.kind == named)
        single = [Filter(names=(name,)) for name in names]
        few = len(names) <= FEW or store.cache is not None
        for where in single if few else [Filter(names=names)]:
            for row in store.rows(KINDS[named], where):
                found[named, row.summary.name] = row
    return found


def release(store: KubeStore, lease: Lease) -> None:
    """Let somebody else have it; raises ApiError where the server does not answer."""
    from faultline.api.kinds import KINDS

    engine = store.leases.known(lease.holder)
    if engine is not None and engine.active.get(lease.uid) == lease.fence:
        del engine.active[lease.uid]
    kind = kind_of(KINDS[lease.kind])
    try:
        raw = store.client.patch(kind, lease.name, let_go(lease), "json", namespace=store.namespace)
    except ApiError as error:
        if error.refused and error.status not in (401, 403, 429):
            return  # it has gone, or somebody else has it
        if engine is not None:
            engine.unreleased.append(lease)
        raise
    store.learn(lease.kind, raw)
