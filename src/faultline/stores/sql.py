"""Resources in one SQLite file; any number of processes may read and write it at once.

WAL with full synchronisation: what was acknowledged is there after a crash of the machine. One
counter gives every change of anything its version, so that a watcher can resume from any of them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

from faultline.api.document import read
from faultline.api.kinds import KINDS
from faultline.api.model import Resource
from faultline.changes.store import check_trust, open_store
from faultline.errors import InvalidDocument, UnknownName
from faultline.stores.model import Event, Exists, Expired, R, Stale

SCHEMA = 1
KEPT_DELETIONS = 1000  # how many deletions a watcher may lag behind
_POLL = 0.05  # seconds between looks of a watcher; one look takes about 10 us

_TABLES = """
CREATE TABLE IF NOT EXISTS resources (
    kind TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
    version INTEGER NOT NULL, generation INTEGER NOT NULL, created REAL NOT NULL,
    metadata TEXT NOT NULL, spec TEXT NOT NULL, status TEXT,
    PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS resources_version ON resources (version);
CREATE INDEX IF NOT EXISTS resources_created ON resources (kind, created DESC, name DESC);
CREATE TABLE IF NOT EXISTS deletions (version INTEGER PRIMARY KEY, kind TEXT, name TEXT);
CREATE TABLE IF NOT EXISTS counter (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER);
CREATE TABLE IF NOT EXISTS horizon (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER);
INSERT OR IGNORE INTO counter VALUES (1, 0);
INSERT OR IGNORE INTO horizon VALUES (1, 0);
"""
_COLUMNS = "kind, name, uid, version, generation, created, metadata, spec, status"


def open_sql_store(state: Path | None = None) -> SqlStore:
    """The store of this host, in the state folder; refuses one that others could write."""
    return SqlStore(open_store(state).state / "resources.db")


class SqlStore:
    """A store in a file. One instance may be used by several threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch(mode=0o600, exist_ok=True)
        check_trust(path)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._prepare()

    def _prepare(self) -> None:
        found = self._one("PRAGMA user_version")[0]
        if found > SCHEMA:
            raise InvalidDocument(
                f"{self.path} has schema {found}; this version reads up to {SCHEMA}",
                hint="use the version that wrote it, or upgrade",
            )
        if found == SCHEMA:
            return
        with self._writing():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------------ read

    def get(self, kind: type[R], name: str) -> R:
        with self._lock:
            return _resource(kind, self._row(_kind(kind), name))

    def list(
        self, kind: type[R], labels: dict[str, str] | None = None, limit: int | None = None
    ) -> list[R]:
        wanted = labels or {}
        found: list[R] = []
        query = f"SELECT {_COLUMNS} FROM resources WHERE kind = ? ORDER BY created DESC, name DESC"  # noqa: S608 (constants)
        with self._lock:
            for row in self._db.execute(query, (_kind(kind),)):
                if limit is not None and len(found) >= limit:
                    break
                has: dict[str, str] = json.loads(row[6])["labels"]
                if wanted.items() <= has.items():
                    found.append(_resource(kind, row))
        return found

    def version(self) -> int:
        with self._lock:
            return int(self._one("SELECT version FROM counter")[0])

    # ------------------------------------------------------------------ write

    def create(self, resource: R) -> R:
        kind, name = resource.kind, resource.metadata.name
        with self._writing():
            if self._db.execute(
                "SELECT 1 FROM resources WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone():
                raise Exists(f"there is a {kind} {name!r} already")
            spec, status = _texts(resource)
            row = (
                kind, name, uuid.uuid4().hex, self._next(), 1, time.time(), _metadata(resource),
                spec, status,
            )  # fmt: skip
            marks = ", ".join("?" * len(row))
            self._db.execute(f"INSERT INTO resources ({_COLUMNS}) VALUES ({marks})", row)  # noqa: S608
        return _resource(type(resource), row)

    def update(self, resource: R) -> R:
        spec, _ = _texts(resource)
        with self._writing():
            row = self._checked(resource)
            generation = row[4] + (spec != row[7])
            return self._put(
                resource, {"generation": generation, "metadata": _metadata(resource), "spec": spec}
            )

    def write_status(self, resource: R) -> R:
        _, status = _texts(resource)
        with self._writing():
            self._checked(resource)
            return self._put(resource, {"status": status})

    def delete(self, kind: type[Resource], name: str, version: int | None = None) -> None:
        with self._writing():
            row = self._row(_kind(kind), name)
            if version is not None and row[3] != version:
                raise _stale(row[0], name, version, row[3])
            self._db.execute("DELETE FROM resources WHERE kind = ? AND name = ?", row[:2])
            gone = self._next()
            self._db.execute("INSERT INTO deletions VALUES (?, ?, ?)", (gone, *row[:2]))
            self._forget_old_deletions()

    def _forget_old_deletions(self) -> None:
        old = self._db.execute(
            "SELECT version FROM deletions ORDER BY version DESC LIMIT 1 OFFSET ?",
            (KEPT_DELETIONS,),
        ).fetchone()
        if old:
            self._db.execute("DELETE FROM deletions WHERE version <= ?", old)
            self._db.execute("UPDATE horizon SET version = ?", old)

    # ------------------------------------------------------------------ watch

    def watch(
        self, since: int, kind: type[Resource] | None = None, timeout: float | None = None
    ) -> Iterator[Event]:
        while True:
            until = None if timeout is None else time.monotonic() + timeout
            while self.version() <= since:
                left = _POLL if until is None else min(_POLL, until - time.monotonic())
                if left <= 0:
                    return
                time.sleep(left)
            latest, events = self._changes(since)
            for event in events:
                if kind is None or event.kind == _kind(kind):
                    yield event
            since = latest

    def _changes(self, since: int) -> tuple[int, list[Event]]:
        """The latest version and all changes after `since`, as of one instant."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                if since < self._one("SELECT version FROM horizon")[0]:
                    raise Expired(f"changes since version {since} are no longer kept")
                latest = self.version()
                rows = self._db.execute(
                    f"SELECT {_COLUMNS} FROM resources WHERE version > ?",  # noqa: S608
                    (since,),
                ).fetchall()
                gone = self._db.execute(
                    "SELECT kind, name, version FROM deletions WHERE version > ?", (since,)
                ).fetchall()
            finally:
                self._db.execute("ROLLBACK")
        events = [Event("put", r[0], r[1], r[3], _resource(KINDS[r[0]], r)) for r in rows]
        events += [Event("deleted", kind, name, version, None) for kind, name, version in gone]
        return latest, sorted(events, key=lambda event: event.version)

    # ------------------------------------------------------------------ inside

    @contextmanager
    def _writing(self) -> Generator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _one(self, query: str) -> tuple[Any, ...]:
        return self._db.execute(query).fetchone()

    def _next(self) -> int:
        self._db.execute("UPDATE counter SET version = version + 1")
        return int(self._one("SELECT version FROM counter")[0])

    def _row(self, kind: str, name: str) -> tuple[Any, ...]:
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM resources WHERE kind = ? AND name = ?",  # noqa: S608
            (kind, name),
        ).fetchone()
        if row is None:
            raise UnknownName(f"there is no {kind} {name!r}")
        return row

    def _checked(self, resource: Resource) -> tuple[Any, ...]:
        row = self._row(resource.kind, resource.metadata.name)
        if row[3] != resource.metadata.resource_version or row[2] != resource.metadata.uid:
            raise _stale(row[0], row[1], resource.metadata.resource_version, row[3])
        return row

    def _put(self, resource: R, columns: dict[str, Any]) -> R:
        columns["version"] = self._next()
        sets = ", ".join(f"{name} = ?" for name in columns)
        key = (resource.kind, resource.metadata.name)
        self._db.execute(
            f"UPDATE resources SET {sets} WHERE kind = ? AND name = ?",  # noqa: S608
            (*columns.values(), *key),
        )
        return _resource(type(resource), self._row(*key))


def _stale(kind: str, name: str, read: int, now: int) -> Stale:
    return Stale(f"{kind} {name!r} was read at version {read} and is now at {now}")


def _kind(kind: type[Resource]) -> str:
    return cast(str, kind.model_fields["kind"].default)


def _metadata(resource: Resource) -> str:
    meta = resource.metadata
    return json.dumps({"labels": meta.labels, "annotations": meta.annotations})


def _texts(resource: Resource) -> tuple[str, str | None]:
    """Spec and status as JSON text."""
    data = resource.to_json()
    status = data.get("status")
    spec = json.dumps(data["spec"], separators=(",", ":"))
    return spec, None if status is None else json.dumps(status, separators=(",", ":"))


def _resource(kind: type[R], row: tuple[Any, ...]) -> R:
    _, name, uid, version, generation, created, metadata, spec, status = row
    data: dict[str, Any] = {
        "kind": _kind(kind),
        "metadata": {
            "name": name,
            "uid": uid,
            "resourceVersion": version,
            "generation": generation,
            "creationTimestamp": created,
            **json.loads(metadata),
        },
        "spec": json.loads(spec),
    }
    if status is not None:
        data["status"] = json.loads(status)
    return read(kind, data, f"{_kind(kind)} {name!r}")
