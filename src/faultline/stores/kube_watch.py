"""Changes of several kinds as one: a watch for each, put in order for a moment.

The server tells the changes of one kind in order, and says nothing about the order between kinds.
What comes within `WINDOW` is sorted by version, and several changes of one resource become the last
of them.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, items, metadata, refusal
from faultline.stores.kube_documents import name_of, version_of

WINDOW = 0.05
"""Seconds for which changes are gathered before they are told in order."""
MOMENT = 0.3
"""Seconds in which the server tells what has been already: so long does the shortest look last."""
PARTING = 1.0
"""Seconds for which a watch is waited for whose connection was closed."""
_PERIOD = 240  # seconds after which the server ends a watch; it goes on where it was


@dataclass(frozen=True, slots=True)
class Change:
    """One change, with the object as it is then, or as it was last."""

    type: Literal["put", "deleted"]
    kind: Kind
    object: Object

    @property
    def version(self) -> int:
        return version_of(self.object)


class Watch:
    """The watches of several kinds from one version on."""

    def __init__(self, client: Client, kinds: Sequence[Kind], namespace: str, since: int) -> None:
        self._several = len(kinds) > 1
        self._client = client
        self._namespace = namespace
        self._found: queue.SimpleQueue[Change | ApiError | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._left = len(kinds)  # that have not begun yet
        self._threads = [
            threading.Thread(
                target=self._follow, args=(kind, since), name="faultline watch", daemon=True
            )
            for kind in kinds
        ]
        for each in self._threads:
            each.start()

    def close(self) -> None:
        self._ending.set()
        self._client.close()
        for each in self._threads:
            each.join(PARTING)

    def changes(self, timeout: float | None) -> Iterator[Change]:
        """In order; raises ApiError. Ends when `timeout` seconds brought nothing."""
        while True:
            first = self._next(timeout)
            if first is None:
                return
            yield from self._gathered(first)

    def _next(self, timeout: float | None) -> Change | None:
        until = None if timeout is None else time.monotonic() + max(timeout, MOMENT)
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                # Whoever wants no more than one look waits until all have answered.
                found = self._found.get(timeout=30.0 if self._left else left)
            except queue.Empty:
                return None
            if isinstance(found, ApiError):
                raise found
            if found is not None:
                return found
            self._left -= 1
            until = None if timeout is None else time.monotonic() + max(timeout, MOMENT)

    def _gathered(self, first: Change) -> list[Change]:
        last: dict[tuple[str, str], Change] = {}
        found: Change | ApiError | None = first
        until = time.monotonic() + 4 * WINDOW
        with suppress(queue.Empty):
            while True:
                if isinstance(found, ApiError):
                    self._found.put(found)  # after what came before it
                    break
                if found is None:
                    self._left -= 1
                else:
                    last[found.kind.kind, name_of(found.object)] = found
                if time.monotonic() > until:
                    break
                found = self._found.get(timeout=WINDOW)
        return sorted(last.values(), key=lambda change: change.version)

    # ------------------------------------------------------------------ one kind

    def _follow(self, kind: Kind, since: int) -> None:
        namespace = self._namespace if kind.namespaced else ""
        path = kind.path(namespace)
        try:
            version = str(since) if since else self._listed(kind, path)
            first = True
            while not self._ending.is_set():
                version = self._period(kind, path, version, first)
                first = False
        except ApiError as error:
            # Of several kinds the server may lack one that is newer, or not let us see it.
            left_out = self._several and error.status in (403, 404)
            self._found.put(None if left_out else error)

    def _listed(self, kind: Kind, path: str) -> str:
        """What there is: for whoever knows nothing."""
        page = self._client.rest.request("GET", path).json()
        for each in items(page):
            self._found.put(Change("put", kind, each))
        return str(metadata(page).get("resourceVersion") or "")

    def _period(self, kind: Kind, path: str, version: str, first: bool) -> str:
        query = {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(_PERIOD),
        }  # fmt: skip
        with self._client.rest.lines(path, query, _PERIOD + 15.0) as lines:
            if first:
                self._found.put(None)
            for line in lines:
                told = cast(Object, json.loads(line))
                each = cast(Object, told["object"])
                if told["type"] == "ERROR":
                    raise refusal(int(each.get("code") or 500), each)
                version = str(metadata(each).get("resourceVersion"))
                if told["type"] != "BOOKMARK":
                    gone = told["type"] == "DELETED"
                    self._found.put(Change("deleted" if gone else "put", kind, each))
        return version
