"""A store of the test's own, faults on files in it, and children that are killed or stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faultline.changes.model import Change, End, Record, State, Step
from faultline.changes.store import Store, open_store
from faultline.injection import trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.kernel import clock, procfs, syscalls
from faultline.units import Duration

SOURCE = Path(__file__).resolve().parents[3] / "src"
SECOND = 10**9


def record(uid: str = "u1", *steps: Step, seconds: float = 60.0) -> Record:
    """A record as an injection writes it, before anything was done."""
    return Record(
        uid=uid,
        fault="file.add",
        params={},
        place={"netns_cookie": 0},
        steps=list(steps) or [Step(Change("file_added", {"path": "/nowhere"}))],
        duration=round(seconds * SECOND),
        deadline=clock.now() + round(seconds * SECOND),
        boot_id=clock.boot_id(),
        created=time.time(),
    )


def until(true: Callable[[], Any], seconds: float = 15.0) -> bool:
    """Wait until something holds; False when it did not come about."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def keepers_of(store: Store) -> dict[str, procfs.Process]:
    """The running keepers of a store by their role."""
    found = procfs.find_by_cmdline(f"keeper:{store.state} ", exclude=[os.getpid()])
    return {each.cmdline[-1]: each for each in found if each.name.startswith("fl-keeper")}


def kill(process: procfs.Process) -> None:
    process.id.send(signal.SIGKILL)
    assert process.id.wait(5.0)


def python(
    program: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program text in an interpreter of its own; its output and status."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def faultline(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line on a store."""
    program = "from faultline.cli.main import main; main()"
    return python(program, "--state", state, *words)


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def apart(act: Callable[[], Any]) -> Any:
    """What `act` answers in a child with processes and network of its own, and no control groups.

    A scan looks at the whole machine: it must meet only what the test has made.
    """
    return trial.in_child(lambda: _with_own_processes(act), 90.0)


def _with_own_processes(act: Callable[[], Any]) -> Any:
    syscalls.unshare(syscalls.Namespace.PID | syscalls.Namespace.MOUNT)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
            subprocess.run(["umount", "--recursive", "--lazy", "/sys/fs/cgroup"], check=False)
            os.write(write, json.dumps(act()).encode())
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)  # and with it everything that was started inside
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told) if told else None


class Ground:
    """A store, a folder with a file in it, and the fault that adds another file there."""

    def __init__(self, folder: Path) -> None:
        self.state, self.folder = folder / "state", folder / "place"
        self.folder.mkdir()
        self.store = open_store(self.state)
        self.target = self.folder / "added"
        self.kept = self.folder / "kept"
        self.kept.write_text("as it was\n")

    def order(self, seconds: float = 60.0, uid: str = "", name: str = "added") -> Order:
        params = {"path": str(self.folder / name), "content": "ours"}
        return Order("file.add", params, Duration.of_seconds(seconds), uid)

    def injector(self) -> Injector:
        return Injector(self.state)

    def ended(self, uid: str, seconds: float = 15.0) -> End | None:
        """How a fault ended, waited for without doing anything about it."""
        with self.injector() as injector:
            until(lambda: injector.get(uid).state is State.ENDED, seconds)
            return injector.get(uid).end

    def names(self) -> list[str]:
        return sorted(each.name for each in self.folder.iterdir())
