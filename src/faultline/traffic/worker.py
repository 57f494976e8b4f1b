"""One generator process, seen from the engine: what it is told, what it has said, how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import faultline
from faultline.traffic.model import Load, Tick

_STOP_WITHIN = 2.0
_ERROR_TAIL = 2000


class Worker:
    """A generator and the threads that read its words. It lives no longer than this process."""

    def __init__(self, load: Load) -> None:
        folder = str(Path(faultline.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "faultline.traffic.generator", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C in a terminal is the engine's to handle
        )
        self.pid = self._process.pid
        self.ready = threading.Event()  # also set when it has ended
        self.ended = threading.Event()
        self.ticks: list[Tick] = []  # appended to by the reader alone
        self._done = False
        self._cannot = ""
        self._complaint = b""
        self._readers = [
            threading.Thread(target=read, name=f"traffic {self.pid}", daemon=True)
            for read in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()
        self.tell(load.to_line())

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word = json.loads(line)
            if "tick" in word:
                self.ticks.append(Tick.from_json(word["tick"]))
            elif "ready" in word:
                self.ready.set()
            elif "failed" in word:
                self._cannot = word["failed"]
            else:
                self._done = True
        self.ended.set()
        self.ready.set()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaint = (self._complaint + line)[-_ERROR_TAIL:]

    def tell(self, line: bytes) -> None:
        """Say something to it; one that has ended does not hear it, and `failure` says why."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def stop(self) -> None:
        """End it now: by word, and if that takes too long by force. Once only."""
        self.tell(b"stop\n")
        self.ended.wait(_STOP_WITHIN)
        self._process.kill()  # nothing happens to one that has ended
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def failure(self) -> str:
        """Why it ended before its time; '' while it runs and when it ended well."""
        if not self.ended.is_set() or self._done:
            return ""
        if self._cannot:
            return self._cannot
        code = self._process.wait()
        words = self._complaint.decode(errors="replace").strip().splitlines()
        return f"the generator ended with status {code}" + (f": {words[-1]}" if words else "")
