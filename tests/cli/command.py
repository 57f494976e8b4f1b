"""The command line as a person has it: whole processes, in a network namespace of the test."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faultline.kernel import netns, procfs

SOURCES = Path(__file__).parents[2] / "src"
LEFT_OUT = ("FAULTLINE_STATE", "NO_COLOR", "COLUMNS", "LINES", "TERM", "_FAULTLINE_COMPLETE")


@dataclass
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str = ""

    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error as data, of a command with --format json."""
        return json.loads(self.err.strip().splitlines()[-1])["error"]


@dataclass
class Cli:
    """Runs `faultline` with a store of its own."""

    state: Path
    namespace: int
    extra: dict[str, str] = field(default_factory=dict[str, str])
    python: str = sys.executable

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
        ours = {"PYTHONPATH": str(SOURCES), "FAULTLINE_STATE": str(self.state), "TERM": "xterm"}
        return {**kept, **ours, **self.extra}

    def argv(self, *words: object) -> list[str]:
        return [self.python, "-m", "faultline.cli.main", *map(str, words)]

    def __call__(self, *words: object, wrapper: tuple[str, ...] = ()) -> Answer:
        with self.inside():
            done = subprocess.run(
                [*wrapper, *self.argv(*words)],
                env=self.env, capture_output=True, text=True, timeout=90, check=False,
            )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: object) -> str:
        """A command that has to succeed; what it printed."""
        answer = self(*words)
        assert answer.code == 0, answer
        return answer.out

    def start(self, *words: object) -> subprocess.Popen[str]:
        """A command in a session of its own, as in a terminal: its pid is its process group."""
        with self.inside():
            return subprocess.Popen(
                self.argv(*words), env=self.env, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

    def on_terminal(self, *words: object, columns: int = 80) -> str:
        """What a command shows on a terminal of so many columns."""
        ours, theirs = pty.openpty()
        with self.inside():
            shown = subprocess.Popen(
                self.argv(*words), env={**self.env, "COLUMNS": str(columns)},
                stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            )  # fmt: skip
        os.close(theirs)
        text = b""
        until = time.monotonic() + 60
        while time.monotonic() < until and select.select([ours], [], [], 60)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                break
            text += chunk
        os.close(ours)
        shown.wait(timeout=30)
        return text.decode().replace("\r\n", "\n")

    @contextlib.contextmanager
    def inside(self) -> Generator[None]:
        if self.namespace < 0:
            yield
            return
        with netns.entered(self.namespace):
            yield

    def kill_keepers(self) -> None:
        """SIGKILL to the keepers of this store and of no other; stopped first, since each starts
        the other again.
        """
        quiet = 0
        while quiet < 5:
            found = self.keepers()
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for process in found:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, number)
            quiet = 0 if found else quiet + 1
            time.sleep(0.05)

    def keepers(self) -> list[procfs.Process]:
        mark = f"keeper:{self.state}"
        return [each for each in procfs.processes() if mark in each.cmdline]
