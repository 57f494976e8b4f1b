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
from contextlib import ExitStack, contextmanager
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
_MOST = 64  # writes that go to disk together
_LONGEST = 0.02  # seconds that the first of them waits for the others to be made


class _Group:
    """Writes that go to disk together."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.writes = 0
        self.settled = threading.Event()
        self.error: StoreFailed | None = None

    @property
    def full(self) -> bool:
        return self.writes >= _MOST or time.monotonic() - self.begun >= _LONGEST


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
        self._turn = threading.Lock()  # for writing
        self._writer: int | None = None  # the thread whose turn it is
        self._queued = 0
        self._queue = threading.Lock()  # of those who want a turn
        self._group: _Group | None = None
        self._look = threading.RLock()  # for reading
        self._reader: sqlite3.Connection | None = None
        try:
            path.touch(mode=0o600, exist_ok=True)
            check_trust(path)
            self._db = self._connected()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the store {path} cannot be opened: {error}", hint="name another: --store PATH|URL"
            ) from error
        try:
            with self._telling():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
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
            self._db.execute(f"PRAGMA user_version = {schema.HEAD}")

    def _found(self) -> int:
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found > schema.HEAD:
            raise InvalidDocument(
                f"{self.words} has schema {found}; this version reads up to {schema.HEAD}",
                hint="use the version that wrote it, or upgrade",
            )
        return found

    def close(self) -> None:
        with self._turn, self._look:
            self._db.close()
            if self._reader is not None:
                self._reader.close()

    # ------------------------------------------------------------------ statements

    def rows(self, query: str, *values: Any) -> list[Row]:
        if self._writing:
            with self._telling():
                return self._db.execute(query, values).fetchall()
        with self._look, self._telling():
            return self._reading().execute(query, values).fetchall()

    def run(self, statement: str, *values: Any) -> int:
        if not self._writing:
            with self.writing():
                return self.run(statement, *values)
        with self._telling():
            return self._db.execute(statement, values).rowcount

    def many(self, statement: str, values: Iterable[Row]) -> None:
        if not self._writing:
            with self.writing():
                return self.many(statement, values)
        with self._telling():
            self._db.executemany(statement, values)
        return None

    @property
    def _writing(self) -> bool:
        """Whether this thread is within a transaction that writes."""
        return self._writer == threading.get_ident()

    def _reading(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = self._connected()
        return self._reader

    @contextmanager
    def reading(self) -> Generator[None]:
        with self._look:
            with self._telling():
                reader = self._reading()
                reader.execute("BEGIN")
            try:
                yield
            finally:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")

    # ------------------------------------------------------------------ writing

    @contextmanager
    def writing(self) -> Generator[None]:
        if self._writing:
            raise RuntimeError("a transaction of this thread is under way")
        with self._queue:
            self._queued += 1
        with ExitStack() as after, self._my_turn():
            group = self._group or self._begun()
            # Whoever has the last turn puts it on disk; from then on it has been written. Who
            # was refused waits too: he will look at what the others wrote.
            after.callback(group.settled.wait)
            try:
                with self._within(group):
                    yield
            finally:
                if self._group is group and (group.full or not self._queued):
                    self._settle(group)
        if group.error is not None:
            raise StoreFailed(group.error.message, hint=group.error.hint) from group.error

    @contextmanager
    def _my_turn(self) -> Generator[None]:
        """When it comes, this thread is the one that writes."""
        left = False
        try:
            with self._turn:
                with self._queue:
                    self._queued -= 1
                    left = True
                self._writer = threading.get_ident()
                try:
                    yield
                finally:
                    self._writer = None
        finally:
            if not left:  # interrupted while it waited: others may wait for it
                with self._queue:
                    self._queued -= 1
                with self._turn:
                    if self._group is not None and not self._queued:
                        self._settle(self._group)

    def _begun(self) -> _Group:
        with self._telling():
            self._db.execute("BEGIN IMMEDIATE")
        self._group = _Group()
        return self._group

    @contextmanager
    def _within(self, group: _Group) -> Generator[None]:
        """All or nothing of what is done within; the others of the group keep what they did."""
        try:
            with self._telling():
                self._db.execute("SAVEPOINT one")
            yield
            with self._telling():
                self._db.execute("RELEASE one")
            group.writes += 1
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO one")
                self._db.execute("RELEASE one")
            else:  # a full disk has rolled all of it back
                group.error = self._failed(error)
                self._settle(group)
            raise

    def _settle(self, group: _Group) -> None:
        """Put all of it on disk; what does not get there is told to everybody who wrote it."""
        self._group = None
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT" if group.writes else "ROLLBACK")
        except sqlite3.Error as error:
            group.error = self._failed(error)
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except BaseException as error:
            group.error = self._failed(error)
            raise
        finally:
            group.settled.set()

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> StoreFailed:
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
