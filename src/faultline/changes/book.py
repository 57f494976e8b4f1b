"""What a keeper holds in memory: the armed faults, opened and rehearsed before they are applied."""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faultline.changes import undo
from faultline.changes.journal import Journal
from faultline.changes.lease import Lease
from faultline.changes.lock import FaultLock
from faultline.changes.model import End, Record, State
from faultline.changes.store import Store
from faultline.errors import FaultlineError, JournalFailed, TargetGone
from faultline.kernel import clock

if TYPE_CHECKING:
    from faultline.changes.kind import Context
    from faultline.kernel.netlink import Netlink

RETRY = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between tries of an undo that failed


@dataclass(slots=True)
class Armed:
    """One fault that this keeper will undo."""

    record: Record
    contexts: list[Context]
    lock: FaultLock
    netlink: Netlink | None
    due: int  # CLOCK_BOOTTIME ns at which this keeper acts
    committed: bool = False
    running: bool = False
    tries: int = 0
    done: list[Callable[[Record], None]] = field(default_factory=list["Callable[[Record], None]"])
    lease: Lease | None = None
    late: int = 0  # ns after a deadline or the end of a lease at which this keeper acts

    @property
    def acts(self) -> int:
        """When this keeper acts: at the deadline or, if that is sooner, the end of the lease."""
        if self.lease is None or self.tries:  # what has failed waits for its next try
            return self.due
        return min(self.due, self.lease.until() + self.late)

    def close(self) -> None:
        if self.lease is not None:
            self.lease.close()
        self.lock.close()
        if self.netlink is not None:
            self.netlink.close()
        undo.release(self.contexts)


def arm(store: Store, code: str, record: Record, netlink: Netlink | None, late: int) -> Armed:
    """Open what undo needs and walk through its code once, so that it is in memory.

    `late` nanoseconds after the deadline is when this keeper acts: the twin acts a little later.
    """
    contexts = undo.contexts(record, netlink, str(store.run), code)
    armed = Armed(
        record,
        contexts,
        FaultLock(store.lock(record.uid), undo.patience(record)),
        netlink,
        record.deadline + late,
        lease=Lease(store.run, record.lease) if record.lease else None,
        late=late,
    )
    try:
        for step, ctx in zip(record.steps, contexts, strict=True):
            try:
                ctx.handed = undo.kind_of(step).hold(step.change.spec, step.prior, ctx)
            except TargetGone:
                if not undo.ended_with_target(record):
                    raise  # else it went with the place, and the undo says so
        undo.residue(record, contexts)  # the rehearsal: touches nothing, loads everything
    except BaseException:
        armed.close()
        raise
    return armed


def over(store: Store, record: Record) -> bool:
    """Whether the lease that a record names has ended; a fault that names none has none."""
    if not record.lease:
        return False
    lease = Lease(store.run, record.lease)
    try:
        return lease.until() <= clock.now()
    finally:
        lease.close()


class Reserve:
    """Descriptors held for nothing, so that there are some for undoing when none are left."""

    def __init__(self, count: int = 16) -> None:
        self._count = count
        self._held: list[int] = []
        self._users = 0
        self._turn = threading.Lock()
        self._hold()

    def _hold(self) -> None:
        with contextlib.suppress(OSError):  # fewer than wanted; more when there are again
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def __enter__(self) -> None:
        with self._turn:
            self._users += 1
            while self._held:
                os.close(self._held.pop())

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._users -= 1
            if not self._users:
                self._hold()


class Undoer:
    """Threads that were started before any fault, so that undoing needs no new task.

    An undo that hangs on a hung disk must not keep the next one from being on time, and writing the
    journal comes after undoing, in a thread of its own.
    """

    def __init__(self, store: Store, wake: Callable[[], None], threads: int = 2) -> None:
        self._store = store
        self._wake = wake
        self._work: queue.SimpleQueue[Armed] = queue.SimpleQueue()
        self._notes: queue.SimpleQueue[Armed] = queue.SimpleQueue()
        self.finished: queue.SimpleQueue[Armed] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._reserve = Reserve()
        threading.stack_size(512 * 1024)
        targets = [self._undo] * threads + [self._write]
        for target in targets:
            threading.Thread(target=target, daemon=True).start()
        self._ready.wait(10.0)  # the journal is open before any fault is taken

    def submit(self, armed: Armed) -> None:
        armed.running = True
        self._work.put(armed)

    def _undo(self) -> None:
        while True:
            armed = self._work.get()
            armed.lock.acquire()
            with self._reserve:
                end = undo.undo_steps(armed.record, armed.contexts, armed.lock)
            armed.lock.release()
            armed.record.end, armed.record.ended = end, time.time()
            armed.tries += 1
            self._notes.put(armed)

    def _write(self) -> None:
        journal = self._open()
        self._ready.set()
        while True:
            armed = self._notes.get()
            journal = journal or self._open()
            if journal is not None:
                self._record(journal, armed)
            self.finished.put(armed)
            self._wake()

    def _open(self) -> Journal | None:
        try:
            journal = Journal(self._store)
            journal.grow()
        except (FaultlineError, sqlite3.Error) as error:
            sys.stderr.write(f"{error}\n")
            return None
        return journal

    def _record(self, journal: Journal, armed: Armed) -> None:
        """Write how it ended; a journal that does not answer never holds up an undo."""
        end = armed.record.end or End.PERSON
        for pause in (0.0, 0.2, 1.0):
            time.sleep(pause)
            try:
                armed.record = _merged(
                    journal.end(armed.record.uid, end, armed.record), armed.record
                )
            except (JournalFailed, sqlite3.Error):
                continue
            except (FaultlineError, KeyError, TypeError, ValueError) as error:
                # Not in the journal any more, or no record that this version reads.
                sys.stderr.write(f"{armed.record.uid}: {error}\n")
            armed.record.state = State.ENDED
            return


def _merged(written: Record, ours: Record) -> Record:
    written.end = written.end or ours.end
    return written


def settled(armed: Armed) -> bool:
    """Whether this fault is over for the keeper: undone and written, or tried as often as is of
    use.
    """
    over = armed.record.end is not End.PERSON and armed.record.state is State.ENDED
    return over or armed.tries > len(RETRY)


def postpone(armed: Armed) -> None:
    """When to try again what failed."""
    pause = RETRY[min(armed.tries, len(RETRY)) - 1]
    armed.due = clock.now() + round(pause * 1e9)
