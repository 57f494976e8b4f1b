"""Drives a run to its end: steps, begins actions in threads, and sleeps until it matters.

One engine per run, by a lock that the kernel releases when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from faultline.api.run import Run
from faultline.engine import actions
from faultline.engine.carrying import Carrying, Listener
from faultline.engine.interrupt import stopping
from faultline.engine.model import SECOND, Action, Result
from faultline.engine.ports import Tools
from faultline.errors import Conflict
from faultline.stores.model import Store

__all__ = ["Driver", "Listener"]

Begin = Callable[[Action, Callable[[], Result | None], Callable[[Result | None], None]], None]
"""Is given an action, what does it, and who is to be told what came of that; returns at once."""

_SELECT = 1024  # FD_SETSIZE


class Driver:
    """Carries out one run. `drive` returns when the run has ended."""

    def __init__(
        self, store: Store, name: str, tools: Tools, locks: Path, listener: Listener | None = None
    ) -> None:
        self.name = name
        self.tools = tools
        self.locks = locks
        self.carrying = Carrying(store, name, tools, self._start, listener)
        self.begin: Begin = _in_a_thread
        """How an action is set to work beside everything else."""
        self._results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        self._left = False  # what has not begun by then is no longer ours to do
        self.wake: Callable[[], None] = _nobody
        """Is told when something has happened that it would not rest for; in any thread."""
        self.wake_ns = 0
        """When the next step is due if nothing happens before, by CLOCK_BOOTTIME."""

    def nudge(self) -> None:
        """Look at once: something was written, or halted. Safe in threads."""
        self.carrying.nudge()
        self._put(None)

    def stop(self, why: str) -> None:
        """Abort: undo everything, then return from `drive`. Safe in signal handlers and threads."""
        self.carrying.interrupt = self.carrying.interrupt or why
        self._put(None)

    def drive(self) -> Run:
        """Go on with the run until it has ended."""
        with stopping(self.stop):
            for _ in self.steps():
                self.rest()
        return self.carrying.run

    def steps(self) -> Generator[None]:
        """The same, a step at a time; between two of them it is to `rest`."""
        with _only_one(self.locks, self.name):
            try:
                while not self.carrying.ended:
                    self.wake_ns = self.carrying.step()
                    if not self.carrying.ended:
                        yield
            finally:
                self._left = True
                self.carrying.close()

    def rest(self) -> None:
        """Sleep until the next step is due, or something has happened."""
        left = max(0.0, (self.wake_ns - actions.instant().boot_ns) / SECOND)
        with suppress(queue.Empty):
            self._learn(self._results.get(timeout=left))
        self.hear()

    def hear(self) -> None:
        """Take what has come, without waiting for anything."""
        with suppress(queue.Empty):
            while True:
                self._learn(self._results.get_nowait())

    def _learn(self, result: Result | None) -> None:
        if result is not None:
            self.carrying.learn((result,))

    @property
    def called(self) -> bool:
        """Whether something has happened that it would not rest for."""
        return not self._results.empty()

    def _put(self, result: Result | None) -> None:
        self._results.put(result)
        self.wake()

    def _start(self, run: Run, action: Action) -> None:
        """Beside everything else: an action that hangs must not hold up an undo."""

        def work() -> Result | None:
            if self._sure():  # time may have passed since it was decided
                return actions.carry_out(run, action, self.tools)
            self.carrying.forget(action)
            return None

        self.begin(action, work, self._put)

    def _sure(self) -> bool:
        try:
            return not self._left and self.carrying.sure()
        except Conflict:  # the next step meets it too
            return False


def _nobody() -> None:
    """It rests in a thread of its own, and hears of it there."""


def _in_a_thread(
    action: Action, work: Callable[[], Result | None], tell: Callable[[Result | None], None]
) -> None:
    def act() -> None:
        tell(work())

    threading.Thread(target=act, name=f"faultline {action.id}", daemon=True).start()


@contextmanager
def _only_one(locks: Path, name: str) -> Generator[None]:
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = locks / f"{name}.run"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = _out_of_the_way(os.open(path, flags, 0o600))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise Conflict(
            f"run {name} is being carried out by process {holder}",
            holder=name,
            hint=f"follow it with `faultline watch`, or abort it: faultline abort {name}",
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _out_of_the_way(descriptor: int) -> int:
    """The same with a high number: those below are the only ones that select(2) takes, and a
    thousand runs would leave none of them.
    """
    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _SELECT)
    except OSError:  # we may not have so many
        return descriptor
    os.close(descriptor)
    return high
