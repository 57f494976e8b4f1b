"""Starting workers: an interpreter that was loaded once forks one for each order.

An interpreter with what a worker imports takes some 60 ms to start, a fork takes one. So a process
that injects has a helper, started with its first worker, which waits for the next request and ends
with that process or when nothing was asked of it for a while.

A worker carries its mark before it gets its order: should we die in between, no order comes and it
ends; afterwards the mark leads to it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from faultline.changes import frozen

PLACEHOLDER = "-" * 127
"""The last argument of a helper, over which each worker writes its mark."""

_NAMESPACES = ("user", "mnt", "pid_for_children")
SILENCE = "it ended without a word"
"""What `obey` answers as the error of one that ended so."""
START = 20.0  # seconds that a worker may take to be there

Key = tuple[Any, ...]


class Waiting:
    """A worker that waits for its order, or is on its way to. Ends when it is let go of."""

    def __init__(self, helper: _Helper, module: str, mark: str) -> None:
        self._helper = helper
        self._failed: dict[str, Any] | None = None
        self._talk, theirs = socket.socketpair()
        self._complaints, complaints = os.pipe()
        network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            helper.ask({"module": module, "mark": mark}, theirs.fileno(), complaints, network)
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()
            os.close(complaints)
            os.close(network)

    def marked(self, patience: float) -> bool:
        """Wait until it carries its mark; False when it, or the helper, has ended before."""
        try:
            said = self._line(time.monotonic() + patience)
        except OSError as error:
            said = {"error": str(error)}
        self._failed = said if "error" in said else None
        return self._failed is None

    def obey(self, order: bytes, patience: float) -> dict[str, Any]:
        """Give the order and wait for the one line of answer."""
        if self._failed is not None:
            return self._failed
        until = time.monotonic() + patience
        try:
            self._talk.settimeout(patience)
            self._talk.sendall(order)
            self._talk.shutdown(socket.SHUT_WR)
            return self._line(until)
        except TimeoutError:
            return {"error": f"not ready after {patience:g} s"}
        except ConnectionError:
            return {"error": self._complaint()}

    def _line(self, until: float) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            self._talk.settimeout(max(0.001, until - time.monotonic()))
            chunk = self._talk.recv(1 << 16)
            if not chunk:
                return {"error": self._complaint()}
            line += chunk
        return json.loads(line)

    def _complaint(self) -> str:
        """The last line that it wrote before it ended."""
        text = b""
        while select.select((self._complaints,), (), (), 1.0)[0]:
            chunk = os.read(self._complaints, 1 << 16)
            if not chunk:
                break
            text += chunk
        lines = text.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else SILENCE

    def close(self) -> None:
        """Let go of it: without an order it ends, with one it goes on by itself."""
        self._talk.close()
        os.close(self._complaints)
        self._helper.served()


class _Helper:
    """The process that forks workers, from one frozen copy of the code."""

    def __init__(self, code: str, *, once: bool = False) -> None:
        self._once = once
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._starter = subprocess.Popen(
                frozen.command(code, "workers.__main__", PLACEHOLDER),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except BaseException:
            self._line.close()
            raise
        finally:
            theirs.close()

    def ask(self, request: dict[str, str], *descriptors: int) -> None:
        """Have it load a module and, with descriptors, fork a worker. Raises OSError."""
        socket.send_fds(self._line, [json.dumps(request).encode()], descriptors)

    def served(self) -> None:
        """A worker has been let go of."""
        self._starter.poll()
        if self._once:
            self.close()

    def close(self) -> None:
        """Without its line it ends; it is no child of ours, what started it is."""
        self._line.close()
        self._starter.wait()


class _Helpers:
    """The helper of this process, and what it was started from: workers inherit that."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._helper: _Helper | None = None
        self._key: Key = ()

    def ready(self, code: str, module: str) -> None:
        with self._turn:
            key = _inherited(code)
            if self._helper is not None and self._key == key:
                try:
                    self._helper.ask({"module": module})
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it had nothing to do for long, or was ended
                else:
                    return
            self.forget()
            self._helper, self._key = _Helper(code), key
            self._helper.ask({"module": module})

    def spawn(self, code: str, module: str, mark: str) -> Waiting:
        with self._turn:
            helper = self._helper if self._key == _inherited(code) else None
        if helper is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                waiting = Waiting(helper, module, mark)
                if waiting.marked(START):
                    return waiting
                waiting.close()
        # One that lasts would hold the network that we may be visiting.
        waiting = Waiting(_Helper(code, once=True), module, mark)
        waiting.marked(START)  # if not, it complains when it gets its order
        return waiting

    def forget(self) -> None:
        """Close our end of the line."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()


def _inherited(code: str) -> Key:
    """What a worker takes from the process that starts it; its network is handed over each time."""
    spaces = [Path(f"/proc/thread-self/ns/{name}").stat().st_ino for name in _NAMESPACES]
    groups = Path("/proc/thread-self/cgroup").read_bytes()
    nice, cores = os.getpriority(os.PRIO_PROCESS, 0), frozenset(os.sched_getaffinity(0))
    return code, *spaces, groups, os.geteuid(), nice, cores


_helpers = _Helpers()


def ready(code: str, module: str) -> None:
    """Have the helper of this process come up, from the code in folder `code`, and load a worker.

    It keeps the caller's namespaces for as long as this process lives. Raises OSError.
    """
    _helpers.ready(code, module)


def spawn(code: str, module: str, mark: str) -> Waiting:
    """A worker in the network that the caller is in, which waits for its order; raises OSError."""
    return _helpers.spawn(code, module, mark)


def forget() -> None:
    """Let the helper of this process end."""
    _helpers.forget()


def _in_child() -> None:
    """A fork has copies of our line, which would keep the helper alive, and of our lock."""
    global _helpers  # noqa: PLW0603 - the lock may be taken for ever
    forget()
    _helpers = _Helpers()


os.register_at_fork(after_in_child=_in_child)
