"""How a command speaks to the two keepers of its store: starts, arms, commits, asks for an undo."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from faultline.changes import launch, wire
from faultline.changes.model import Record
from faultline.changes.store import Store
from faultline.errors import NotRecorded
from faultline.kernel.netlink import Netlink

START = 10.0  # seconds a keeper may take to come up on a busy machine
ANSWER = 5.0  # seconds a keeper may take to arm a fault
_RETIRE = 3.0  # seconds that keepers are waited for
PATIENCE = 30.0  # seconds that the last ones asked are waited for
UNDO = 3.0  # seconds a keeper may be silent before its twin is asked


def connect(store: Store, role: str, timeout: float = ANSWER) -> socket.socket | None:
    """A connection to a running keeper, or None."""
    connection = wire.channel()
    connection.settimeout(timeout)
    try:
        connection.connect(str(store.socket(role)))
    except OSError:
        connection.close()
        return None
    return connection


def ask(
    connection: socket.socket, message: wire.Message, fds: list[int] | None = None
) -> wire.Message:
    """One question, one answer; raises NotRecorded when there is none."""
    try:
        wire.send(connection, message, fds)
        got = wire.receive(connection)
    except OSError as error:
        raise NotRecorded(f"the keeper did not answer {message['op']!r}: {error}") from error
    if got is None:
        raise NotRecorded(f"the keeper closed the connection at {message['op']!r}")
    return got[0]


def _answers(store: Store, role: str) -> bool:
    connection = connect(store, role)
    if connection is None:
        return False
    connection.close()
    return True


class Keepers:
    """Both keepers of a store, connected. Closing before `commit` makes them undo at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._connections: dict[str, socket.socket] = {}

    def start(self) -> None:
        """Connect to both, starting those that do not run; raises NotRecorded if one does not come
        up.
        """
        missing = [role for role in launch.ROLES if not _answers(self.store, role)]
        launch.start(self.store, *missing)
        for role in launch.ROLES:
            self._connections[role] = self._reach(role)

    def _reach(self, role: str) -> socket.socket:
        until = time.monotonic() + START
        while time.monotonic() < until:
            connection = connect(self.store, role)
            if connection is None:
                launch.start(self.store, role)
                time.sleep(0.005)
                continue
            try:
                if ask(connection, {"op": "status"}).get("ok"):
                    return connection
            except NotRecorded:  # it was just ending for want of work
                connection.close()
        log = self.store.run / f"keeper.{role}.log"
        raise NotRecorded(
            f"keeper {role} did not start within {START:g} s", hint=f"its words are in {log}"
        )

    def replay(self) -> None:
        """Have both take over whatever the journal holds open and they do not."""
        for connection in self._connections.values():
            ask(connection, {"op": "replay"})

    def arm(self, record: Record, netlink: Netlink | None) -> None:
        """Have both hold the fault; raises NotRecorded unless both did."""
        fds = [netlink.fileno()] if netlink is not None else []
        for role, connection in self._connections.items():
            answer = ask(connection, {"op": "arm", "record": record.to_json()}, fds)
            if "error" in answer:
                raise NotRecorded(f"keeper {role} did not take the fault: {answer['error']}")

    def commit(self, uid: str, made: list[Any], tied: bool = False) -> None:
        """The fault is in place: from now on it outlives this process, until its deadline.

        A `tied` fault is undone when this connection closes, so when this process ends.
        """
        answers = [
            ask(connection, {"op": "commit", "uid": uid, "made": made, "tied": tied})
            for connection in self._connections.values()
        ]
        refused = [answer["error"] for answer in answers if "error" in answer]
        if refused:
            raise NotRecorded(refused[0])

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def ask_undo(store: Store, uid: str, takes: float) -> Record | None:
    """Have a keeper undo a fault now and say how it ended; None if no keeper holds it or answers.

    `takes` is how many seconds its undo may rightly take.
    """
    for role, wait in (("a", UNDO + takes), ("b", PATIENCE + takes), ("a", PATIENCE + takes)):
        connection = connect(store, role, wait)
        if connection is None:
            continue
        with connection:
            try:
                answer = ask(connection, {"op": "undo", "uid": uid})
            except NotRecorded:  # stopped or hung: its twin is asked
                continue
        if "record" in answer:
            return Record.from_json(answer["record"])
    return None


def forget(store: Store, uid: str) -> None:
    """Tell the keepers that a fault is over, so that they let go of what they hold for it."""
    for role in launch.ROLES:
        connection = connect(store, role, 1.0)
        if connection is None:
            continue
        with connection:
            try:
                ask(connection, {"op": "forget", "uid": uid})
            except NotRecorded:
                continue  # it will find nothing to undo at the deadline


def armed(store: Store) -> dict[str, set[str]]:
    """Which faults each running keeper holds."""
    held: dict[str, set[str]] = {}
    for role in launch.ROLES:
        connection = connect(store, role, 1.0)
        if connection is None:
            continue
        with connection:
            try:
                held[role] = set(ask(connection, {"op": "status"}).get("armed", ()))
            except NotRecorded:
                continue
    return held


def dismiss(store: Store) -> None:
    """Let idle keepers end now instead of a few seconds later; busy ones stay."""
    for role in launch.ROLES:
        connection = connect(store, role, 1.0)
        if connection is not None:
            # One that does not answer ends by itself when it has been idle for a while.
            with connection, contextlib.suppress(NotRecorded):
                ask(connection, {"op": "quit"})


def retire(store: Store) -> None:
    """For a store that was only made to try something: its keepers end, its run folder goes."""
    import shutil

    dismiss(store)
    until = time.monotonic() + _RETIRE
    while any(store.socket(role).exists() for role in launch.ROLES):
        if time.monotonic() > until:
            return  # one is still at work; its folder stays
        time.sleep(0.01)
    shutil.rmtree(store.run, ignore_errors=True)


def wake(store: Store) -> None:
    """Start the keepers, which then take over whatever the journal says is open."""
    keepers = Keepers(store)
    try:
        keepers.start()
        keepers.replay()
    finally:
        keepers.close()
