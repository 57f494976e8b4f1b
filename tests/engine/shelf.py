"""A store in memory with the promises of the real ones, for thousands of runs in seconds.

`Shelf` is the server and what lies there; `Connection` is what an engine has of it. That it behaves
like the databases is checked by the same model that they are checked by (test_shelf.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from faultline.errors import UnknownName
from faultline.kernel import clock
from faultline.stores.model import Claimed, Event, Exists, Fenced, Filter, Lease, Stale, Summary

Key = tuple[str, str]
KEPT = 4
"""How many versions of a resource a reader that lags may still see."""


@dataclass
class Taken:
    """A lease as the server knows it."""

    fence: int = 0
    holder: str | None = None
    expires: float = 0.0


@dataclass
class Shelf:
    """What lies in the store."""

    now: Callable[[], float] = lambda: 0.0  # by which leases end, in seconds
    wall: Callable[[], float] = lambda: 0.0  # seconds since 1970
    kept: dict[Key, Any] = field(default_factory=dict[Key, Any])
    taken: dict[Key, Taken] = field(default_factory=dict[Key, Taken])
    versions: dict[Key, list[tuple[float, Any]]] = field(
        default_factory=dict[Key, list[tuple[float, Any]]]
    )
    gone: dict[Key, int] = field(default_factory=dict[Key, int])
    version: int = 0

    def put(self, resource: Any, before: Any, **meta: Any) -> Any:
        self.version += 1
        changed = {"resource_version": self.version, **meta}
        made = resource.model_copy(
            update={"metadata": resource.metadata.model_copy(update=changed)}
        )
        key = (made.kind, made.metadata.name)
        self.kept[key] = made
        if before is not None:
            past = self.versions.setdefault(key, [])
            past.append((self.now(), before))
            del past[:-KEPT]
        return made

    def row(self, kind: str, name: str) -> Any:
        try:
            return self.kept[kind, name]
        except KeyError:
            raise UnknownName(f"there is no {kind} {name!r}") from None

    def older(self, kind: str, name: str, most: float) -> list[Any]:
        """What was there until less than so many seconds ago, oldest first."""
        past = self.versions.get((kind, name), [])
        return [each for until, each in past if self.now() - until < most]


def named(kind: Any) -> str:
    return kind if isinstance(kind, str) else kind.__name__


def matches(where: Filter, run: Any) -> bool:
    meta = run.metadata
    over = getattr(getattr(run, "status", None), "ended", None) is not None
    return (
        (not where.names or meta.name in where.names)
        and where.labels.items() <= meta.labels.items()
        and where.ended in (None, over)
    )


def summary(one: Any) -> Summary:
    meta, status = one.metadata, getattr(one, "status", None)
    return Summary(
        one.kind, meta.name, meta.uid, meta.resource_version, meta.creation_timestamp or 0.0,
        getattr(status, "started", None), getattr(status, "ended", None),
        getattr(one.spec, "experiment", ""), getattr(one.spec, "creator", ""),
        str(getattr(status, "phase", "")), str(getattr(status, "verdict", "") or ""),
        getattr(status, "reason", ""), meta.labels,
    )  # fmt: skip


class Connection:
    """A store as an engine has it."""

    shared = True

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.held: dict[str, int] = {}

    def close(self) -> None:
        """Nothing to do."""

    # ------------------------------------------------------------------ read

    def get(self, kind: Any, name: str) -> Any:
        return self.shelf.row(named(kind), name)

    def list(
        self, kind: Any, labels: dict[str, str] | None = None, limit: int | None = None
    ) -> list[Any]:
        where = Filter(labels=labels or {})
        found = [one for (of, _), one in self.shelf.kept.items() if of == named(kind)]
        found = [one for one in found if matches(where, one)]
        found.sort(key=lambda one: (one.metadata.creation_timestamp, one.metadata.name))
        return found[::-1][:limit]

    def summaries(
        self, kind: Any, where: Filter | None = None, limit: int | None = None, after: str = ""
    ) -> Sequence[Summary]:
        found = [one for one in self.list(kind) if where is None or matches(where, one)]
        return [summary(one) for one in found[:limit]]

    def count(self, kind: Any, where: Filter | None = None) -> int:
        return len(self.summaries(kind, where))

    def version(self) -> int:
        return self.shelf.version

    # ------------------------------------------------------------------ write

    def create(self, resource: Any, given: Any = None) -> Any:
        if given is not None:
            self._checked(given)
        key = (resource.kind, resource.metadata.name)
        if key in self.shelf.kept:
            raise Exists(f"there is a {key[0]} {key[1]!r} already")
        self.shelf.taken[key] = Taken()
        uid = f"{self.shelf.version + 1:032x}"[::-1]
        return self.shelf.put(
            resource, None, uid=uid, generation=1, creation_timestamp=self.shelf.wall()
        )

    def restore(self, resource: Any) -> Any:
        return self.create(resource)

    def _checked(self, resource: Any) -> Any:
        kept, meta = self.shelf.row(resource.kind, resource.metadata.name), resource.metadata
        if (kept.metadata.resource_version, kept.metadata.uid) != (meta.resource_version, meta.uid):
            raise Stale(f"{meta.name} was read at {meta.resource_version}")
        return kept

    def update(self, resource: Any) -> Any:
        kept = self._checked(resource)
        generation = kept.metadata.generation + (kept.spec != resource.spec)
        changed = {"metadata": resource.metadata, "spec": resource.spec}
        return self.shelf.put(kept.model_copy(update=changed), kept, generation=generation)

    def write_status(self, resource: Any, fence: int | None = None) -> Any:
        key = (resource.kind, resource.metadata.name)
        fence = self.held.get(resource.metadata.uid) if fence is None else fence
        if fence is not None:
            self.shelf.row(*key)
            if self.shelf.taken[key].fence != fence:
                raise Fenced(f"{key[1]} was taken over by {self.shelf.taken[key].holder}")
        kept = self._checked(resource)
        return self.shelf.put(kept.model_copy(update={"status": resource.status}), kept)

    def delete(self, kind: Any, name: str, version: int | None = None) -> None:
        kept = self.shelf.row(named(kind), name)
        if version is not None and kept.metadata.resource_version != version:
            raise Stale(f"{name} is at {kept.metadata.resource_version}")
        key = (named(kind), name)
        self.shelf.version += 1
        self.shelf.gone[key] = self.shelf.version
        del self.shelf.kept[key], self.shelf.taken[key]
        self.shelf.versions.pop(key, None)

    def watch(
        self, since: int, kind: Any = None, timeout: float | None = None, *, light: bool = False
    ) -> Iterator[Event]:
        """What has changed by now: nobody waits here."""
        found = [
            Event("put", of, name, one.metadata.resource_version, None if light else one)
            for (of, name), one in self.shelf.kept.items()
        ] + [
            Event("deleted", of, name, version, None)
            for (of, name), version in self.shelf.gone.items()
            if (of, name) not in self.shelf.kept
        ]
        yield from sorted(
            (e for e in found if e.version > since and kind in (None, e.kind)),
            key=lambda event: event.version,
        )

    # ------------------------------------------------------------------ leases

    def claim(
        self, kind: Any, limit: int, holder: str, ttl: float, where: Filter | None = None
    ) -> Sequence[Claimed[Any]]:
        until, now = clock.now() + int(ttl * 1e9), self.shelf.now()
        found: list[Claimed[Any]] = []
        for one in reversed(self.list(kind)):
            lease = self.shelf.taken[one.kind, one.metadata.name]
            free = lease.holder is None or lease.expires <= now
            if not free or len(found) >= limit:
                continue
            if not matches(replace(where or Filter(), ended=False), one):
                continue
            lease.fence, lease.holder, lease.expires = lease.fence + 1, holder, now + ttl
            meta = one.metadata
            self.held[meta.uid] = lease.fence
            mine = Lease(one.kind, meta.name, meta.uid, holder, lease.fence, until)
            found.append(Claimed(one, mine))
        return found

    def _ours(self, lease: Lease) -> Taken | None:
        known = self.shelf.taken.get((lease.kind, lease.name))
        return (
            known if known and (known.fence, known.holder) == (lease.fence, lease.holder) else None
        )

    def renew(self, leases: Sequence[Lease], ttl: float) -> Sequence[Lease]:
        until, kept = clock.now() + int(ttl * 1e9), list[Lease]()
        for lease in leases:
            known = self._ours(lease)
            if known is not None:
                known.expires = self.shelf.now() + ttl
                kept.append(replace(lease, until_ns=until))
        return kept

    def release(self, lease: Lease) -> None:
        if self.held.get(lease.uid) == lease.fence:
            del self.held[lease.uid]
        known = self._ours(lease)
        if known is not None:
            known.holder = None
