"""Resources as custom resources of a Kubernetes cluster, in one namespace.

The API server is the database: it gives versions and refuses what was written meanwhile. Series lie
beside (kube_series), leases are Lease objects (kube_leases), and an engine that lives long keeps
what it must know at every look in memory (kube_cache).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from faultline.errors import FaultlineError, Unsupported
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.stores import kube_claims
from faultline.stores import kube_documents as objects
from faultline.stores.kube_calls import kind_of, translate, translated
from faultline.stores.kube_flushing import Kept
from faultline.stores.kube_leases import fenced
from faultline.stores.kube_reading import Reading, model_of
from faultline.stores.kube_rows import bare_status
from faultline.stores.model import Claimed, Fenced, Filter, Lease, R, Stale, kind_name

if TYPE_CHECKING:
    from faultline.api.model import Resource

_log = logging.getLogger(__name__)


class KubeStore(Reading):
    """A store. One instance may be used by several threads."""

    # ------------------------------------------------------------------ write

    def create(self, resource: R, given: Resource | None = None) -> R:
        if given is not None:  # as close to the making as an API server allows
            read, name = given.metadata.resource_version, given.metadata.name
            now = self.get(type(given), name).metadata.resource_version
            if now != read:
                raise Stale.since(given.kind, name, read, now)
        return self._add(resource, {})

    def restore(self, resource: R) -> R:
        meta = resource.metadata
        created = (
            {objects.CREATED: repr(meta.creation_timestamp)} if meta.creation_timestamp else {}
        )
        return self._add(resource, {**created, **({objects.UID: meta.uid} if meta.uid else {})})

    def _add(self, resource: R, marks: dict[str, str]) -> R:
        kind, name = kind_of(type(resource)), resource.metadata.name
        spec, (status, series) = objects.spec_parts(resource), objects.status_parts(resource)
        # A status is written apart; what has none yet may be taken up by an engine at once.
        told = status if status != bare_status(kind.kind) or series else None
        if told is not None:
            marks = {**marks, objects.INCOMPLETE: "1"}
        made = objects.new(resource, spec, marks)
        with translated(kind.kind, name):
            raw = self.client.create(kind, made, self.namespace)
            try:
                if not objects.same(spec, raw.get("spec")):
                    raise Unsupported(
                        f"the server does not keep all that a {kind.kind} of this version has",
                        hint="anew: faultline kube crds | kubectl apply --server-side -f -",
                    )
                raw = raw if told is None else self._told(kind, raw, told, series)
            except FaultlineError:
                self._take_back(kind, raw)
                raise
        self.learn(kind.kind, raw)
        return resource.model_copy(update={"metadata": objects.metadata_of(raw)})

    def _told(self, kind: Kind, raw: Object, status: Object, series: dict[str, Any]) -> Object:
        """A new object with its status and series."""
        name = objects.name_of(raw)
        patch = [{"op": "add", "path": "/status", "value": status}]
        raw = self.client.patch(kind, name, patch, "json", namespace=self.namespace, part="status")
        if series:
            kept = self.flusher.keep(kind, raw, 0, {})
            kept.now = series
            self.flusher.flush(kept)
        patch = [{"op": "remove", "path": objects.pointer(objects.INCOMPLETE)}]
        raw = self.client.patch(kind, name, patch, "json", namespace=self.namespace)
        kept = self.flusher.kept(raw)
        if kept is not None:
            kept.version = objects.version_of(raw)
        return raw

    def _take_back(self, kind: Kind, raw: Object) -> None:
        self.flusher.drop(raw)
        try:
            uid = str(metadata(raw).get("uid"))
            self.client.delete(kind, objects.name_of(raw), self.namespace, uid=uid)
        except ApiError as error:
            _log.warning("%s is not complete: %s", objects.name_of(raw), error.message)

    def update(self, resource: R) -> R:
        kind, name = kind_of(type(resource)), resource.metadata.name
        with translated(kind.kind, name):
            raw = self.raw(kind, name)
            _check(resource, raw)
            patch = objects.update_of(raw, resource)
            raw = self.client.patch(kind, name, patch, "json", namespace=self.namespace)
            self.learn(kind.kind, raw)
            kept = self.flusher.kept(raw)
            if kept is not None and kept.version == resource.metadata.resource_version:
                kept.version = objects.version_of(raw)
            return self.complete(type(resource), raw)

    def write_status(self, resource: R, fence: int | None = None) -> R:
        kind, name = kind_of(type(resource)), resource.metadata.name
        status, series = objects.status_parts(resource)
        fence = self.held.get(resource.metadata.uid) if fence is None else fence
        patch = [
            *([fenced(fence)] if fence is not None else []),
            objects.at_version(resource.metadata.resource_version),
            {"op": "add", "path": "/status", "value": status or {}},
        ]
        ended = bool((status or {}).get("ended"))
        try:
            if ended:  # what was measured before lies there when people see that it is over
                self.flusher.flush_named(name, resource.metadata.resource_version)
            raw = self.client.patch(
                kind, name, patch, "json", namespace=self.namespace, part="status"
            )
            raw = self._moved(kind, raw, resource, series)
        except ApiError as error:
            raise self._why(error, kind, resource, fence) from error
        self.learn(kind.kind, raw)
        kept = self._noted(kind, raw, fence or 0, series, resource)
        meta: dict[str, Any] = {"metadata": objects.metadata_of(raw)}
        spec = self._spec(resource, raw, kept)
        done = resource.model_copy(update=meta if spec is None else {**meta, "spec": spec})
        if kept is not None:
            kept.spec, kept.generation = cast(Any, done).spec, done.metadata.generation
            if ended:
                self.flusher.finish(kept, raw)
        return done

    def _moved(self, kind: Kind, raw: Object, resource: Resource, series: dict[str, Any]) -> Object:
        """The server gives no version to a status that is as it was. If its series are not, it gets
        one: whoever has read the old ones must not write over them.
        """
        version = objects.version_of(raw)
        kept = self.flusher.kept(raw)
        known = {} if kept is None else kept.now
        if version != resource.metadata.resource_version or series == known:
            return raw
        notes = {objects.SERIES: str(version)}
        change = {"metadata": {"resourceVersion": str(version), "annotations": notes}}
        return self.client.patch(kind, resource.metadata.name, change, namespace=self.namespace)

    def _noted(
        self, kind: Kind, raw: Object, fence: int, series: dict[str, Any], resource: Resource
    ) -> Kept | None:
        """Its series are written too, now or soon."""
        from faultline.stores.series import has_some

        if not has_some(type(resource)):
            return None
        kept = self.flusher.kept(raw)
        before = resource.metadata.resource_version
        if kept is None or not (kept.version == before or 0 < kept.fence == fence):
            kept = self.flusher.keep(kind, raw, fence, None)
        with translated(kind.kind, resource.metadata.name):
            self.flusher.note(kept, objects.version_of(raw), series)
        return kept

    def _spec(self, resource: Resource, raw: Object, kept: Kept | None) -> object:
        """The spec that the server has, unless it is that of the caller, which a write of the
        status does not change.
        """
        ours: object = cast(Any, resource).spec
        generation = int(metadata(raw).get("generation") or 0)
        if kept is not None and kept.spec is ours and kept.generation == generation:
            return None
        if objects.spec_parts(resource) == raw.get("spec"):
            return None
        return cast(Any, objects.resource(type(resource), {**raw, "status": None})).spec

    def _why(self, error: ApiError, kind: Kind, resource: Resource, fence: int | None) -> Exception:
        """What it means that the server refused a status."""
        name, meta = resource.metadata.name, resource.metadata
        if error.status not in (409, 422):
            return translate(error, kind.kind, name)
        try:
            raw = self.raw(kind, name)
        except ApiError as other:
            return translate(other, kind.kind, name)
        now, version = objects.fence_of(raw), objects.version_of(raw)
        if fence is not None and fence != now:
            who = objects.notes_of(raw).get(objects.HOLDER) or "somebody who let it go"
            self.leases.lost(meta.uid, fence)
            self.flusher.drop(raw)
            return Fenced(
                f"{kind.kind} {name!r} was taken over by {who} (number {now}, ours was {fence})",
                hint="leave it to them; what was asked for before is in its status",
            )
        if version != meta.resource_version or error.status == 409:
            return Stale.since(kind.kind, name, meta.resource_version, version)
        return translate(error, kind.kind, name)

    def delete(self, kind: type[Resource] | str, name: str, version: int | None = None) -> None:
        named = kind_of(model_of(kind))
        options: Object = {"propagationPolicy": "Background"}
        if version is not None:
            options["preconditions"] = {"resourceVersion": str(version)}
        with translated(named.kind, name):
            path = named.path(self.namespace, name)
            gone = self.client.rest.request("DELETE", path, None, options).json()
        if gone.get("kind") == named.kind:  # finalizers keep it
            self.learn(named.kind, gone)
        elif self.cache is not None:
            details = cast(Object, gone.get("details") or {})
            self.cache.forget(named.kind, name, str(details.get("uid")))

    def learn(self, kind: str, raw: Object) -> None:
        """What a write of ours came to."""
        if self.cache is not None:
            self.cache.learn(kind, raw)

    # ------------------------------------------------------------------ leases

    def claim(
        self, kind: type[R], limit: int, holder: str, ttl: float, where: Filter | None = None
    ) -> Sequence[Claimed[R]]:
        with translated(kind_name(kind)):
            return kube_claims.claim(self, kind, limit, holder, ttl, where or Filter())

    def renew(self, leases: Sequence[Lease], ttl: float) -> Sequence[Lease]:
        with translated("Lease"):
            return kube_claims.renew(self, leases, ttl)

    def release(self, lease: Lease) -> None:
        self.let_go(lease)
        self.flusher.leave(lease.name, lease.fence)
        with translated(lease.kind, lease.name):
            kube_claims.release(self, lease)


def _check(resource: Resource, raw: Object) -> None:
    meta, version = resource.metadata, objects.version_of(raw)
    if version != meta.resource_version or objects.uid_of(raw) != meta.uid:
        raise Stale.since(resource.kind, meta.name, meta.resource_version, version)
