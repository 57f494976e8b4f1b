"""What is read of a store in Kubernetes, and watched."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from faultline.errors import InvalidDocument, UnknownName
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, Rest, metadata
from faultline.stores import documents, summaries
from faultline.stores import kube_documents as objects
from faultline.stores.kube_cache import Cache, Known
from faultline.stores.kube_calls import client as made_client
from faultline.stores.kube_calls import kind_of, sent, translated
from faultline.stores.kube_flushing import Flusher, Kept
from faultline.stores.kube_leases import Leases
from faultline.stores.kube_rows import Row
from faultline.stores.kube_rows import row as row_of
from faultline.stores.kube_series import Owner
from faultline.stores.kube_watch import Change, Watch
from faultline.stores.model import Closing, Event, Filter, R, Summary, kind_name

if TYPE_CHECKING:
    from faultline.api.model import Resource

_log = logging.getLogger(__name__)


class Reading(Closing):
    """A store that can be read. One instance may be used by several threads."""

    def __init__(
        self,
        connect: Callable[[], Rest],
        namespace: str = "",
        *,
        cached: bool = False,
        place: Hashable = None,
    ) -> None:
        """`connect` makes a connection to the server; `cached` is for who asks every second, and
        with a `place` he shares what is known with the others of this process who have it.
        """
        super().__init__()
        self._connect = connect
        self.client = made_client(connect)
        self.namespace = namespace or self.client.rest.namespace
        self.flusher = Flusher(self.client)
        self.leases = Leases(lambda: made_client(connect), self.namespace)
        self.cache = self._cache(place) if cached else None
        self._refused: dict[str, int] = {}  # versions of what our models refuse, by uid
        self._watched = 0  # requests of watches that have ended
        self._lock = threading.Lock()

    def _cache(self, place: Hashable) -> Cache:
        def connected() -> Client:
            return made_client(self._connect)

        if place is None:
            return Cache(connected, self.namespace)
        return Cache.shared(place, connected, self.namespace)

    @property
    def shared(self) -> bool:
        """Engines of other hosts may use it too."""
        return True

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        others = (self.leases.sent(), self.cache.client if self.cache else None)
        clients = [self.client, *(each for each in others if each is not None)]
        return self._watched + sum(sent(each.rest) for each in clients)

    def __repr__(self) -> str:
        return f"<store kube://{self.namespace} at {self.client.rest.server}>"

    def close(self) -> None:
        self.flusher.close()
        if self.cache is not None:
            self.cache.close()
        self.leases.close()
        self.client.close()

    # ------------------------------------------------------------------ read

    def get(self, kind: type[R], name: str) -> R:
        with translated(kind_name(kind), name):
            return self.complete(kind, self.raw(kind_of(kind), name))

    def raw(self, kind: Kind, name: str) -> Object:
        """One object as the server has it; raises ApiError."""
        return self.client.get(kind, name, self.namespace)

    def verbatim(self, kind: type[Resource], name: str) -> Object:
        """A document as it was written, whatever our models say of it; raises UnknownName."""
        with translated(kind_name(kind), name):
            raw = self.raw(kind_of(kind), name)
        told = {
            "name": name,
            "labels": objects.labels_of(raw),
            "annotations": objects.notes_of(raw),
        }
        return {"metadata": told, "spec": raw.get("spec") or {}}

    def complete(self, kind: type[R], raw: Object) -> R:
        """The document of an object with its series; raises ApiError, InvalidDocument."""
        from faultline.stores.series import has_some, put

        kept = self.flusher.kept(raw)
        if not raw.get("status") or not has_some(kind):
            return objects.resource(kind, raw)
        if kept is not None and self._ours(kept, raw):
            made = objects.resource(kind, raw)
            series = {
                path: entries
                for path, entries in kept.now.items()
                if objects.has_place(raw["status"], path)
            }
            put(cast(Any, made).status, series)
            return made
        if kept is not None:
            if kept.since is not None:
                self.flusher.flush(kept)
            self.flusher.drop(raw)
        return self.from_log(kind, raw)[0]

    def from_log(self, kind: type[R], raw: Object, fence: int = 0) -> tuple[R, Kept | None]:
        """The same as others have written it. With a `fence` this process goes on with it."""
        named = kind_of(kind)
        log = self.flusher.logs.read(Owner(named, raw))
        made = objects.resource(kind, raw, log.rows())
        if not fence:
            return made, None
        _, series = documents.status_parts(made)
        log.records = {}
        return made, self.flusher.keep(named, raw, fence, series, log)

    def _ours(self, kept: Kept, raw: Object) -> bool:
        """Whether nobody but us has written its series: it is ours, and what is there is what we
        have written last, or what we have still to write.
        """
        as_we_left_it = kept.version == objects.version_of(raw) or kept.since is not None
        return 0 < kept.fence == objects.fence_of(raw) and as_we_left_it

    def list(
        self, kind: type[R], labels: dict[str, str] | None = None, limit: int | None = None
    ) -> list[R]:
        named = kind_name(kind)
        found: list[R] = []
        with translated(named):
            for each in self._newest(kind, Filter(labels=labels or {}), whole=True):
                if limit is not None and len(found) >= limit:
                    break
                raw = each.raw or self._still(kind, each.summary.name)
                made = None if raw is None else self._read(kind, raw)
                if made is not None:
                    found.append(made)
        return found

    def _still(self, kind: type[Resource], name: str) -> Object | None:
        try:
            return self.raw(kind_of(kind), name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _read(self, kind: type[R], raw: Object) -> R | None:
        """A document, or None for one that our models refuse, which is told once."""
        try:
            return self.complete(kind, raw)
        except InvalidDocument as error:
            self.refuse(raw, error)
            return None

    def refuse(self, raw: Object, error: InvalidDocument) -> None:
        """Tell of a document that is left out: the others are none the worse for it."""
        uid, version = objects.uid_of(raw), objects.version_of(raw)
        if self._refused.get(uid) != version:
            self._refused[uid] = version
            _log.warning("left out: %s", error.message)

    def rows(self, kind: type[Resource], where: Filter, *, whole: bool = False) -> list[Row]:
        """What is known of the resources that fit, in no order; raises ApiError, StoreFailed."""
        known = self._known(kind)
        if known is not None:
            return known.rows(where)
        named = kind_of(kind)
        fits = [f"{k}={v}" for k, v in where.labels.items() if objects.label_fits(k, v)]
        fields = f"metadata.name={where.names[0]}" if len(where.names) == 1 else ""
        found = (
            row_of(named.kind, raw, whole=whole)
            for raw in self.client.every(named, self.namespace, ",".join(fits), fields)
        )
        return [each for each in found if summaries.matches(where, each.summary)]

    def _known(self, kind: type[Resource]) -> Known | None:
        return None if self.cache is None else self.cache.known(kind, kind_of(kind))

    def _newest(
        self, kind: type[Resource], where: Filter, after: str = "", *, whole: bool = False
    ) -> list[Row]:
        behind = summaries.behind(after)
        found = self.rows(kind, where, whole=whole)
        if behind is not None:
            found = [each for each in found if each.order < behind]
        return sorted(found, key=lambda each: each.order, reverse=True)

    def summaries(
        self,
        kind: type[Resource] | str,
        where: Filter | None = None,
        limit: int | None = None,
        after: str = "",
    ) -> Sequence[Summary]:
        with translated(kind_name(kind)):
            found = self._newest(model_of(kind), where or Filter(), after)
        return [each.summary for each in found[:limit]]

    def count(self, kind: type[Resource] | str, where: Filter | None = None) -> int:
        with translated(kind_name(kind)):
            return len(self.rows(model_of(kind), where or Filter()))

    def version(self) -> int:
        if self.cache is not None and self.cache.watching:
            return self.cache.version()
        from faultline.api.run import Run

        # What a list tells is the version of the whole server.
        with translated("Run"):
            path, query = kind_of(Run).path(self.namespace), {"limit": "1"}
            page = self.client.rest.request("GET", path, query).json()
        return int(metadata(page).get("resourceVersion") or 0)

    # ------------------------------------------------------------------ watch

    def watch(
        self,
        since: int,
        kind: type[Resource] | str | None = None,
        timeout: float | None = None,
        *,
        light: bool = False,
    ) -> Iterator[Event]:
        from faultline.api.kinds import KINDS

        named = [each for each in KINDS.values() if kind_of(each).namespaced]
        models = named if kind is None else [model_of(kind)]
        if self.cache is not None:
            for each in models:
                self._known(each)
            place = self.cache.since(since, [kind_name(model) for model in models])
            if place is not None:
                wanted = {kind_name(model) for model in models}
                for event in self.cache.events(place, timeout):
                    if event.kind in wanted:
                        yield event if light else self._full(event)
                return
        client = made_client(self._connect)
        watch = Watch(client, [kind_of(model) for model in models], self.namespace, since)
        try:
            with translated("resource"):
                for change in watch.changes(timeout):
                    yield self._event(change, light=light)
        finally:
            watch.close()
            self._watched += sent(client.rest)

    def _event(self, change: Change, *, light: bool) -> Event:
        kind, name = change.kind.kind, objects.name_of(change.object)
        event = Event(change.type, kind, name, change.version, None)
        if light or change.type == "deleted":
            return event
        made = self._read(model_of(kind), change.object)
        return Event("put", kind, name, change.version, made)

    def _full(self, event: Event) -> Event:
        if event.type == "deleted":
            return event
        raw = self._still(model_of(event.kind), event.name)
        made = None if raw is None else self._read(model_of(event.kind), raw)
        return Event("put", event.kind, event.name, event.version, made)


def model_of(kind: type[Resource] | str) -> type[Resource]:
    from faultline.api.kinds import KINDS

    if not isinstance(kind, str):
        return kind
    if kind not in KINDS:
        raise UnknownName(f"there is no kind {kind!r}")
    return KINDS[kind]
