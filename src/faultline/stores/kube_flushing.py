"""When series are written in Kubernetes: a little later than the status, by whoever has the run.

What waits is in memory, and this process knows it. What is written when another one has taken the
run over would be a stranger's: before a log that is not known any more is gone on with, it is
looked whether the run is still ours.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.stores.kube_documents import fence_of, version_of
from faultline.stores.kube_series import Log, Logs, Owner, common, records

if TYPE_CHECKING:
    from faultline.stores.series import Series

FLUSH = 5.0
"""Seconds after which new entries are written; 0 writes them with each status."""
REMEMBERED = 4096  # runs whose series this process can go on with without reading them
_TRIES = 3

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Kept:
    """The series of one run that this process writes."""

    owner: Owner
    kind: Kind
    version: int  # of the run, after the status was written here last
    fence: int  # of the lease with which it is written; 0 without one
    now: Series
    stored: Series | None  # what lies in the log; None if that is not known
    log: Log
    since: float | None = None  # when the oldest entry came that is not written, monotonic
    lock: threading.Lock = field(default_factory=threading.Lock)
    spec: object = None  # the one that the server has,
    generation: int = 0  # as long as it has this generation


class Flusher:
    """Writes series a little later than the status, from a thread that is there while some wait."""

    def __init__(self, client: Client) -> None:
        self.logs = Logs(client)
        self._client = client
        self._kept: dict[str, Kept] = {}  # by the uid that the server gave
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def kept(self, raw: Object) -> Kept | None:
        return self._kept.get(str(metadata(raw).get("uid")))

    def keep(
        self, kind: Kind, raw: Object, fence: int, series: Series | None, log: Log | None = None
    ) -> Kept:
        """From now on this process writes its series. `series` is what lies in the log."""
        now = {path: list(entries) for path, entries in (series or {}).items()}
        kept = Kept(Owner(kind, raw), kind, version_of(raw), fence, now, series, log or Log())
        with self._lock:
            while len(self._kept) >= REMEMBERED:
                self._kept.pop(next(iter(self._kept)))
            self._kept[kept.owner.uid] = kept
        return kept

    def drop(self, raw: Object) -> None:
        """It is written by somebody else, or by nobody any more."""
        with self._lock:
            self._kept.pop(str(metadata(raw).get("uid")), None)

    def note(self, kept: Kept, version: int, series: Series) -> None:
        """The status was written, with these series; raises ApiError."""
        with kept.lock:
            kept.version, kept.now = version, series
            # Almost always the same objects, which a comparison of lists sees at once.
            if kept.since is None and kept.stored != series:
                kept.since = time.monotonic()
        if kept.since is not None and FLUSH <= 0:
            self.flush(kept)
        elif kept.since is not None:
            self._begin()

    def finish(self, kept: Kept, raw: Object) -> None:
        """Write the rest of what has ended; what does not get through is tried again."""
        self._try(kept)
        if kept.since is None:
            self.drop(raw)

    def leave(self, name: str, fence: int) -> None:
        """Write what waits of a run that is let go of now: whoever takes it next reads it."""
        for uid, kept in tuple(self._kept.items()):
            if (kept.owner.name, kept.fence) == (name, fence):
                if kept.since is not None:
                    self._try(kept)
                with self._lock:
                    self._kept.pop(uid, None)

    def flush_named(self, name: str, version: int) -> None:
        """Write what waits of a run whose status was written here last; raises ApiError."""
        for kept in tuple(self._kept.values()):
            if kept.owner.name == name and kept.version == version and kept.since is not None:
                self.flush(kept)

    def flush(self, kept: Kept) -> None:
        """Write what is new; raises ApiError. Who was overtaken writes nothing."""
        with kept.lock:
            for _ in range(_TRIES):
                try:
                    if kept.stored is None:
                        self._learn(kept)
                        if not self._ours(kept):  # looked at after the log was read
                            break
                    self._write(kept)
                except ApiError as error:
                    if error.reason not in ("Conflict", "AlreadyExists", "NotFound"):
                        raise
                    kept.stored = None
                else:
                    return
            kept.since = None

    def _ours(self, kept: Kept) -> bool:
        """Whether nobody took the run over since its status was written here."""
        try:
            raw = self._client.get(kept.kind, kept.owner.name, kept.owner.namespace)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        if str(metadata(raw).get("uid")) != kept.owner.uid:
            return False
        return version_of(raw) == kept.version or (kept.fence > 0 and fence_of(raw) == kept.fence)

    def _learn(self, kept: Kept) -> None:
        """What lies there, as entries that compare with ours."""
        kept.log = self.logs.read(kept.owner)
        found: dict[str, list[Any]] = {}
        for path, text in kept.log.rows():
            found.setdefault(path, []).extend(json.loads(text))
        kept.stored = {}
        for path, entries in found.items():
            ours = kept.now.get(path, [])
            same = common([each.to_json() for each in ours[: len(entries)]], entries)
            # What differs is no entry of ours, whatever it is: it is written over.
            kept.stored[path] = [*ours[:same], *entries[same:]]

    def _write(self, kept: Kept) -> None:
        for record in records(kept.now, kept.stored or {}):
            self.logs.append(kept.owner, kept.log, record)
        kept.log.records = {}
        kept.stored = {path: list(entries) for path, entries in kept.now.items()}
        kept.since = None

    # ------------------------------------------------------------------ the thread

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="faultline series", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(max(0.05, min(0.5, FLUSH / 5))):
            due = time.monotonic() - FLUSH
            waiting = [kept for kept in tuple(self._kept.values()) if kept.since is not None]
            for kept in waiting:
                if (kept.since or due) <= due:
                    self._try(kept)
            with self._lock:
                if not waiting:
                    self._thread = None
                    return

    def _try(self, kept: Kept) -> None:
        try:
            self.flush(kept)
        except ApiError as error:
            _log.warning("series of %s are written later: %s", kept.owner.name, error.message)
            kept.since = time.monotonic()

    def close(self) -> None:
        """Write what is left, as far as that is possible."""
        self._ending.set()
        thread = self._thread
        if thread is not None:
            thread.join()
        for kept in tuple(self._kept.values()):
            if kept.since is not None:
                self._try(kept)
