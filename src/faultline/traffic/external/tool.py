"""A load tool that runs: its process, and the threads that read what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pwd import getpwnam
from typing import Any

import faultline
from faultline.api.secret import SecretRef
from faultline.api.traffic_external import ExternalTraffic
from faultline.errors import ApplyFailed, ObserveFailed
from faultline.traffic.external.formats import PACKAGES

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINE = 64 << 10  # bytes of a line that are read; the rest of it is forgotten
_KEPT = 300  # characters of a line that are kept to be shown
_LOOK = 0.2  # seconds between two looks at a file of figures
_END = 5.0  # seconds that the end of everything may take


class Lines:
    """Bytes as they come, cut into lines of bounded length; a return ends a line too."""

    def __init__(self) -> None:
        self._rest = b""
        self._forgetting = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now; b'' completes the last one."""
        *whole, rest = (self._rest + data.replace(b"\r", b"\n")).split(b"\n")
        if not data and rest:
            whole, rest = [*whole, rest], b""
        if self._forgetting and whole:
            whole, self._forgetting = whole[1:], False
        if len(rest) > _LINE:
            if not self._forgetting:
                whole = [*whole, rest]
            rest, self._forgetting = b"", True
        self._rest = rest
        return [line[:_LINE].decode(errors="replace") for line in whole if line.strip()]


class Tool:
    """One run of a tool. It lives no longer than this process."""

    def __init__(self, spec: ExternalTraffic, deadline: int) -> None:
        """Start it; `deadline`: ns of CLOCK_BOOTTIME. Raises ApplyFailed."""
        self._spec = spec
        self._lock = threading.Lock()
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self.last: dict[str, deque[str]] = {name: deque(maxlen=5) for name in ("out", "err")}
        self.ended = threading.Event()
        self.code: int | None = None  # None: it was killed with its parent, or has not ended
        self._exit = threading.Event()  # of the tool itself
        try:
            self._launch(self._order(deadline))
        except ApplyFailed:
            self._clean()
            raise
        self.started = time.time()
        self._begun = time.monotonic()

    def _order(self, deadline: int) -> dict[str, Any]:
        spec = self._spec
        try:
            account = getpwnam(spec.user) if spec.user else None
        except KeyError as error:
            raise ApplyFailed(f"there is no user {spec.user!r}") from error
        env = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": account.pw_dir if account else _home()}
        try:
            given = {k: v.resolve() if isinstance(v, SecretRef) else v for k, v in spec.env.items()}
        except ObserveFailed as error:
            raise ApplyFailed(error.message) from error
        self.cwd = Path(spec.cwd or self._folder(account.pw_uid if account else None))
        program = spec.command[0]
        path = {**env, **given}["PATH"]
        if "/" not in program and not shutil.which(program, path=path):
            how = PACKAGES.get(program, "")
            raise ApplyFailed(
                f"there is no program {program!r} in {path}",
                hint=f"install it: {how}" if how else "install it, or give its whole path",
            )
        who = None
        if account:
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
            who = [account.pw_uid, account.pw_gid, groups]
        return {
            "argv": list(spec.command),
            "env": {**env, **given},
            "cwd": str(self.cwd),
            "user": who,
            "deadline": deadline,
            "own": self._own.name if self._own else "",
        }

    def _folder(self, uid: int | None) -> str:
        self._own = tempfile.TemporaryDirectory(prefix="faultline-", ignore_cleanup_errors=True)
        if uid is not None and os.geteuid() == 0:
            os.chown(self._own.name, uid, -1)
        return self._own.name

    def _launch(self, order: dict[str, Any]) -> None:
        folder = str(Path(faultline.__file__).parent.parent)
        says, say = os.pipe()
        try:
            self._leash = subprocess.Popen(
                [
                    *(sys.executable, "-S", "-P", "-m", "faultline.traffic.external.leash"),
                    *(str(os.getpid()), str(say)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PYTHONPATH": folder},
                pass_fds=(say,),
                start_new_session=True,
            )
        finally:
            os.close(say)
        self._says = os.fdopen(says, "rb")
        self._command(json.dumps(order).encode())
        first = json.loads(self._says.readline() or b'{"error": "its parent process has ended"}')
        if "error" in first:
            self._leash.communicate()
            self._says.close()
            raise ApplyFailed(f"{self._spec.command[0]} could not be started: {first['error']}")
        self.pid = int(first["pid"])

    def listen(self, tell: Callable[[str, float], None]) -> None:
        """Have `tell` called with each line of its output and the seconds since the start, from one
        thread at a time. To be called once.
        """
        self._tell = tell
        assert self._leash.stdout is not None
        assert self._leash.stderr is not None
        work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (self._read, (self._leash.stdout.fileno(), "out")),
            (self._read, (self._leash.stderr.fileno(), "err")),
        ]
        if self._spec.results:
            work.append((self._follow, (self.cwd / self._spec.results,)))
        readers = [
            threading.Thread(target=each, args=args, name=f"tool {self.pid}", daemon=True)
            for each, args in work
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(readers,), daemon=True).start()

    def _take(self, lines: list[str]) -> None:
        with self._lock:
            at = time.monotonic() - self._begun
            for line in lines:
                self._tell(line, at)

    def _read(self, fd: int, name: str) -> None:
        lines = Lines()
        over = False
        while not over:
            data = os.read(fd, 65536)
            over = not data
            found = lines.feed(data)
            self.last[name].extend(line.strip()[:_KEPT] for line in found[-5:])
            self._take(found)

    def _follow(self, path: Path) -> None:
        """Read a file as it grows, and what is left of it when the tool has ended."""
        lines, file = Lines(), None
        over = False
        while not over:
            over = self._exit.wait(_LOOK)
            if file is None:
                with suppress(OSError):
                    file = path.open("rb", buffering=0)
            while file is not None and (data := file.read(1 << 20)):
                self._take(lines.feed(data))
        if file is not None:
            self._take(lines.feed(b""))
            file.close()

    def _wait(self, readers: list[threading.Thread]) -> None:
        said = self._says.readline()
        self.code = json.loads(said)["ended"] if said else None
        self._exit.set()
        for reader in readers:
            reader.join()
        self.ended.set()

    def _command(self, line: bytes) -> None:
        assert self._leash.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # it has ended; it was closed
            self._leash.stdin.write(line + b"\n")
            self._leash.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        self._command(b"signal %d" % number)

    def hurry(self) -> None:
        """Have it and all that it started killed; `kill` waits for that."""
        self._command(b"kill")

    def kill(self) -> None:
        """End it and all that it started, and wait for that; not twice."""
        self.hurry()
        self.ended.wait(_END)
        self._leash.kill()
        self._leash.wait()
        self.ended.wait(_END)
        for pipe in (self._leash.stdin, self._leash.stdout, self._leash.stderr, self._says):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._clean()

    def _clean(self) -> None:
        if self._own is not None:
            self._own.cleanup()
            self._own = None


def _home() -> str:
    return os.environ.get("HOME", "/")
