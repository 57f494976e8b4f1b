"""Threads for the actions of many runs. They are kept for the next action, and are few as long as
actions are short; what hangs takes nobody else's thread away.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]

FEW = 6
"""Threads that are begun for what may wait a little."""
IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends."""
HANGS = 0.05
"""Seconds after which work counts as hanging: others are not kept waiting behind it."""
LONGEST = 1.0
"""Seconds that work waits at the longest, also when the machine is so busy that all are slow."""


class _Thread:
    """One thread, and what it is to do next."""

    def __init__(self) -> None:
        self.given: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.since: float | None = None  # when it began what it does


class Hands:
    """Does work beside everything else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[_Thread] = set()
        self._idle: list[_Thread] = []
        self._todo: deque[tuple[float, Work]] = deque()
        self._minded = False

    def do(self, work: Work, *, at_once: bool) -> None:
        """Begin it: `at_once` whatever else is under way, or as soon as others let it."""
        with self._lock:
            if self._idle:
                self._idle.pop().given.put(work)
            elif at_once or len(self._all) < FEW:
                self._add(work)
            else:
                self._todo.append((time.monotonic(), work))
                if not self._minded:
                    self._minded = True
                    threading.Thread(target=self._mind, name="faultline hands", daemon=True).start()

    def _add(self, work: Work) -> None:
        one = _Thread()
        one.since = time.monotonic()
        self._all.add(one)
        one.given.put(work)
        threading.Thread(target=self._live, args=(one,), name="faultline hand", daemon=True).start()

    def _live(self, one: _Thread) -> None:
        try:
            while True:
                try:
                    work = one.given.get(timeout=IDLE)
                except queue.Empty:
                    with self._lock:
                        if one in self._idle:
                            self._idle.remove(one)
                            self._all.discard(one)
                            return
                    continue  # something was given just now
                one.since = time.monotonic()
                work()
                one.since = None
                with self._lock:
                    if self._todo:
                        one.given.put(self._todo.popleft()[1])
                    else:
                        self._idle.append(one)
        finally:
            with self._lock:
                self._all.discard(one)

    def _mind(self) -> None:
        """While something waits: see whether those before it hang, and add threads if they do."""
        while True:
            begun = time.monotonic()
            time.sleep(HANGS)
            now = time.monotonic()
            with self._lock:
                if not self._todo:
                    self._minded = False
                    return
                waited = now - self._todo[0][0]
                # We were late too: it is not the work that hangs, all of us are slow.
                if waited < HANGS or (now - begun > 2 * HANGS and waited < LONGEST):
                    continue
                hang = sum(1 for one in self._all if one.since and now - one.since > HANGS)
                more = max(hang, FEW - len(self._all))  # some may have died of their work
                for _ in range(min(len(self._todo), more)):
                    self._add(self._todo.popleft()[1])
