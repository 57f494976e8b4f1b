"""Stopping, starting and removing a container by the runtime that it belongs to.

Docker by its socket; Podman and containerd by their own commands, as argument lists and with the
options that reach the very daemon or folders of that container.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, cast

from faultline.changes import dockerd
from faultline.errors import TargetGone, Unsupported
from faultline.kernel import machine
from faultline.kernel.procfs import ProcessId

Data = dict[str, Any]
SLOW: Final = 30.0  # seconds that a runtime may take beyond what it is told to wait
_ASKED: Final = 10.0  # seconds for a question
_LIMIT: Final = 8 << 20  # bytes of an answer
_NO_PROGRAM: Final = 127  # nsenter(1)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runtime(ABC):
    """One runtime, for one container. What it raises is OSError, or TargetGone."""

    def __init__(self, container: str) -> None:
        self.container = container

    @abstractmethod
    def first(self) -> int | None:
        """The pid of its first process; 0 if it does not run, None if it does not exist."""

    @abstractmethod
    def stop(self, process: ProcessId, grace: float) -> None:
        """Ask it to end, and after `grace` seconds do not ask."""

    @abstractmethod
    def start(self) -> None:
        """Start it again."""

    @abstractmethod
    def remove(self) -> None:
        """End it and remove it with everything that is in it."""

    @abstractmethod
    def typed(self) -> tuple[tuple[str, ...], ...]:
        """What a person would type to start it."""


def of(spec: Data) -> Runtime:
    """The runtime that a change names: {runtime, container, socket | tool}."""
    if spec["runtime"] == "docker":
        return Docker(spec["container"], spec["socket"])
    kinds = {"podman": Podman, "containerd": Containerd, "cri-o": Cri}
    return kinds[spec["runtime"]](spec["container"], tuple(spec["tool"]))


def _pid(found: Data) -> int:
    state = cast("Data", found.get("State") or {})
    return int(state.get("Pid") or 0) if state.get("Running") else 0


@dataclass
class Docker(Runtime):
    """By the API of its daemon, so that the daemon knows that it was meant and restarts nothing."""

    container: str
    socket: str

    def first(self) -> int | None:
        found = dockerd.inspect(self.socket, self.container)
        return None if found is None else _pid(found)

    def stop(self, process: ProcessId, grace: float) -> None:
        self._order("POST", f"/stop?t={round(grace)}", grace)

    def start(self) -> None:
        self._order("POST", "/start", 0.0)

    def remove(self) -> None:
        self._order("DELETE", "?force=1", 0.0)

    def _order(self, method: str, what: str, grace: float) -> None:
        path = f"/containers/{self.container}{what}"
        if not dockerd.order(self.socket, method, path, grace + SLOW):
            raise TargetGone(f"docker knows no container {self.container[:12]} any more")

    def typed(self) -> tuple[tuple[str, ...], ...]:
        return (("docker", "--host", f"unix://{self.socket}", "start", self.container),)


@dataclass
class Podman(Runtime):
    """By its command, with the options that conmon calls it with."""

    container: str
    tool: tuple[str, ...]

    def first(self) -> int | None:
        status, out, complaint = run((*self.tool, "inspect", self.container), _ASKED)
        if status == 0:
            found: object = json.loads(out)
            return _pid(cast("list[Data]", found)[0])
        if "no such" in complaint.lower():
            return None
        raise ConnectionError(f"podman answers: {complaint}")

    def stop(self, process: ProcessId, grace: float) -> None:
        self._order(("stop", "--time", str(round(grace)), self.container), grace)

    def start(self) -> None:
        self._order(("start", self.container), 0.0)

    def remove(self) -> None:
        self._order(("rm", "--force", "--time", "0", self.container), 0.0)

    def _order(self, words: tuple[str, ...], grace: float) -> None:
        ordered((*self.tool, *words), grace + SLOW)

    def typed(self) -> tuple[tuple[str, ...], ...]:
        return ((*self.tool, "start", self.container),)


@dataclass
class Containerd(Runtime):
    """A container of containerd alone: its process is ended by signals, which needs no daemon; a
    new task is made by ctr.
    """

    container: str
    tool: tuple[str, ...]

    def first(self) -> int | None:
        out = ordered((*self.tool, "tasks", "list"), _ASKED)
        rows = [line.split() for line in out.splitlines()]
        for name, pid, state in (row for row in rows if len(row) == 3):
            if name == self.container:
                return int(pid) if state in ("RUNNING", "PAUSED") else 0
        known = ordered((*self.tool, "containers", "list", "--quiet"), _ASKED)
        return 0 if self.container in known.split() else None

    def stop(self, process: ProcessId, grace: float) -> None:
        end(process, signal.SIGTERM, grace)

    def start(self) -> None:
        if self.first():
            return  # another of ours has just done it
        self._forget()
        ordered((*self.tool, "tasks", "start", "--detach", self.container), SLOW)

    def remove(self) -> None:
        run((*self.tool, "tasks", "kill", "--all", "--signal", "SIGKILL", self.container), SLOW)
        self._forget()
        ordered((*self.tool, "containers", "delete", self.container), SLOW)

    def _forget(self) -> None:
        """Remove the task that has ended; its status is the status of this command."""
        until = time.monotonic() + _ASKED
        while time.monotonic() < until:
            run((*self.tool, "tasks", "delete", self.container), SLOW)
            names = ordered((*self.tool, "tasks", "list", "--quiet"), _ASKED).split()
            if self.container not in names:
                return
            time.sleep(0.05)

    def typed(self) -> tuple[tuple[str, ...], ...]:
        return (
            (*self.tool, "tasks", "delete", self.container),
            (*self.tool, "tasks", "start", "--detach", self.container),
        )


@dataclass
class Cri(Runtime):
    """A container of a pod, which the kubelet starts again: only removing it needs its runtime."""

    container: str
    tool: tuple[str, ...]

    def first(self) -> int | None:
        raise Unsupported("the kubelet starts the containers of a pod")

    def stop(self, process: ProcessId, grace: float) -> None:
        end(process, signal.SIGTERM, grace)

    def start(self) -> None:
        raise Unsupported("the kubelet starts the containers of a pod")

    def remove(self) -> None:
        ordered((*self.tool, "rm", "--force", self.container), SLOW)

    def typed(self) -> tuple[tuple[str, ...], ...]:
        return ()


def end(process: ProcessId, number: int, grace: float) -> None:
    """Ask a process to end; SIGKILL if it is there after `grace` seconds."""
    process.send(number)
    if not process.wait(grace):
        process.send(signal.SIGKILL)
        process.wait(SLOW)


def ordered(words: tuple[str, ...], patience: float) -> str:
    """What a command prints; raises ConnectionError where it fails."""
    status, out, complaint = run(words, patience)
    if status:
        raise ConnectionError(f"{words[0]} answers: {complaint or out.strip()}")
    return out


def run(words: tuple[str, ...], patience: float) -> tuple[int, str, str]:
    """Run a command of a runtime: status, output, the end of its complaint.

    Raises OSError where it cannot be run or does not end in time. In a session of its own, so that
    whatever watches over the container stays when this process ends.
    """
    environment = {
        name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR") if name in os.environ
    }
    path = os.environ.get("PATH", _PATH)
    import shutil  # which a keeper that never runs a program does not need

    # In a container of the machine it is the machine's own program that knows the runtime there.
    if before := machine.entering():
        words, path = (*before, *words), f"{path}:{_PATH}"
    program = shutil.which(words[0], path=path)
    if program is None:
        raise FileNotFoundError(2, "is not installed", words[0])
    # Into memory and not through pipes: what was begun goes on when this process is killed, and a
    # write into a pipe that nobody reads would end it in the middle.
    with open(os.memfd_create("out"), "w+b") as out, open(os.memfd_create("said"), "w+b") as said:
        try:
            done = subprocess.run(
                [program, *words[1:]], stdin=subprocess.DEVNULL, stdout=out, stderr=said,
                timeout=patience, check=False, start_new_session=True,
                env={"PATH": path, "LC_ALL": "C.UTF-8", **environment},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TimeoutError(110, f"does not end within {patience:g} s", program) from None
        told = [_read(file.fileno()) for file in (out, said)]
    if before and done.returncode == _NO_PROGRAM:
        raise FileNotFoundError(2, "is not installed on the machine", words[len(before)])
    return done.returncode, told[0], told[1].strip()[-500:]


def _read(fd: int) -> str:
    return os.pread(fd, _LIMIT, 0).decode(errors="replace")


def alive(pid: int) -> ProcessId | None:
    """The process that a runtime named, if it lives."""
    try:
        found = ProcessId.of(pid) if pid else None
    except ProcessLookupError:
        return None
    return found if found is not None and found.alive() else None
