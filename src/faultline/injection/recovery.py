"""Looking at faults and making them go away. No parameter models here: `query` and `recover` start
fast, and undoing must not depend on code that may be gone.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Self

from faultline.changes import frozen, halt, keepers, leftover, undo
from faultline.changes.journal import Journal
from faultline.changes.kind import Found, kinds
from faultline.changes.lock import FaultLock
from faultline.changes.model import End, Record, State, Step
from faultline.changes.store import Store, open_store
from faultline.errors import FaultlineError, InvalidDocument, JournalFailed, Refused
from faultline.kernel import clock
from faultline.kernel.netlink import Netlink


class Recovery:
    """The faults of one store: what there is, what is left of it, and undoing it."""

    def __init__(self, state: Path | None = None) -> None:
        self.store: Store = open_store(state)
        self._journal: Journal | None = None
        self._netlink: Netlink | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        if self._netlink is not None:
            self._netlink.close()

    @property
    def journal(self) -> Journal:
        """Opened when it is first asked for: a scan must work where it cannot be opened."""
        if self._journal is None:
            self._journal = Journal(self.store)
        return self._journal

    @property
    def netlink(self) -> Netlink:
        """A route socket in the caller's network namespace."""
        if self._netlink is None:
            self._netlink = Netlink.open()
        return self._netlink

    # ------------------------------------------------------------------ recover

    def recover(self, uid: str) -> Record:
        """Undo a fault and look whether it is gone. Harmless when it has ended already."""
        record = self.journal.get(uid)
        if record.state is State.ENDED and record.end is not End.PERSON:
            return record
        if record.boot_id != clock.boot_id():
            leftover.left_over(self.store, record)
            return self.journal.get(uid)
        if leftover.elsewhere(self.store, record):
            raise Refused(
                f"{uid} was injected in another user namespace, and only its keepers can undo it",
                hint="recover it from inside: nsenter -U -n -t PID; or end its processes",
            )
        if record.state is not State.ENDED:
            with suppress(JournalFailed):  # undo first, record after
                self.journal.change(
                    uid, lambda kept: setattr(kept, "state", State.UNDOING), durable=False
                )
            undone = keepers.ask_undo(self.store, uid, undo.patience(record))
            if undone is not None:
                return self._end(uid, undone)
        return self._recover_here(record)

    def _recover_here(self, record: Record) -> Record:
        """No keeper answers: undo with what this process has."""
        netlink = leftover.netlink_of(record.place.get("netns_cookie", 0))
        code = str(frozen.code_folder(self.store))
        made_with = undo.contexts(record, netlink, str(self.store.run), code)
        with (
            netlink or nullcontext(),
            FaultLock(self.store.lock(record.uid), undo.patience(record)) as lock,
        ):
            record.end = undo.undo_steps(record, made_with, lock)
        undo.release(made_with)
        record.ended = time.time()
        written = self._end(record.uid, record)
        keepers.forget(self.store, record.uid)
        return written

    def _end(self, uid: str, undone: Record) -> Record:
        written = self.journal.get(uid)
        if written.state is State.ENDED and written.end is not End.PERSON:
            return written
        try:
            return self.journal.end(uid, undone.end or End.PERSON, undone)
        except JournalFailed as error:
            undone.state, undone.note = State.ENDED, f"not written down: {error.message}"
            return undone

    def recover_all(self) -> list[Record]:
        """Undo everything that this store knows of."""
        return [self.recover(record.uid) for record in self.unfinished()]

    def unfinished(self) -> list[Record]:
        """Faults that have not ended, and those that still need a person; not those of other user
        namespaces, which end at their deadlines.
        """
        waiting = [r for r in self.journal.list(state=State.ENDED) if r.end is End.PERSON]
        found = [*self.journal.open_records(), *waiting]
        return [record for record in found if not leftover.elsewhere(self.store, record)]

    def adopt(self) -> None:
        """What was left over by a crash or a reboot is kept again; cheap when nothing was."""
        if not self.journal.any_open():
            return
        held = keepers.armed(self.store)
        kept = [
            each for each in self.journal.open_records() if not leftover.elsewhere(self.store, each)
        ]
        uids = {record.uid for record in kept}
        if len(held) < 2 or not all(uids <= armed for armed in held.values()):
            keepers.wake(self.store)

    def recover_scan(self, folders: tuple[str, ...] = ()) -> list[Record]:
        """Find what carries our mark, with no journal, and undo it.

        What the journal knows as an active fault is recovered by its record, which tells more.
        """
        try:
            known = {record.uid for record in self.unfinished()}
        except (JournalFailed, InvalidDocument, sqlite3.Error):
            known = set[str]()  # lost, unreadable, or of a newer version: the marks tell enough
        done = [self.recover(uid) for uid in sorted(known)]
        groups: dict[str, list[Found]] = {}
        for kind in kinds().values():
            for found in kind.scan(self.netlink, folders):
                groups.setdefault(found.uid, []).append(found)
        return [*done, *(self._undo_found(uid, found) for uid, found in sorted(groups.items()))]

    def unknown_marks(self) -> dict[str, list[Found]]:
        """What carries our mark and no record of this journal explains, by uid."""
        found: dict[str, list[Found]] = {}
        for kind in kinds().values():
            for each in kind.scan(self.netlink, ()):
                found.setdefault(each.uid, []).append(each)
        known = {record.uid for record in self.journal.list()} if found else set[str]()
        return {uid: each for uid, each in sorted(found.items()) if uid not in known}

    def recover_marks(self, uid: str) -> Record:
        """Undo what carries the mark of a fault whose record is lost."""
        return self._undo_found(uid, self.unknown_marks().get(uid, []))

    def _undo_found(self, uid: str, found: list[Found]) -> Record:
        """Undo what a scan met, as a record made up from the marks."""
        found.sort(key=lambda each: each.index)
        steps = [Step(each.change, each.prior, number=each.index) for each in found]
        record = Record(
            uid, "unknown", {}, {"netns_cookie": 0}, steps,
            0, clock.now(), clock.boot_id(), time.time(), State.UNDOING,
        )  # fmt: skip
        made_with = undo.contexts(record, self.netlink, str(self.store.run), "")
        with FaultLock(self.store.lock(uid)) as lock:
            record.end = undo.undo_steps(record, made_with, lock)
        record.state, record.ended = State.ENDED, time.time()
        record.note = "; ".join(each.where for each in found)
        keepers.forget(self.store, uid)  # in case the journal alone was lost
        return record

    def residue(self, uid: str) -> list[str]:
        """What of a fault is still there now; empty is the proof of recovery."""
        return self.residue_of(self.journal.get(uid))

    def residue_of(self, record: Record) -> list[str]:
        """The same for a record in hand, also one that a scan made up."""
        netlink = leftover.netlink_of(record.place.get("netns_cookie", 0))
        if netlink is None and record.boot_id == clock.boot_id():
            return []  # the namespace is gone, and everything in it
        made_with = undo.contexts(record, netlink, str(self.store.run), "")
        try:
            with netlink or nullcontext():
                return undo.residue(record, made_with)
        finally:
            undo.release(made_with)

    # ------------------------------------------------------------------ look

    def get(self, uid: str) -> Record:
        return self.journal.get(uid)

    def query(
        self, state: str | None = None, fault: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Records, newest first."""
        return self.journal.list(state, fault, limit)

    # ------------------------------------------------------------------ halt

    def check_halt(self) -> None:
        """Raise Halted while everything is."""
        halt.check(self.store)

    def halt(self, why: str, by: str = "") -> list[Record]:
        """Undo everything and refuse new faults until it is lifted.

        It counts before anything is undone, and lasts beyond a reboot. A fault that cannot be
        undone does not keep the others from it: it comes back as one that needs a person.
        """
        halt.at_once(self.store, why, by)
        undone = [self._halted(record) for record in self.unfinished()]
        # Last: the disk may be full or hang, perhaps by a fault of ours. `halt.lasting` tells.
        with suppress(OSError):
            halt.for_good(self.store, why, by)
        return undone

    def _halted(self, record: Record) -> Record:
        try:
            return self.recover(record.uid)
        except FaultlineError as error:
            record.end, record.note = End.PERSON, error.message
            return record

    def lift(self) -> None:
        """Allow new faults again, unless the whole host is halted."""
        halt.lift(self.store)
