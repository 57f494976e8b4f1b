"""The keeper: undoes each fault at its deadline, inside the fault, with code loaded before it.

Two of them run per store, `a` and `b`, started on demand. Each holds every armed fault: its record,
an open route socket in the right network namespace, the descriptors that undo needs. Each watches
the other by an open connection and starts it again. The twin acts a quarter of a second later, so
that a stopped first keeper costs no more than that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faultline.changes import catalogue, launch, watch, wire
from faultline.changes.book import Armed, Undoer, arm, over, postpone, settled
from faultline.changes.journal import Journal
from faultline.changes.leaving import forget_thrown_away
from faultline.changes.leftover import elsewhere, left_over
from faultline.changes.model import Record, State
from faultline.changes.settling import say, settle, spare_from_oom
from faultline.changes.store import Store, open_store
from faultline.errors import FaultlineError
from faultline.kernel import clock, syscalls
from faultline.kernel.netlink import Netlink

LATE = 250_000_000  # ns that the twin waits longer
IDLE = 5.0  # seconds without anything armed after which a keeper ends
DEAF = 0.25  # seconds that a twin which stands still may hold us up
_PAUSE = 0.01  # seconds after a handler failed
GRACE = 3_000_000_000  # ns for an injector found in the middle to come and arm its fault


class Keeper:
    """One keeper of a store."""

    def __init__(self, store: Store, role: str, listener: socket.socket) -> None:
        self.store, self.role, self.listener = store, role, listener
        self.code = str(Path(__file__).resolve().parents[2])
        self.book: dict[str, Armed] = {}
        self.owners: dict[
            socket.socket, str
        ] = {}  # uncommitted faults by their injector's connection
        self.clients: set[socket.socket] = set()
        self.peer: socket.socket | None = None
        self.selector = selectors.DefaultSelector()
        self.timer = clock.BootTimer()
        self.idle_since = time.monotonic()
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The twin looks once more before it acts, as it waits longer at a deadline.
        self.watch = watch.Watch(watch.LOOKS + (role == launch.ROLES[1]))
        self.undoer = Undoer(store, self._wake)
        self.starter = launch.Starter(store)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.timer.fileno(), selectors.EVENT_READ, self._on_timer)
        self.selector.register(self._pipe[0], selectors.EVENT_READ, self._on_finished)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._pipe[1], b"x")

    def run(self) -> None:
        """Serve until there has been nothing to keep for a while."""
        self._replay()
        self._meet_peer()
        catalogue.load_all()  # all undo code, before any fault
        settle()
        while self.book or self.clients or time.monotonic() - self.idle_since < IDLE:
            self._guarded(self._set_timer)
            # The deadlines first and whatever else happens: a handler that fails each time, such as
            # accepting without a descriptor left, must not keep the others from their turn.
            ready = self.selector.select(watch.pause(self.book.values()))
            self._guarded(self._submit_due)
            for key, _ in ready:
                self._guarded(key.data, key.fileobj)
            self._guarded(self._look_around)
        self.store.socket(self.role).unlink(missing_ok=True)

    def _guarded(self, act: Callable[..., None], *about: Any) -> None:
        """One handler's turn; what it hits is written down."""
        try:
            act(*about)
        except Exception as error:  # noqa: BLE001 - a keeper outlives whatever happens to it
            say(f"{type(error).__name__}: {error}")
            time.sleep(_PAUSE)  # it may fail again at once, for as long as the fault is there

    def _look_around(self) -> None:
        if self.book:
            self.idle_since = time.monotonic()
            self._meet_peer()
        for armed in self.watch.look(self.book.values()):
            self.undoer.submit(armed)

    # ------------------------------------------------------------------ what is kept

    def _replay(self) -> None:
        """Take over what the journal says is open: both keepers may have been killed, or the host
        rebooted. What cannot be taken over must not keep the rest from it.
        """
        try:
            with Journal(self.store) as journal:
                journal.grow()
                records = journal.open_records()
        except (FaultlineError, sqlite3.Error, ValueError) as error:
            say(f"the journal tells nothing: {error}")
            return
        for record in records:
            if record.uid in self.book:
                continue
            try:
                self._adopt(record)
            except (FaultlineError, OSError, LookupError, TypeError, ValueError) as error:
                say(f"{record.uid} cannot be kept: {error}")

    def _adopt(self, record: Record) -> None:
        if record.boot_id == clock.boot_id() and elsewhere(self.store, record):
            return
        netlink = left_over(self.store, record)
        if record.boot_id != clock.boot_id():
            return
        armed = self._arm(record, netlink)
        armed.committed = record.state not in (State.PREPARED, State.APPLYING)
        if not armed.committed:
            armed.due = min(armed.due, clock.now() + GRACE)

    def _arm(self, record: Record, netlink: Netlink | None) -> Armed:
        late = LATE if self.role == launch.ROLES[1] else 0
        armed = arm(self.store, self.code, record, netlink, late)
        old = self.book.pop(record.uid, None)
        if old is not None and not old.running:
            old.close()
        self.book[record.uid] = armed
        return armed

    def _set_timer(self) -> None:
        waiting = [armed.acts for armed in self.book.values() if not armed.running]
        self.timer.set(min(waiting) if waiting else 0)

    def _on_timer(self, _fd: Any) -> None:
        os.read(self.timer.fileno(), 8)

    def _submit_due(self) -> None:
        now = clock.now()
        for armed in self.book.values():
            if not armed.running and armed.acts <= now:
                if armed.lease is not None and armed.due > now:
                    armed.record.note = f"ended with the lease {armed.lease.name}"
                self.undoer.submit(armed)

    def _on_finished(self, _fd: Any) -> None:
        os.read(self._pipe[0], 4096)
        while not self.undoer.finished.empty():
            armed = self.undoer.finished.get()
            armed.running = False
            for tell in armed.done:
                tell(armed.record)
            armed.done.clear()
            if self.book.get(armed.record.uid) is not armed or settled(armed):
                if self.book.get(armed.record.uid) is armed:
                    del self.book[armed.record.uid]
                    self._tell_peer({"op": "forget", "uid": armed.record.uid})
                armed.close()
            else:
                postpone(armed)

    # ------------------------------------------------------------------ who speaks

    def _accept(self, _listener: Any) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(2.0)
        wire.check_peer(connection)
        self.selector.register(wire.channel(connection), selectors.EVENT_READ, self._on_message)
        self.clients.add(connection)

    def _on_message(self, connection: socket.socket) -> None:
        try:
            got = wire.receive(connection)
        except ConnectionResetError:
            got = None
        if got is None:
            self._closed(connection)
            return
        message, fds = got
        try:
            answer = self._obey(connection, message, fds)
        except (FaultlineError, OSError, LookupError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        finally:
            wire.close(fds)  # those that are kept have been taken out
        if answer is not None:
            with contextlib.suppress(OSError):
                wire.send(connection, answer)

    def _closed(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        self.clients.discard(connection)
        connection.close()
        if connection is self.peer:
            self.peer = None
        uid = self.owners.pop(connection, None)
        armed = self.book.get(uid) if uid else None
        if armed is not None and not armed.committed:
            # The injector died in the middle. A worker that it had just started and that carries
            # no mark yet has got no order either, and ends by itself.
            armed.due = clock.now()
            self.undoer.submit(armed)

    def _obey(
        self, connection: socket.socket, message: wire.Message, fds: list[int]
    ) -> wire.Message | None:
        if connection is self.peer and "op" not in message:
            return None  # the twin's answer to what we shared
        obey = {
            "arm": self._take,
            "commit": self._commit,
            "undo": self._undo_now,
            "forget": self._forget,
            "hello": self._meet,
            "replay": self._replay_now,
            "quit": self._quit,
            "status": self._status,
        }.get(message.get("op", ""))
        if obey is None:
            return {"error": f"not understood: {message.get('op')!r}"}
        return obey(connection, message, fds)

    def _take(
        self, connection: socket.socket, message: wire.Message, fds: list[int]
    ) -> wire.Message:
        record = Record.from_json(message["record"])
        committed = bool(message.get("committed", False))
        if not committed and over(self.store, record):
            return {"error": f"the lease {record.lease} is over"}
        netlink = Netlink.beside(fds.pop(0)) if fds else None
        armed = self._arm(record, netlink)
        armed.committed = committed
        if not armed.committed:
            self.owners[connection] = armed.record.uid
        return {"ok": True, "pid": os.getpid()}

    def _meet(self, connection: socket.socket, _message: wire.Message, _fds: list[int]) -> None:
        self.peer = connection
        self.clients.discard(connection)
        for armed in self.book.values():
            self._share(armed)

    def _replay_now(self, *_: object) -> wire.Message:
        self._replay()
        return {"ok": True}

    def _quit(self, *_: object) -> wire.Message:
        self.idle_since = -IDLE - time.monotonic()  # at once, unless something is armed
        return {"ok": True}

    def _status(self, *_: object) -> wire.Message:
        return {"ok": True, "pid": os.getpid(), "role": self.role, "armed": sorted(self.book)}

    def _commit(
        self, connection: socket.socket, message: wire.Message, _fds: list[int]
    ) -> wire.Message:
        uid, made, tied = str(message["uid"]), list(message["made"]), bool(message["tied"])
        armed = self.book.get(uid)
        if not tied:
            self.owners.pop(connection, None)
        if armed is None or armed.running or armed.tries:
            return {"error": f"{uid} was undone before it was committed"}
        armed.committed = not tied  # tied: the end of the process that injected it ends it
        for step, hint in zip(armed.record.steps, made, strict=True):
            step.made = hint
        return {"ok": True}

    def _undo_now(
        self, connection: socket.socket, message: wire.Message, _fds: list[int]
    ) -> wire.Message | None:
        uid = message["uid"]
        armed = self.book.get(uid)
        if armed is None:
            return {"error": f"{uid} is not armed here"}
        armed.done.append(lambda record: _tell(connection, record))
        if not armed.running:
            self.undoer.submit(armed)
        return None

    def _forget(
        self, connection: socket.socket, message: wire.Message, _fds: list[int]
    ) -> wire.Message:
        """Undone by another; that it is so was read from the journal by whoever says it."""
        uid = message["uid"]
        self.owners.pop(connection, None)
        armed = self.book.get(uid)
        if armed is not None and not armed.running:
            self.book.pop(uid).close()
        return {"ok": True}

    # ------------------------------------------------------------------ the twin

    def _meet_peer(self) -> None:
        if self.peer is not None:
            return
        other = launch.ROLES[1 - launch.ROLES.index(self.role)]
        connection = wire.channel()
        connection.settimeout(DEAF)
        try:
            connection.connect(str(self.store.socket(other)))
        except OSError:
            connection.close()
            if self.book:
                self.starter.start(other)
            return
        self.peer = connection
        self.selector.register(connection, selectors.EVENT_READ, self._on_message)
        wire.send(connection, {"op": "hello"})

    def _share(self, armed: Armed) -> None:
        """Give a twin that has just started what we hold."""
        fds = [armed.netlink.fileno()] if armed.netlink else []
        message = {"op": "arm", "record": armed.record.to_json(), "committed": armed.committed}
        self._tell_peer(message, fds)

    def _tell_peer(self, message: wire.Message, fds: list[int] | None = None) -> None:
        if self.peer is None:
            return
        try:
            wire.send(self.peer, message, fds)
        except OSError as error:  # it died or stands still; it finds nothing to undo later
            say(f"twin: {error}")


def _tell(connection: socket.socket, record: Record) -> None:
    with contextlib.suppress(OSError):  # whoever asked has gone; the journal has the answer
        wire.send(connection, {"ok": True, "record": record.to_json()})


def _listen(store: Store, role: str) -> socket.socket:
    path = store.socket(role)
    path.unlink(missing_ok=True)
    listener = wire.channel()
    listener.bind(str(path))
    listener.listen(64)
    return listener


def main() -> None:
    """Entry of the keeper process: argv is CODE MODULE MARK STATE ROLE."""
    state, role = Path(sys.argv[-2]), sys.argv[-1]
    store = open_store(state)
    claim = os.open(store.run / f"keeper.{role}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another one keeps this role
    # Before the end of this process tells whoever started it that it can be spoken to. The lock
    # belongs to the open file, so it stays with the child.
    listener = _listen(store, role)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    syscalls.set_name(f"fl-keeper-{role}")
    spare_from_oom()
    Keeper(store, role, listener).run()
    os.close(claim)
    forget_thrown_away(store)
