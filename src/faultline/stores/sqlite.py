"""A database in one file, with the standard library alone; any number of processes may use it.

WAL with full synchronisation: what was acknowledged is there after a crash of the machine.
Source: https://sqlite.org/wal.html, https://sqlite.org/lang_transaction.html.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from faultline.changes.store import check_trust
from faultline.errors import InvalidDocument, UsageError
from faultline.kernel import clock
from faultline.stores import schema
from faultline.stores.database import COUNTED, Row, Wait
from faultline.stores.model import StoreFailed

PATIENCE = 30.0  # seconds that another writer is waited for
_POLL = 0.05  # seconds between looks of a watcher; one look takes about 10 us


class SqliteDatabase:
    """One connection. Threads take turns: what a transaction of one sees, no other can disturb."""

    shared = False
    row_lock = ""  # BEGIN IMMEDIATE has locked all of it
    skip_locked = ""

    def __init__(self, path: Path) -> None:
        self.words = str(path)
        self._lock = threading.RLock()
        try:
            path.touch(mode=0o600, exist_ok=True)
            check_trust(path)
            self._db = sqlite3.connect(
                path,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=128,
            )
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the store {path} cannot be opened: {error}", hint="name another: --store PATH|URL"
            ) from error
        with self._telling():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()

    def _migrate(self) -> None:
        if self._found() == schema.HEAD:
            return
        with self.writing():
            found = self._found()  # another process may have been first
            for revision in schema.revisions()[found:]:
                schema.apply(revision, "sqlite", lambda query, values: self.rows(query, *values))
            self._db.execute(f"PRAGMA user_version = {schema.HEAD}")

    def _found(self) -> int:
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found > schema.HEAD:
            self.close()
            raise InvalidDocument(
                f"{self.words} has schema {found}; this version reads up to {schema.HEAD}",
                hint="use the version that wrote it, or upgrade",
            )
        return found

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------------ statements

    def rows(self, query: str, *values: Any) -> list[Row]:
        with self._lock, self._telling():
            return self._db.execute(query, values).fetchall()

    def run(self, statement: str, *values: Any) -> int:
        with self._lock, self._telling():
            return self._db.execute(statement, values).rowcount

    def many(self, statement: str, values: Iterable[Row]) -> None:
        with self._lock, self._telling():
            self._db.executemany(statement, values)

    def reading(self) -> AbstractContextManager[None]:
        return self._transaction("BEGIN", "ROLLBACK")

    def writing(self) -> AbstractContextManager[None]:
        return self._transaction("BEGIN IMMEDIATE", "COMMIT")

    @contextmanager
    def _transaction(self, begin: str, end: str) -> Generator[None]:
        with self._lock:
            with self._telling():
                self._db.execute(begin)
            try:
                yield
                with self._telling():
                    self._db.execute(end)
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFailed(
                f"the store {self.words} did not do it: {error}",
                hint="is its disk full, or does another process hold it?",
            ) from error

    # ------------------------------------------------------------------ what differs

    def bump(self) -> int:
        self.run("UPDATE counter SET version = version + 1")
        return int(self.rows(COUNTED)[0][0])

    def clock(self) -> tuple[str, float]:
        return clock.boot_id(), clock.now() / 1e9

    @contextmanager
    def waiting(self) -> Generator[Wait]:
        yield lambda seconds: time.sleep(min(seconds, _POLL))
