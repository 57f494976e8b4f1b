"""A copy of all objects of one kind, kept by a watch in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata, version_of

T = TypeVar("T")
LONGEST = 30.0  # seconds between two tries
_log = logging.getLogger(__name__)


class Informer(Generic[T]):
    """What `make` makes of each object, by NAMESPACE/NAME, or NAME where there is no namespace.

    `changed` is called in its thread, with the key, what was there and what is.
    """

    def __init__(
        self,
        kind: Kind,
        make: Callable[[Object], T | None],
        changed: Callable[[str, T | None, T | None], None],
        namespace: str = "",
    ) -> None:
        self.kind = kind
        self.synced = threading.Event()
        self._make, self._changed, self._namespace = make, changed, namespace
        self._found: dict[str, T] = {}
        self._versions: dict[str, tuple[str, str]] = {}  # uid and version, by key
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._client: Client | None = None
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ reading

    def get(self, key: str) -> T | None:
        return self._found.get(key)

    def all(self) -> dict[str, T]:
        """A copy of what is there now."""
        with self._lock:
            return dict(self._found)

    @property
    def alive(self) -> bool:
        """Whether it is kept up to date, or will be again."""
        return self._thread is not None and self._thread.is_alive()

    # ------------------------------------------------------------------ keeping it

    def start(self, client: Client) -> None:
        """Begin; the client is ours from now on."""
        self._client = client
        self._thread = threading.Thread(target=self._keep, name=f"watch {self.kind.plural}")
        self._thread.daemon = True
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._client is not None:
            self._client.close()
        if self._thread is not None:
            self._thread.join(5)

    def put(self, found: Object) -> None:
        """What a write has answered: read before the watch tells it."""
        self._put(found)

    def _keep(self) -> None:
        pause = 0.5
        while not self._stop.is_set():
            try:
                self._watch()
                pause = 0.5
            except ApiError as error:
                if self._stop.is_set():
                    return
                _log.warning("%s cannot be watched: %s", self.kind.plural, error.message)
                self._stop.wait(pause * random.uniform(0.5, 1.0))
                pause = min(LONGEST, pause * 2)

    def _watch(self) -> None:
        assert self._client is not None
        before: set[str] | None = set(self._found)
        for seen in self._client.watch(self.kind, self._stop, self._namespace):
            if seen.type == "synced":
                for key in before or ():  # gone while nobody watched
                    self._drop(key)
                before = None
                self.synced.set()
                continue
            key = key_of(seen.object)
            if seen.type == "deleted":
                self._deleted(key, seen.object)
                continue
            if before is not None:
                before.discard(key)
            self._put(seen.object)

    def _put(self, found: Object) -> None:
        key, uid, version = key_of(found), str(metadata(found).get("uid")), version_of(found)
        if not self._is_news(key, uid, version):
            return  # our own write, told again by the watch
        try:
            made = self._make(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("%s %s cannot be read: %r", self.kind.kind, key, error)
            made = None
        with self._lock:
            if not self._is_news(key, uid, version):
                return
            old = self._found.get(key)
            self._versions[key] = (uid, version)
            if made is None:
                self._found.pop(key, None)
            else:
                self._found[key] = made
        self._changed(key, old, made)

    def _is_news(self, key: str, uid: str, version: str) -> bool:
        had = self._versions.get(key)
        return had is None or had[0] != uid or _newer(version, had[1])

    def _deleted(self, key: str, found: Object) -> None:
        had = self._versions.get(key)
        if had is not None and had[0] == str(metadata(found).get("uid")):
            self._drop(key)

    def _drop(self, key: str) -> None:
        with self._lock:
            self._versions.pop(key, None)
            old = self._found.pop(key, None)
        self._changed(key, old, None)


def key_of(found: Object) -> str:
    """NAMESPACE/NAME, or NAME."""
    meta = metadata(found)
    space = str(meta.get("namespace") or "")
    return f"{space}/{meta['name']}" if space else str(meta["name"])


def _newer(version: str, than: str) -> bool:
    """Versions are not to be understood; where they are numbers, they grow. A watch that lags
    behind our own write must not bring back what was before it.
    """
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than
