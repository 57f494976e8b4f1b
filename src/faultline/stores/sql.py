"""Resources in an SQL database: one file on this host, or a PostgreSQL server for several.

One counter gives every change of anything its version, so that a watcher can resume from any of
them. What lists need, series and leases lie in tables of their own beside the documents.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faultline.errors import UnknownName
from faultline.stores import documents, summaries
from faultline.stores import leases as leasing
from faultline.stores.database import COUNTED, Database, Row
from faultline.stores.model import (
    Claimed,
    Closing,
    Event,
    Exists,
    Expired,
    Filter,
    Lease,
    R,
    Stale,
    Summary,
    kind_name,
)

if TYPE_CHECKING:
    from faultline.api.model import Resource
    from faultline.stores.series import Written

KEPT_DELETIONS = 1000  # how many deletions a watcher may lag behind
_REMEMBERED = 4096  # resources whose series this process can go on with without reading them
_COLUMNS = "kind, name, uid, version, generation, created, metadata, spec, status"
_ONE = "kind = ? AND name = ?"
_WHOLE = f"SELECT {_COLUMNS} FROM resources WHERE {_ONE}"  # noqa: S608 (constants)
_HEAD = (
    "SELECT r.kind, r.name, r.uid, r.version, r.generation, r.created, r.metadata, s.written"
    " FROM resources r JOIN summaries s ON s.kind = r.kind AND s.name = r.name"
    " WHERE r.kind = ? AND r.name = ?"
)
_OF_RESOURCE = ("resources", "summaries", "labels", "series", "leases")


@dataclass(slots=True)
class _Known:
    """What this process knows of a resource whose status it has written."""

    version: int  # of the store, after that write
    series: Written
    spec: object = None  # the one that the store has,
    generation: int = 0  # as long as it has this generation


class SqlStore(Closing):
    """A store. One instance may be used by several threads."""

    def __init__(self, where: Path | Database) -> None:
        if isinstance(where, Path):
            from faultline.stores.sqlite import SqliteDatabase

            where = SqliteDatabase(where)
        super().__init__()
        self._db: Database = where
        self._known: dict[tuple[str, str], _Known] = {}

    @property
    def shared(self) -> bool:
        """Whether engines of other hosts may use it too."""
        return self._db.shared

    def __repr__(self) -> str:
        return f"<store {self._db.words}>"

    def close(self) -> None:
        self._db.close()

    # ------------------------------------------------------------------ read

    def get(self, kind: type[R], name: str) -> R:
        with self._db.reading():
            return self._complete(kind, self._row(kind_name(kind), name))

    def list(
        self, kind: type[R], labels: dict[str, str] | None = None, limit: int | None = None
    ) -> list[R]:
        labelled, values = summaries.labelled(labels or {}, "r")
        with self._db.reading():
            rows = self._db.rows(
                f"SELECT {_COLUMNS} FROM resources r WHERE kind = ?{labelled}"  # noqa: S608 (constants)
                " ORDER BY created DESC, name DESC LIMIT ?",
                kind_name(kind), *values, _at_most(limit),
            )  # fmt: skip
            return [self._complete(kind, row) for row in rows]

    def summaries(
        self,
        kind: type[Resource] | str,
        where: Filter | None = None,
        limit: int | None = None,
        after: str = "",
    ) -> Sequence[Summary]:
        condition, values = summaries.condition(kind_name(kind), where or Filter(), after)
        rows = self._db.rows(
            f"SELECT {summaries.COLUMNS} FROM summaries s WHERE {condition}"  # noqa: S608
            " ORDER BY s.created DESC, s.name DESC LIMIT ?",
            *values, _at_most(limit),
        )  # fmt: skip
        return [summaries.read(row) for row in rows]

    def count(self, kind: type[Resource] | str, where: Filter | None = None) -> int:
        condition, values = summaries.condition(kind_name(kind), where or Filter())
        rows = self._db.rows(f"SELECT count(*) FROM summaries s WHERE {condition}", *values)  # noqa: S608
        return int(rows[0][0])

    def version(self) -> int:
        return int(self._db.rows(COUNTED)[0][0])

    # ------------------------------------------------------------------ write

    def create(self, resource: R, given: Resource | None = None) -> R:
        return self._add(resource, uuid.uuid4().hex, 1, time.time(), given)

    def restore(self, resource: R) -> R:
        meta = resource.metadata
        return self._add(
            resource,
            meta.uid or uuid.uuid4().hex,
            max(1, meta.generation),
            meta.creation_timestamp or time.time(),
        )

    def _add(
        self, resource: R, uid: str, generation: int, created: float, given: Resource | None = None
    ) -> R:
        from faultline.stores.series import Written

        kind, name, labels = resource.kind, resource.metadata.name, resource.metadata.labels
        spec, status, series = documents.parts(resource)
        row = [
            kind,
            name,
            uid,
            0,
            generation,
            created,
            documents.metadata(resource.metadata),
            documents.text(spec),
        ]
        with self._db.writing():
            if given is not None:
                self._checked(given)
            row[3] = version = self._db.bump()
            if not self._db.run(
                f"INSERT INTO resources ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
                " ON CONFLICT (kind, name) DO NOTHING",
                *row, None if status is None else documents.text(status),
            ):  # fmt: skip
                raise Exists(f"there is a {kind} {name!r} already")
            told = {
                "kind": kind, "name": name, "uid": uid, "version": version, "written": version,
                "created": created, **summaries.of_spec(name, labels, spec),
                **summaries.of_status(status),
            }  # fmt: skip
            marks = ", ".join("?" * len(told))
            self._db.run(
                f"INSERT INTO summaries ({', '.join(told)}) VALUES ({marks})",  # noqa: S608
                *told.values(),
            )
            self._label(kind, name, labels)
            leasing.add(self._db, kind, name)
            if series:
                Written().write(self._db, kind, name, series, anew=True)
        return documents.written(resource, row, version)

    def update(self, resource: R) -> R:
        spec, _, _ = documents.parts(resource, status=False)
        text, labels = documents.text(spec), resource.metadata.labels
        kind, name = resource.kind, resource.metadata.name
        with self._db.writing():
            row = self._checked(resource)
            version = self._db.bump()
            self._set("resources", kind, name, {
                "version": version, "metadata": documents.metadata(resource.metadata), "spec": text,
                "generation": row[4] + (text != row[7]),
            })  # fmt: skip
            self._set("summaries", kind, name, {
                "version": version, **summaries.of_spec(name, labels, spec),
            })  # fmt: skip
            self._db.run(f"DELETE FROM labels WHERE {_ONE}", kind, name)  # noqa: S608
            self._label(kind, name, labels)
            return self._complete(type(resource), self._row(kind, name))

    def write_status(self, resource: R, fence: int | None = None) -> R:
        from faultline.stores.series import Written

        kind, name = resource.kind, resource.metadata.name
        status, series = documents.status_parts(resource)
        known = self._known.pop((kind, name), None) or _Known(0, Written())
        fence = self.held.get(resource.metadata.uid) if fence is None else fence
        with self._db.writing():
            if fence is not None:
                leasing.check(self._db, kind, name, fence)
            *row, written = self._checked(resource, _HEAD)
            version = self._db.bump()
            if fence is not None:  # once more: here nobody can take it before this is written
                leasing.check(self._db, kind, name, fence, self._db.row_lock)
            self._set("resources", kind, name, {
                "version": version, "status": None if status is None else documents.text(status),
            })  # fmt: skip
            self._set("summaries", kind, name, {
                "version": version, "written": version, **summaries.of_status(status),
            })  # fmt: skip
            known.series.write(self._db, kind, name, series, anew=written != known.version)
            spec = self._spec_text(resource, row, known)
        done = documents.written(resource, row, version, spec)
        if not (status or {}).get("ended"):
            while len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            same: object = getattr(done, "spec")  # noqa: B009 (each kind has its own)
            self._known[kind, name] = _Known(version, known.series, same, row[4])
        return done

    def _spec_text(self, resource: Resource, row: Sequence[Any], known: _Known) -> str | None:
        """The spec of a resource, unless it is the one that the caller has: a writer may have
        altered its copy, and a write of the status does not change it.
        """
        spec: object = getattr(resource, "spec")  # noqa: B009 (each kind has its own)
        if known.spec is spec and known.generation == row[4]:
            return None
        ((text,),) = self._db.rows(f"SELECT spec FROM resources WHERE {_ONE}", *row[:2])  # noqa: S608
        ours, _, _ = documents.parts(resource, status=False)
        return None if documents.text(ours) == text else text

    def delete(self, kind: type[Resource] | str, name: str, version: int | None = None) -> None:
        named = kind_name(kind)
        with self._db.writing():
            row = self._row(named, name, self._db.row_lock)
            if version is not None and row[3] != version:
                raise Stale.since(named, name, version, row[3])
            gone = self._db.bump()
            for table in _OF_RESOURCE:
                self._db.run(f"DELETE FROM {table} WHERE {_ONE}", named, name)  # noqa: S608
            self._db.run("INSERT INTO deletions VALUES (?, ?, ?)", gone, named, name)
            self._forget_old_deletions()

    def _forget_old_deletions(self) -> None:
        old = self._db.rows(
            "SELECT version FROM deletions ORDER BY version DESC LIMIT 1 OFFSET ?", KEPT_DELETIONS
        )
        if old:
            self._db.run("DELETE FROM deletions WHERE version <= ?", *old[0])
            self._db.run("UPDATE horizon SET version = ?", *old[0])

    # ------------------------------------------------------------------ watch

    def watch(
        self,
        since: int,
        kind: type[Resource] | str | None = None,
        timeout: float | None = None,
        *,
        light: bool = False,
    ) -> Iterator[Event]:
        wanted = None if kind is None else kind_name(kind)
        with self._db.waiting() as wait:
            while True:
                until = None if timeout is None else time.monotonic() + timeout
                while self.version() <= since:
                    left = 3600.0 if until is None else until - time.monotonic()
                    if left <= 0:
                        return
                    wait(left)
                since, events = self._changes(since, wanted, light)
                yield from events

    def _changes(self, since: int, kind: str | None, light: bool) -> tuple[int, Sequence[Event]]:
        """The latest version and the changes after `since`, as of one instant."""
        of_kind, values = ("", ()) if kind is None else (" AND kind = ?", (kind,))
        with self._db.reading():
            if since < self._db.rows("SELECT version FROM horizon")[0][0]:
                raise Expired(f"changes since version {since} are no longer kept")
            latest = self.version()
            columns = "kind, name, uid, version" if light else _COLUMNS
            rows = self._db.rows(
                f"SELECT {columns} FROM resources WHERE version > ?{of_kind}",  # noqa: S608
                since, *values,
            )  # fmt: skip
            events = [
                Event("put", row[0], row[1], row[3], None if light else self._any(row))
                for row in rows
            ]
            gone = self._db.rows(
                f"SELECT kind, name, version FROM deletions WHERE version > ?{of_kind}",  # noqa: S608
                since, *values,
            )  # fmt: skip
        events += [Event("deleted", row[0], row[1], row[2], None) for row in gone]
        return latest, sorted(events, key=lambda event: event.version)

    # ------------------------------------------------------------------ leases

    def claim(
        self, kind: type[R], limit: int, holder: str, ttl: float, where: Filter | None = None
    ) -> Sequence[Claimed[R]]:
        with self._db.writing():
            taken = leasing.claim(self._db, kind_name(kind), limit, holder, ttl, where or Filter())
            found = [
                Claimed(self._complete(kind, self._row(lease.kind, lease.name)), lease)
                for lease in taken
            ]
        self.held.update({each.resource.metadata.uid: each.lease.fence for each in found})
        return found

    def renew(self, leases: Sequence[Lease], ttl: float) -> Sequence[Lease]:
        with self._db.writing():
            return leasing.renew(self._db, leases, ttl)

    def release(self, lease: Lease) -> None:
        self.let_go(lease)
        leasing.release(self._db, lease)

    # ------------------------------------------------------------------ inside

    def _row(self, kind: str, name: str, lock: str = "", query: str = _WHOLE) -> Row:
        rows = self._db.rows(f"{query}{lock}", kind, name)
        if not rows:
            raise UnknownName(f"there is no {kind} {name!r}")
        return rows[0]

    def _checked(self, resource: Resource, query: str = _WHOLE) -> Row:
        row = self._row(resource.kind, resource.metadata.name, self._db.row_lock, query)
        if row[3] != resource.metadata.resource_version or row[2] != resource.metadata.uid:
            raise Stale.since(row[0], row[1], resource.metadata.resource_version, row[3])
        return row

    def _set(self, table: str, kind: str, name: str, columns: dict[str, Any]) -> None:
        sets = ", ".join(f"{column} = ?" for column in columns)
        self._db.run(f"UPDATE {table} SET {sets} WHERE {_ONE}", *columns.values(), kind, name)  # noqa: S608

    def _label(self, kind: str, name: str, labels: dict[str, str]) -> None:
        rows = summaries.label_rows(kind, name, labels)
        self._db.many("INSERT INTO labels (kind, label, value, name) VALUES (?, ?, ?, ?)", rows)

    def _complete(self, kind: type[R], row: Row) -> R:
        series = self._db.rows(
            f"SELECT path, entries FROM series WHERE {_ONE} ORDER BY path, part",  # noqa: S608
            *row[:2],
        )
        return documents.resource(kind, row, series)

    def _any(self, row: Row) -> Resource:
        from faultline.api.kinds import KINDS

        return self._complete(KINDS[row[0]], row)


def _at_most(limit: int | None) -> int:
    return 2**31 - 1 if limit is None else limit
