"""A process that works for the agent, seen from the agent: started when needed, ended when idle."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO

from faultline.agent.model import Document, Verb
from faultline.changes import frozen

IDLE = 5.0  # seconds without a request after which a helper is told to end
STUCK = 300.0  # seconds after which a request counts as lost, and its helper is killed
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); import importlib; "
    "importlib.import_module(sys.argv[2]).main()"
)


@dataclass(frozen=True, slots=True)
class Programs:
    """How helpers are started."""

    root: str  # the folder that holds our package
    python: str  # the interpreter that has the libraries
    state: str

    def lean(self, module: str) -> list[str]:
        """On the bare interpreter: the standard library only."""
        return frozen.command(self.root, f"agent.{module}", self.state)

    def whole(self, module: str) -> list[str]:
        """With all that is installed."""
        words = [self.python, "-P", "-c", _BOOT, self.root, f"faultline.agent.{module}"]
        return [*words, self.state]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, and when."""

    op: str
    uid: str = ""  # of the record
    verb: Verb | None = None
    at: float = field(default_factory=time.monotonic)

    @property
    def entry(self) -> str:
        return self.uid.partition(".")[0]


class Child:
    """One such process, or none while nobody needs it."""

    def __init__(self, command: list[str], idle: float = IDLE, stuck: float = STUCK) -> None:
        self._command, self._idle, self._stuck = command, idle, stuck
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._number = 0
        self._used = 0.0
        self.waiting: dict[int, Request] = {}

    def fileno(self) -> int:
        """To be polled; -1 while there is no process."""
        return self._out().fileno() if self._process else -1

    def _out(self) -> IO[bytes]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        return process.stdout

    def ask(self, request: Request, message: Document) -> None:
        """Have something done; the answer comes by `read`."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._number += 1
        self._used = time.monotonic()
        self.waiting[self._number] = request
        line = json.dumps({"n": self._number, "op": request.op, **message}) + "\n"
        try:
            process.stdin.write(line.encode())
            process.stdin.flush()
        except OSError:
            return  # it has died, which its other end says too

    def _start(self) -> None:
        # A session of its own: what interrupts the agent interrupts no injection in the middle.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
            start_new_session=True,
        )  # fmt: skip
        os.set_blocking(self._out().fileno(), False)
        self._rest = b""

    def read(self) -> list[tuple[Request, Document]]:
        """What has been answered; an answer of None's kind `lost` where the process has ended."""
        if self._process is None:
            return []
        got: list[tuple[Request, Document]] = []
        while chunk := self._chunk():
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                told: Document = json.loads(line)
                request = self.waiting[told["n"]]
                if "part" not in told:
                    del self.waiting[told["n"]]
                got.append((request, told))
        if chunk is not None:
            self._reap()
            got += [(each, {"lost": True}) for each in self.waiting.values()]
            self.waiting.clear()
        self._used = time.monotonic() if got else self._used
        return got

    def _chunk(self) -> bytes | None:
        """What can be read now: nothing yet is None, and nothing any more is empty."""
        try:
            return os.read(self._out().fileno(), 1 << 16)
        except BlockingIOError:
            return None

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for end in (process.stdin, process.stdout):
                if end is not None:
                    try:
                        end.close()
                    except OSError:
                        continue  # what was not written yet; nobody reads it
            process.wait()

    def close(self) -> None:
        """Let go of it: it ends when it has done what it was asked for."""
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def tidy(self) -> float | None:
        """End an idle process, kill a stuck one; seconds until it should be looked at again."""
        process = self._process
        if process is None:
            return None
        now = time.monotonic()
        if not self.waiting:
            left = self._used + self._idle - now
            if left <= 0:
                self._reap()  # its input ends, and so does it
                return None
            return left
        oldest = min(each.at for each in self.waiting.values())
        if now - oldest > self._stuck:
            process.kill()
        return self._stuck
