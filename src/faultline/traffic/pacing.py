"""When requests leave: the open model's schedule.

Request number i is due at start + phase + i / rate, whatever became of the ones before it. The
timers of the event loops count milliseconds, too coarse to send 1000 requests per second evenly:
the schedule is kept by a timer descriptor (timerfd_create(2)).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from faultline.kernel.clock import BootTimer, now
from faultline.traffic.model import SECOND


class Pacer:
    """Calls `fire(due)` for each request of a schedule; after a hold-up, for all that are late."""

    def __init__(
        self, start: int, end: int, rate: float, phase: int, fire: Callable[[int], None]
    ) -> None:
        self._first, self._end, self._rate = start + phase, end, rate
        self._fire = fire
        self._sent = 0
        self._timer = BootTimer()
        self.finished = asyncio.Event()

    def _due(self) -> int:
        # From the number, not from the last instant: rounding does not add up.
        return self._first + round(self._sent * SECOND / self._rate)

    def begin(self) -> None:
        asyncio.get_running_loop().add_reader(self._timer.fileno(), self._expired)
        self._timer.set(max(self._due(), 1))

    def _expired(self) -> None:
        os.read(self._timer.fileno(), 8)
        due = self._due()
        while due < self._end and due <= now():
            self._sent += 1
            self._fire(due)
            due = self._due()
        if due < self._end:
            self._timer.set(due)
        else:
            self.close()

    def close(self) -> None:
        """Fire no more."""
        if not self.finished.is_set():
            asyncio.get_running_loop().remove_reader(self._timer.fileno())
            self._timer.close()
            self.finished.set()
