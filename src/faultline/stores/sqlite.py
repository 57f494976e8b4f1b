"""A database in one file, with the standard library alone; any number of processes may use it.

WAL with full synchronisation: what was acknowledged is there after a crash of the machine. Writes
of several threads that wait at the same time are put on disk together, each within a savepoint, so
that one that fails takes nothing of the others with it; none is acknowledged before all are there.
Source: https://sqlite.org/wal.html, https://sqlite.org/lang_transaction.html,
https://sqlite.org/lang_savepoint.html.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from faultline.changes.journal import write_ahead
from faultline.changes.store import check_trust
from faultline.errors import InvalidDocument, UsageError
from faultline.kernel import clock
from faultline.stores import schema
from faultline.stores.database import COUNTED, Row, Wait
from faultline.stores.grouping import Groups
from faultline.stores.model import StoreFailed

PATIENCE = 30.0  # seconds that another writer is waited for
_POLL = 0.05  # seconds between looks of a watcher; one look takes about 10 us
_MOST = 64  # writes that go to disk together


class _Shared:
    """The transaction of the connection that writes."""

    def __init__(self, of: SqliteDatabase) -> None:
        self._of = of

    def begin(self) -> None:
        self._do("BEGIN IMMEDIATE")

    def save(self, first: bool) -> None:
        self._do("SAVEPOINT one")

    def keep(self) -> None:
        self._do("RELEASE one")

    def undo(self, first: bool) -> bool:
        if not self._of.connection.in_transaction:
            return False  # a full disk has rolled all of it back
        self._do("ROLLBACK TO one")
        self._do("RELEASE one")
        return True

    def commit(self) -> None:
        self._do("COMMIT")

    def rollback(self) -> None:
        if self._of.connection.in_transaction:
            self._of.connection.execute("ROLLBACK")

    def failed(self, error: BaseException) -> StoreFailed:
        return self._of.failed(error)

    def _do(self, statement: str) -> None:
        with self._of.telling():
            self._of.connection.execute(statement)


class SqliteDatabase:
    """Two connections: one that writes, one that reads and so sees only what is on disk. On each of
    them threads take turns: what a transaction of one sees, no other can disturb.
    """

    shared = False
    row_lock = ""  # BEGIN IMMEDIATE has locked all of it
    skip_locked = ""

    def __init__(self, path: Path) -> None:
        self.words = str(path)
        self._path = path
        self._groups = Groups(_Shared(self), _MOST)
        self._look = threading.RLock()  # for reading
        self._reader: sqlite3.Connection | None = None
        try:
            path.touch(mode=0o600, exist_ok=True)
            check_trust(path)
            self.connection = self._connected()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the store {path} cannot be opened: {error}", hint="name another: --store PATH|URL"
            ) from error
        try:
            with self.telling():
                write_ahead(self.connection)
                self.connection.execute("PRAGMA synchronous = FULL")
                self._migrate()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )

    def _migrate(self) -> None:
        if self._found() == schema.HEAD:
            return
        with self.writing():
            found = self._found()  # another process may have been first
            for revision in schema.revisions()[found:]:
                schema.apply(revision, "sqlite", lambda query, values: self.rows(query, *values))
            self.connection.execute(f"PRAGMA user_version = {schema.HEAD}")

    def _found(self) -> int:
        found = int(self.connection.execute("PRAGMA user_version").fetchone()[0])
        if found > schema.HEAD:
            raise InvalidDocument(
                f"{self.words} has schema {found}; this version reads up to {schema.HEAD}",
                hint="use the version that wrote it, or upgrade",
            )
        return found

    def close(self) -> None:
        with self._groups.turn, self._look:
            self.connection.close()
            if self._reader is not None:
                self._reader.close()

    # ------------------------------------------------------------------ statements

    def rows(self, query: str, *values: Any) -> list[Row]:
        if self._groups.mine:
            with self.telling():
                return self.connection.execute(query, values).fetchall()
        with self._look, self.telling():
            return self._reading().execute(query, values).fetchall()

    def run(self, statement: str, *values: Any) -> int:
        if not self._groups.mine:
            with self.writing():
                return self.run(statement, *values)
        with self.telling():
            return self.connection.execute(statement, values).rowcount

    def many(self, statement: str, values: Iterable[Row]) -> None:
        if not self._groups.mine:
            with self.writing():
                return self.many(statement, values)
        with self.telling():
            self.connection.executemany(statement, values)
        return None

    def _reading(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = self._connected()
        return self._reader

    @contextmanager
    def reading(self) -> Generator[None]:
        with self._look:
            with self.telling():
                reader = self._reading()
                reader.execute("BEGIN")
            try:
                yield
            finally:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")

    def writing(self) -> AbstractContextManager[None]:
        return self._groups.writing()

    @contextmanager
    def telling(self) -> Generator[None]:
        """What the database says against it is StoreFailed."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.failed(error) from error

    def failed(self, error: BaseException) -> StoreFailed:
        """That it did not do what was asked."""
        return StoreFailed(
            f"the store {self.words} did not do it: {error}",
            hint="is its disk full, or does another process hold it?",
        )

    # ------------------------------------------------------------------ what differs

    def bump(self) -> int:
        self.run("UPDATE counter SET version = version + 1")
        return int(self.rows(COUNTED)[0][0])

    def clock(self) -> tuple[str, float]:
        return clock.boot_id(), clock.now() / 1e9

    @contextmanager
    def waiting(self) -> Generator[Wait]:
        yield lambda seconds: time.sleep(min(seconds, _POLL))
