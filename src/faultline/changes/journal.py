"""The journal: what was there before, written durably before the first change.

SQLite in WAL mode with `synchronous=FULL` (https://sqlite.org/wal.html): a record that was accepted
is on disk. The file and its log are grown beforehand, so that the journal can be written on a full
disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Self

from faultline.changes.model import SCHEMA, End, Record, State, Undone
from faultline.changes.store import Store
from faultline.errors import Conflict, InvalidDocument, JournalFailed, NotRecorded, UnknownName

if TYPE_CHECKING:
    from collections.abc import Generator

PATIENCE = 5.0  # seconds for which somebody else's write is waited for
GROWN = 1 << 20  # bytes kept ready in the file and in its log; a record takes some 4 KiB
_ORDER = list(State)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS records (
    uid TEXT PRIMARY KEY, fault TEXT NOT NULL, state TEXT NOT NULL, boot_id TEXT NOT NULL,
    deadline INTEGER NOT NULL, created REAL NOT NULL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS claims (claim TEXT PRIMARY KEY, uid TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_state ON records (state, created);
CREATE TABLE IF NOT EXISTS filler (data BLOB);
PRAGMA user_version = {SCHEMA};
"""


def write_ahead(database: sqlite3.Connection) -> None:
    """Keep a write-ahead log (https://sqlite.org/wal.html), for good; raises sqlite3.Error.

    Where several make the same new file at once SQLite does not wait for the one that is ahead, as
    it does everywhere else: it says SQLITE_BUSY at once.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


class Journal:
    """One connection to the journal of a store. Not shared between threads."""

    def __init__(self, store: Store) -> None:
        self.path = store.journal
        try:
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            with ExitStack() as failed:
                self._db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
                failed.callback(self._db.close)
                self._prepare()
                failed.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise JournalFailed(
                f"the journal {self.path} could not be opened: {error}",
                hint="what is in place is found without it: faultline recover --scan",
            ) from error

    def _prepare(self) -> None:
        write_ahead(self._db)
        self._db.execute("PRAGMA synchronous=FULL")
        # Far below what the log is grown to, so that it starts over before it would need room.
        self._db.execute("PRAGMA wal_autocheckpoint=64")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise InvalidDocument(
                f"the journal {self.path} has schema {version}, this version reads up to {SCHEMA}",
                hint="use the version that wrote it, or a newer one",
            )
        if version < SCHEMA:
            self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def grow(self) -> None:
        """Write and delete ballast, so that file and log have room on a disk that is full later.

        The log keeps its size while a connection stays open, which is why each keeper calls this.
        """
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size >= GROWN:
            return
        # On a disk that is full already what is there has to do; the next record says whether it
        # does.
        with suppress(sqlite3.OperationalError):
            with self._transaction():
                self._db.execute("INSERT INTO filler VALUES (zeroblob(?))", (GROWN,))
                self._db.execute("DELETE FROM filler")
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise

    def add(self, record: Record, claims: Iterable[str] = ()) -> None:
        """Write a new record; raises Conflict for a uid or a claim that is taken, naming the
        holder.
        """
        try:
            with self._transaction():
                if self._db.execute("SELECT 1 FROM records WHERE uid=?", (record.uid,)).fetchone():
                    raise Conflict(
                        f"uid {record.uid!r} is taken",
                        holder=record.uid,
                        hint="choose another --uid",
                    )
                for claim in claims:
                    row = self._db.execute(
                        "SELECT uid FROM claims WHERE claim=?", (claim,)
                    ).fetchone()
                    if row:
                        raise Conflict(f"{claim} is held by fault {row[0]}", holder=row[0])
                    self._db.execute("INSERT INTO claims VALUES (?,?)", (claim, record.uid))
                self._write(record)
        except sqlite3.Error as error:
            raise NotRecorded(
                f"the journal {self.path} did not accept the record: {error}"
            ) from error

    def _write(self, record: Record) -> None:
        row = (
            record.uid,
            record.fault,
            record.state,
            record.boot_id,
            record.deadline,
            record.created,
        )
        text = json.dumps(record.to_json(), separators=(",", ":"))
        self._db.execute("INSERT OR REPLACE INTO records VALUES (?,?,?,?,?,?,?)", (*row, text))

    def change(self, uid: str, alter: Callable[[Record], None], *, durable: bool = True) -> Record:
        """Read, alter and write one record in one transaction; its state never moves backwards.

        What is not `durable` outlives us and is only lost with the power: for what an undo does
        not rely on.
        """
        try:
            with nullcontext() if durable else self._hurried():
                return self._change(uid, alter)
        except sqlite3.Error as error:
            raise JournalFailed(
                f"the journal {self.path} could not be written: {error}",
                hint="the keepers hold the fault and write it down when they can",
            ) from error

    @contextmanager
    def _hurried(self) -> Generator[None]:
        """Without waiting for the disk at each transaction."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def _change(self, uid: str, alter: Callable[[Record], None]) -> Record:
        with self._transaction():
            record = self.get(uid)
            before = record.state
            alter(record)
            if _ORDER.index(record.state) < _ORDER.index(before):
                record.state = before
            self._write(record)
            if record.state is State.ENDED and not _unfinished(record):
                self._db.execute("DELETE FROM claims WHERE uid=?", (uid,))
        return record

    def end(self, uid: str, end: End, steps_of: Record | None = None) -> Record:
        """Close a record; `needs a person` stays open for another try, the rest is final."""

        def alter(record: Record) -> None:
            if record.state is State.ENDED and record.end is not End.PERSON:
                return
            if steps_of is not None:
                for mine, undone in zip(record.steps, steps_of.steps, strict=True):
                    mine.outcome, mine.state = undone.outcome, undone.state
            record.state, record.end = State.ENDED, end
            record.ended = (steps_of.ended if steps_of else None) or time.time()
            record.note = (steps_of.note if steps_of else "") or record.note

        return self.change(uid, alter)

    def get(self, uid: str) -> Record:
        row = self._db.execute("SELECT data FROM records WHERE uid=?", (uid,)).fetchone()
        if not row:
            raise UnknownName(
                f"no fault with uid {uid!r} in {self.path}", hint="list them: faultline query"
            )
        return Record.from_json(json.loads(row[0]))

    def list(
        self, state: str | None = None, fault: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Records, newest first."""
        rows = self._db.execute(
            "SELECT data FROM records WHERE state=ifnull(?,state) AND fault=ifnull(?,fault)"
            " ORDER BY created DESC LIMIT ?",
            (state, fault, -1 if limit is None else limit),
        )
        return [Record.from_json(json.loads(row[0])) for row in rows]

    def open_records(self) -> list[Record]:
        """Every fault that has not ended, oldest first."""
        rows = self._db.execute(
            "SELECT data FROM records WHERE state != 'ended' ORDER BY created"
        ).fetchall()
        return [Record.from_json(json.loads(row[0])) for row in rows]

    def ended_before(self, instant: float) -> list[Record]:
        """The faults that ended before then (seconds since 1970) and leave nothing to anybody."""
        ended = self.list(State.ENDED)
        return [
            record
            for record in ended
            if record.end is not End.PERSON
            and not _unfinished(record)
            and (record.ended or record.created) < instant
        ]

    def forget(self, uids: Iterable[str]) -> None:
        """Remove the records of faults that have ended."""
        try:
            with self._transaction():
                for uid in uids:
                    self._db.execute("DELETE FROM records WHERE uid=? AND state='ended'", (uid,))
        except sqlite3.Error as error:
            raise JournalFailed(f"the journal {self.path} could not be written: {error}") from error

    def any_open(self) -> bool:
        return bool(
            self._db.execute("SELECT 1 FROM records WHERE state != 'ended' LIMIT 1").fetchone()
        )


def _unfinished(record: Record) -> bool:
    """Whether something of it is still in the way of the next fault: an undo that failed."""
    return any(step.outcome and step.outcome.end is Undone.FAILED for step in record.steps)
