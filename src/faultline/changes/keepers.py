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


def is_there(store: Store, role: str) -> bool:
    """Whether a keeper takes connections."""
    connection = connect(store, role)
    if connection is None:
        return False
    connection.close()
    return True


def tell(connection: socket.socket, message: wire.Message, fds: list[int] | None = None) -> None:
    """Say something to which an answer comes (`hear`); raises NotRecorded."""
    try:
        wire.send(connection, message, fds)
    except OSError as error:
        raise NotRecorded(f"the keeper does not take {message['op']!r}: {error}") from error


def hear(connection: socket.socket, about: str) -> wire.Message:
    """The answer to what was told; raises NotRecorded when there is none."""
    try:
        got = wire.receive(connection)
    except OSError as error:
        raise NotRecorded(f"the keeper did not answer {about!r}: {error}") from error
    if got is None:
        raise NotRecorded(f"the keeper closed the connection at {about!r}")
    return got[0]


def ask(
    connection: socket.socket, message: wire.Message, fds: list[int] | None = None
) -> wire.Message:
    """One question, one answer; raises NotRecorded when there is none."""
    tell(connection, message, fds)
    return hear(connection, message["op"])


class Keepers:
    """Both keepers of a store, connected. Closing before `commit` makes them undo at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._connections: dict[str, socket.socket] = {}

    def start(self) -> None:
        """Connect to both, starting those that do not run; raises NotRecorded if one does not come
        up.
        """
        there = {role: connect(self.store, role) for role in launch.ROLES}
        launch.start(self.store, *(role for role, found in there.items() if found is None))
        for role, connection in there.items():
            self._connections[role] = self._reach(role, connection)

    def _reach(self, role: str, connection: socket.socket | None) -> socket.socket:
        until = time.monotonic() + START
        while time.monotonic() < until:
            connection = connection or connect(self.store, role)
            if connection is None:
                launch.start(self.store, role)
                time.sleep(0.005)
                continue
            try:
                if ask(connection, {"op": "status"}).get("ok"):
                    return connection
            except NotRecorded:  # it was just ending for want of work
                connection.close()
                connection = None
        log = self.store.run / f"keeper.{role}.log"
        raise NotRecorded(
            f"keeper {role} did not start within {START:g} s", hint=f"its words are in {log}"
        )

    def replay(self) -> None:
        """Have both take over whatever the journal holds open and they do not."""
        self._ask_both({"op": "replay"})

    def arm(self, record: Record, netlink: Netlink | None) -> None:
        """Have both hold the fault; raises NotRecorded unless both did."""
        fds = [netlink.fileno()] if netlink is not None else []
        answers = self._ask_both({"op": "arm", "record": record.to_json()}, fds)
        for role, answer in answers.items():
            if "error" in answer:
                raise NotRecorded(f"keeper {role} did not take the fault: {answer['error']}")

    def _ask_both(
        self, message: wire.Message, fds: list[int] | None = None
    ) -> dict[str, wire.Message]:
        """What each answers; they work on it side by side."""
        for connection in self._connections.values():
            tell(connection, message, fds)
        return {role: hear(each, message["op"]) for role, each in self._connections.items()}

    def commit(self, uid: str, made: list[Any], tied: bool = False) -> None:
        """The fault is in place: from now on it outlives this process, until its deadline.

        A `tied` fault is undone when this connection closes, so when this process ends.
        """
        answers = self._ask_both({"op": "commit", "uid": uid, "made": made, "tied": tied})
        refused = [answer["error"] for answer in answers.values() if "error" in answer]
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
