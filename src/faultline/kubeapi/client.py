"""Objects of any kind: read, written, watched.

A write names what it has read, or the fields that are to be ours: it may be sent twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from faultline.kubeapi.model import (
    ApiError,
    Kind,
    Object,
    Rest,
    items,
    metadata,
    refusal,
    version_of,
)

MANAGER = "faultline"
"""Who we are to the server: the owner of the fields that we apply."""
CHUNK = 500  # objects of one answer
PATIENCE = 290.0  # seconds after which the server ends a watch that we begin again
_PATCHES = {
    "merge": "application/merge-patch+json",  # RFC 7386
    "json": "application/json-patch+json",  # RFC 6902
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One change, as a watch tells it. `synced` comes once a list is complete, with its version."""

    type: Literal["put", "deleted", "synced"]
    object: Object


class Client:
    """One API server."""

    def __init__(self, rest: Rest, again: Callable[[], Rest] | None = None) -> None:
        self.rest = rest
        self._again = again
        self._kinds: dict[str, Kind] = {}

    def close(self) -> None:
        self.rest.close()

    def another(self) -> Rest:
        """A connection of one's own to the same server, where somebody said how it is made."""
        return self._again() if self._again is not None else self.rest

    # ------------------------------------------------------------------ reading

    def get(self, kind: Kind, name: str, namespace: str = "", part: str = "") -> Object:
        """One object; raises ApiError, with reason NotFound if there is none."""
        where = namespace or self.rest.namespace
        return self.rest.request("GET", kind.path(where, name, part)).json()

    def every(
        self, kind: Kind, namespace: str = "", labels: str = "", fields: str = ""
    ) -> Iterator[Object]:
        """Objects that fit the selectors, of all namespaces if none is named."""
        for page in self._pages(kind, namespace, labels, fields):
            yield from items(page)

    def _pages(self, kind: Kind, namespace: str, labels: str, fields: str) -> Iterator[Object]:
        asked = {"limit": str(CHUNK), "labelSelector": labels, "fieldSelector": fields}
        query = {name: value for name, value in asked.items() if value}
        while True:
            page = self.rest.request("GET", kind.path(namespace), query).json()
            yield page
            more = str(metadata(page).get("continue") or "")
            if not more:
                return
            query["continue"] = more

    # ------------------------------------------------------------------ writing

    def create(self, kind: Kind, made: Object, namespace: str = "") -> Object:
        """Raises ApiError, with reason AlreadyExists if the name is taken."""
        where = namespace or str(metadata(made).get("namespace") or self.rest.namespace)
        return self.rest.request("POST", kind.path(where), _ours(), made).json()

    def replace(self, kind: Kind, made: Object, part: str = "") -> Object:
        """Write the whole object; raises ApiError, with reason Conflict if somebody wrote since it
        was read.
        """
        meta = metadata(made)
        where = str(meta.get("namespace") or self.rest.namespace)
        return self.rest.request(
            "PUT", kind.path(where, str(meta["name"]), part), _ours(), made
        ).json()

    def patch(
        self,
        kind: Kind,
        name: str,
        change: object,
        how: Literal["merge", "json", "apply"] = "merge",
        *,
        namespace: str = "",
        part: str = "",
        force: bool = False,
    ) -> Object:
        """Change what is named alone. `apply` owns the fields that it names; with `force` also
        those of others.
        """
        query = {**_ours(), **({"force": "true"} if force and how == "apply" else {})}
        where = namespace or self.rest.namespace
        path = kind.path(where, name, part)
        return self.rest.request("PATCH", path, query, change, _PATCHES[how]).json()

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        grace: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> Object:
        """Delete one object, with `uid` only that very one; raises ApiError."""
        options: Object = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        where = namespace or self.rest.namespace
        return self.rest.request("DELETE", kind.path(where, name), None, options).json()

    # ------------------------------------------------------------------ watching

    def watch(
        self,
        kind: Kind,
        stop: threading.Event,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
    ) -> Generator[Seen]:
        """What there is, then `synced`, then every change until `stop`.

        A watch that ends goes on where it stood. Where the server does not keep that any more, all
        is listed again and what has gone meanwhile is told as deleted, by its metadata. Raises
        ApiError when the server does not answer: whoever watches decides how long to wait before
        the next try.
        """
        known: dict[str, Object] = {}
        while not stop.is_set():
            version = yield from self._listed(kind, namespace, labels, fields, known)
            asked = {"labelSelector": labels, "fieldSelector": fields}
            query = {name: value for name, value in asked.items() if value}
            query |= {
                "watch": "1",
                "allowWatchBookmarks": "true",
                "timeoutSeconds": f"{PATIENCE:.0f}",
            }
            while version and not stop.is_set():
                query["resourceVersion"] = version
                version = yield from self._changes(kind.path(namespace), query, known, stop)

    def _listed(
        self, kind: Kind, namespace: str, labels: str, fields: str, known: dict[str, Object]
    ) -> Generator[Seen, None, str]:
        found: dict[str, Object] = {}
        changed: list[Object] = []
        first, version = not known, ""
        for page in self._pages(kind, namespace, labels, fields):
            version = version_of(page)
            for each in items(page):
                uid = str(metadata(each).get("uid"))
                found[uid] = _named(each)
                if uid in known and version_of(known[uid]) == version_of(each):
                    continue
                # Objects of a list do not name their kind.
                named = {"apiVersion": kind.version, "kind": kind.kind, **each}
                if first:  # nothing can have gone: one page at a time is enough to hold
                    yield Seen("put", named)
                else:
                    changed.append(named)
        for uid in known.keys() - found.keys():
            yield Seen("deleted", {"apiVersion": kind.version, "kind": kind.kind, **known[uid]})
        for each in changed:
            yield Seen("put", each)
        known.clear()
        known.update(found)
        yield Seen("synced", {"metadata": {"resourceVersion": version}})
        return version

    def _changes(
        self, path: str, query: dict[str, str], known: dict[str, Object], stop: threading.Event
    ) -> Generator[Seen, None, str]:
        """Until this watch ends; the version to go on from, or '' if all must be listed again."""
        version = query["resourceVersion"]
        with self.rest.lines(path, query, PATIENCE + 15) as lines:
            for line in lines:
                if stop.is_set():
                    return version
                told = cast(Object, json.loads(line))
                each = cast(Object, told["object"])
                if told["type"] == "ERROR":
                    if each.get("code") == 410:
                        return ""
                    raise refusal(int(each.get("code") or 500), each)
                version = version_of(each)
                uid = str(metadata(each).get("uid"))
                if told["type"] == "DELETED":
                    known.pop(uid, None)
                    yield Seen("deleted", each)
                elif told["type"] != "BOOKMARK":
                    known[uid] = _named(each)
                    yield Seen("put", each)
        return version

    # ------------------------------------------------------------------ kinds

    def kind(self, name: str, group: str = "") -> Kind:
        """The kind of this name (Pod, pods, po; deployments.apps), in the newest version that the
        server prefers; raises ApiError with reason NotFound.
        """
        name, _, within = name.lower().partition(".")
        group = group or within
        key = f"{name}.{group}"
        if key not in self._kinds:
            self._kinds[key] = self._find(name, group)
        return self._kinds[key]

    def _find(self, wanted: str, group: str) -> Kind:
        groups = cast("list[Object]", self._read("/apis").get("groups") or [])
        preferred = [
            str(each["preferredVersion"]["groupVersion"])
            for each in groups
            if str(each["name"]).startswith(group)
        ]
        # What an older server has not in the version that it prefers: CronJob, before 1.21.
        others = [
            str(one["groupVersion"])
            for each in groups
            if str(each["name"]).startswith(group)
            for one in each["versions"]
            if one["groupVersion"] not in preferred
        ]
        for version in ([] if group else ["v1"]) + preferred + others:
            for kind in self.served(version):
                if wanted in kind.names:
                    return kind
        raise ApiError(404, "NotFound", f"the server knows no kind {wanted}.{group or '*'}")

    def exact(self, kind: str, version: str) -> Kind:
        """The kind of exactly this name and version; raises ApiError with reason NotFound."""
        key = f"{kind} {version}"
        if key not in self._kinds:
            found = [each for each in self.served(version) if each.kind == kind]
            if not found:
                raise ApiError(404, "NotFound", f"the server has no {kind} in {version}")
            self._kinds[key] = found[0]
        return self._kinds[key]

    def preferred(self) -> list[str]:
        """The groups that the server has, each in the version that it prefers."""
        groups = cast("list[Object]", self._read("/apis").get("groups") or [])
        return ["v1", *(str(each["preferredVersion"]["groupVersion"]) for each in groups)]

    def served(self, version: str) -> list[Kind]:
        """The kinds of one group and version; none if the server does not have it."""
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        try:
            told = self._read(root)
        except ApiError as error:
            if error.status in (404, 503):  # not there, or the server behind it has gone
                return []
            raise
        return [
            Kind(
                each["kind"],
                each["name"],
                version,
                each["namespaced"],
                tuple(each["verbs"]),
                _names(each),
            )
            for each in cast("list[Object]", told.get("resources") or [])
            if "/" not in each["name"]
        ]

    def version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        told = self._read("/version")
        return int(told["major"]), int("".join(c for c in str(told["minor"]) if c.isdigit()))

    def _read(self, path: str) -> Object:
        return self.rest.request("GET", path).json()


def _named(each: Object) -> Object:
    """What is remembered of an object: of ten thousand pods the rest would be much."""
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {"metadata": {key: value for key, value in metadata(each).items() if key in kept}}


def _names(each: Object) -> tuple[str, ...]:
    """All that a kind is called: Pod, pods, pod, po."""
    names = (each["kind"], each["name"], each.get("singularName"), *(each.get("shortNames") or ()))
    return tuple(str(name).lower() for name in names if name)


def _ours() -> dict[str, Any]:
    return {"fieldManager": MANAGER}
