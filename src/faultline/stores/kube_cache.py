"""What an engine knows of all resources without asking: kept by one watch for each kind.

The first list is waited for; from then on the server tells what changes, and what is written here
is known at once. A watch that breaks is begun again with growing pauses; when that lasts, whoever
asks is told so (StoreFailed), since what is known may not be so any more.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.stores import summaries
from faultline.stores.kube_calls import translate
from faultline.stores.kube_documents import version_of
from faultline.stores.kube_rows import Row, row
from faultline.stores.kube_watch import PARTING
from faultline.stores.model import Event, Filter, StoreFailed
from faultline.stores.series import has_some

if TYPE_CHECKING:
    from faultline.api.model import Resource

FIRST = 30.0
"""Seconds for which the first list is waited for."""
STALE = 10.0
"""Seconds without a watch after which what is known is too old to be told."""
KEPT_EVENTS = 10_000  # changes that a watcher may lag behind
_PAUSES = (0.2, 5.0)  # seconds before the next try, at first and at most

_log = logging.getLogger(__name__)


class Known:
    """The resources of one kind. Its thread is the only one that watches."""

    def __init__(
        self, cache: Cache, client: Client, model: type[Resource], kind: Kind, namespace: str
    ) -> None:
        self._cache = cache
        self._client = client
        self._kind = kind
        self._namespace = namespace if kind.namespaced else ""
        self._whole = not has_some(model)  # the others are too large
        self._rows: dict[str, Row] = {}
        self._open: set[str] = set()  # names of those that have not ended
        self._labelled: dict[tuple[str, str], set[str]] = {}
        self._fresh: set[str] | None = None  # names that were told since this watch began
        self._dead: dict[str, None] = {}  # uids that were deleted here, the oldest first
        self._error: ApiError | None = None
        self._broken = time.monotonic()  # since when there is no watch; 0 while there is one
        self.complete = threading.Event()
        self.lock = threading.Lock()
        self.since = 0  # versions from here on are in the log
        self.thread = threading.Thread(
            target=self._keep, name=f"faultline knows {kind.plural}", daemon=True
        )
        self.thread.start()

    # ------------------------------------------------------------------ asked

    def check(self) -> None:
        """Wait until it is complete; raises StoreFailed if it is not, or too old, or Refused."""
        until = time.monotonic() + FIRST
        while not self.complete.wait(0.05):
            if self._error is not None and self._error.refused:
                raise translate(self._error, self._kind.kind)
            if time.monotonic() > until or self._cache.ending.is_set():
                raise self._away()
        if self._broken and time.monotonic() - self._broken > STALE:
            raise self._away()

    def _away(self) -> StoreFailed:
        why = self._error.message if self._error is not None else "it takes too long"
        return StoreFailed(f"the API server does not tell what changes: {why}")

    def get(self, name: str) -> Row | None:
        return self._rows.get(name)

    def rows(self, where: Filter) -> list[Row]:
        """Those that fit, in no order."""
        with self.lock:
            found = [self._rows[name] for name in self._names(where)]
        return [each for each in found if summaries.matches(where, each.summary)]

    def _names(self, where: Filter) -> Iterable[str]:
        if where.names:
            return [name for name in where.names if name in self._rows]
        if where.labels:
            sets: list[set[str]] = [
                self._labelled.get(pair, set()) for pair in where.labels.items()
            ]
            first, *others = sets
            return first.intersection(*others)
        return self._open if where.ended is False else self._rows

    # ------------------------------------------------------------------ told

    def put(self, raw: Object) -> None:
        """An object as it is after a write of ours, or as the watch tells it."""
        made = row(self._kind.kind, raw, whole=self._whole)
        name = made.summary.name
        with self.lock:
            if self._fresh is not None:
                self._fresh.add(name)
            old = self._rows.get(name)
            late = old is not None and old.summary.version >= made.summary.version
            if late or str(metadata(raw).get("uid")) in self._dead:
                return
            self._index(old, made)
            self._rows[name] = made
            event = Event("put", self._kind.kind, name, made.summary.version, None)
        self._cache.tell(event)

    def forget(self, name: str, uid: str) -> None:
        """It was deleted here; watchers are told when the server tells it."""
        with self.lock:
            self._dead[uid] = None
            if len(self._dead) > KEPT_EVENTS:
                del self._dead[next(iter(self._dead))]
            old = self._rows.pop(name, None)
            self._index(old, None)

    def gone(self, raw: Object) -> None:
        """The server tells that it was deleted."""
        meta, version = metadata(raw), version_of(raw)
        name = str(meta.get("name"))
        with self.lock:
            if str(meta.get("uid")) not in self._dead:
                old = self._rows.get(name)
                if old is None or old.summary.version > version:
                    return
                self._index(self._rows.pop(name), None)
        self._cache.tell(Event("deleted", self._kind.kind, name, version, None))

    def _index(self, old: Row | None, new: Row | None) -> None:
        for each, put in ((old, False), (new, True)):
            if each is None:
                continue
            name = each.summary.name
            for pair in each.summary.labels.items():
                names = self._labelled.setdefault(pair, set())
                names.add(name) if put else names.discard(name)
                if not names:
                    del self._labelled[pair]
            if put and each.summary.ended is None:
                self._open.add(name)
            else:
                self._open.discard(name)

    # ------------------------------------------------------------------ the watch

    def _keep(self) -> None:
        pause, most = _PAUSES
        ending = self._cache.ending
        while not ending.is_set():
            begun = time.monotonic()
            try:
                self._watch()
            except ApiError as error:
                if ending.is_set():
                    return
                if not self._broken:
                    _log.warning("%s are not told any more: %s", self._kind.plural, error.message)
                    self._broken = time.monotonic()
                self._error = error
            if time.monotonic() - begun > most:
                pause = _PAUSES[0]
            ending.wait(pause * random.uniform(0.5, 1.0))
            pause = min(most, pause * 2)

    def _watch(self) -> None:
        with self.lock:
            self._fresh = set()
        for seen in self._client.watch(self._kind, self._cache.ending, self._namespace):
            if seen.type == "put":
                self.put(seen.object)
            elif seen.type == "deleted":
                self.gone(seen.object)
            else:
                self._synced(version_of(seen.object))

    def _synced(self, version: int) -> None:
        """What was there before this list, and is not in it, has gone meanwhile."""
        with self.lock:
            fresh, self._fresh = self._fresh, None
            if fresh is None:  # listed again within one watch: the client has told what has gone
                return
            lost = [self._rows[name] for name in self._rows.keys() - fresh]
            for each in lost:
                self._index(self._rows.pop(each.summary.name), None)
        for each in lost:
            self._cache.tell(Event("deleted", self._kind.kind, each.summary.name, version, None))
        self._cache.latest = max(self._cache.latest, version)
        self._broken, self._error = 0.0, None
        if not self.complete.is_set():
            self.since = version
            self.complete.set()


_shared: dict[Hashable, Cache] = {}
_sharing = threading.Lock()


class Cache:
    """All kinds that somebody has asked for, and what happened to them in order."""

    def __init__(self, connect: Callable[[], Client], namespace: str) -> None:
        self._connect = connect
        self._namespace = namespace
        self._client: Client | None = None
        self._known: dict[str, Known] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._log: deque[tuple[int, Event]] = deque(maxlen=KEPT_EVENTS)
        self._place = 0  # events that were ever told
        self._users = 0  # that share it
        self.ending = threading.Event()
        self.latest = 0  # the latest version that was told, of any kind

    @staticmethod
    def shared(key: Hashable, connect: Callable[[], Client], namespace: str) -> Cache:
        """The one of this process for a place; it lasts as long as somebody has it open."""
        with _sharing:
            cache = _shared.get(key)
            if cache is None:
                cache = _shared[key] = Cache(connect, namespace)
            cache._users += 1
            return cache

    def close(self) -> None:
        """Of those who share it the last one ends it."""
        with _sharing:
            self._users -= 1
            if self._users > 0:
                return
            for key in [key for key, cache in _shared.items() if cache is self]:
                del _shared[key]
        self.ending.set()
        with self._changed:
            self._changed.notify_all()
        if self._client is not None:
            self._client.close()
        for each in tuple(self._known.values()):
            each.thread.join(PARTING)

    @property
    def client(self) -> Client | None:
        """That of the watches, if there are any."""
        return self._client

    @property
    def watching(self) -> bool:
        """Whether any kind is known."""
        return bool(self._known)

    def known(self, model: type[Resource], kind: Kind) -> Known:
        """The resources of a kind, all of them; raises StoreFailed."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            found = self._known.get(kind.kind)
            if found is None:
                found = Known(self, self._client, model, kind, self._namespace)
                self._known[kind.kind] = found
        found.check()
        return found

    def version(self) -> int:
        """The latest that was told; raises StoreFailed while nothing is."""
        for each in tuple(self._known.values()):
            each.check()
        return self.latest

    def learn(self, kind: str, raw: Object) -> None:
        """What a write of ours came to."""
        known = self._known.get(kind)
        if known is not None:
            known.put(raw)

    def forget(self, kind: str, name: str, uid: str) -> None:
        """What was deleted here."""
        known = self._known.get(kind)
        if known is not None:
            known.forget(name, uid)

    def tell(self, event: Event) -> None:
        """Something has changed."""
        with self._changed:
            self.latest = max(self.latest, event.version)
            self._log.append((self._place, event))
            self._place += 1
            self._changed.notify_all()

    # ------------------------------------------------------------------ watched

    def since(self, version: int, kinds: Iterable[str]) -> int | None:
        """The place in the log from which a watcher of these kinds must read who knows all up to
        this version; None if the log does not go back so far.
        """
        with self._changed:
            if any(kind not in self._known or self._known[kind].since > version for kind in kinds):
                return None
            place = self._place
            for number, event in reversed(self._log):
                if event.version <= version:
                    return place
                place = number
            return place if place in (self._place, 0) else None

    def _more(self, place: int, timeout: float | None) -> bool:
        """Wait until there is more than that; holds the lock."""
        self._changed.wait_for(lambda: self._place > place or self.ending.is_set(), timeout)
        return self._place > place

    def events(self, place: int, timeout: float | None) -> Iterator[Event]:
        """What is told from there on, waiting up to `timeout` seconds for each next one."""
        while True:
            with self._changed:
                first = self._place - len(self._log)
                if place < first:
                    return  # overtaken: the watcher looks again, and is told
                if not self._more(place, timeout):
                    return
                found: list[Event] = []
                for number, event in reversed(self._log):
                    if number < place:
                        break
                    found.append(event)
                place = self._place
            yield from reversed(found)
