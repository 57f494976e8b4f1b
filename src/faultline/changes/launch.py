"""Starting keepers. Apart from the keeper itself, so that a command need not load its code."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from faultline.changes import frozen
from faultline.changes.store import Store
from faultline.errors import FaultlineError
from faultline.kernel import syscalls

ROLES = ("a", "b")
PAUSE = 1.0  # seconds between two tries to start a twin
SYSTEMD = Path("/run/systemd/system")  # there when the host was booted with systemd, sd_booted(3)
START = 20.0  # seconds a keeper may take to detach itself


_begun: dict[tuple[Path, str], subprocess.Popen[bytes]] = {}


def begin(store: Store, *roles: str) -> None:
    """Start keepers without waiting for them; `start` does, should they be needed."""
    prefix = outside_session() if roles else []
    for role in roles:
        _begun[store.run, role] = _spawn(store, role, prefix)


def start(store: Store, *roles: str) -> None:
    """Start keepers and come back once they listen; one that cannot is in its own log."""
    prefix = outside_session() if roles else []
    starting = [
        (role, _begun.pop((store.run, role), None) or _spawn(store, role, prefix)) for role in roles
    ]
    for role, process in starting:
        if _ended(process) and prefix:
            # No scope to be had, for instance in a container: then as a process like any other.
            _ended(_spawn(store, role, []))


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit status as soon as it has detached itself. `Popen.wait` with a time-out looks only
    now and then, at last every 50 ms.
    """
    fd = os.pidfd_open(process.pid)
    try:
        syscalls.pidfd_wait(fd, START)
    finally:
        os.close(fd)
    return process.wait(0)


def outside_session() -> list[str]:
    """What goes before the command, so that a keeper outlives the login that started it.

    Where systemd keeps sessions, logging out may end all their processes (KillUserProcesses= in
    logind.conf(5)); a scope of its own belongs to no session (systemd-run(1)). It keeps namespaces.
    """
    if os.geteuid() != 0 or not SYSTEMD.is_dir():
        return []
    import shutil  # 0.2 MiB that a keeper elsewhere does not need

    program = shutil.which("systemd-run")
    return [program, "--scope", "--quiet", "--collect", "--"] if program else []


def _spawn(store: Store, role: str, prefix: list[str]) -> subprocess.Popen[bytes]:
    code = str(frozen.code_folder(store))
    argv = frozen.command(code, "changes.keeper", f"keeper:{store.state}", str(store.state), role)
    log = os.open(store.run / f"keeper.{role}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        words = [*prefix, *argv]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    finally:
        os.close(log)


class Starter:
    """Starts the twin in a thread of its own: on a machine out of pids, or with a hung disk, that
    fails or takes long, and no deadline may wait for it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._idle = threading.Event()
        self._idle.set()
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def start(self, role: str) -> None:
        """Start this role soon; nothing while an earlier start is under way."""
        if self._idle.is_set():
            self._idle.clear()
            self._wanted.put(role)

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            role = self._wanted.get()
            try:
                start(self._store, role)
            except (FaultlineError, OSError, subprocess.SubprocessError) as error:
                sys.stderr.write(f"keeper {role} cannot be started: {error}\n")
                pause.wait(PAUSE)
            self._idle.set()
