"""When requests leave: the open model's schedule.

A request leaves when it is due, whatever became of the ones before it. The timers of the event
loops count milliseconds, too coarse to send 1000 requests per second evenly: the schedule is kept
by a timer descriptor (timerfd_create(2)).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from faultline.kernel.clock import BootTimer, now
from faultline.traffic.schedule import Curve

_AT_ONCE = 64  # after a hold-up, between looks at what has been answered


class Pacer:
    """Calls `fire(number, due)` for each request of a schedule, until it says False; after a
    hold-up, for all that are late.
    """

    def __init__(
        self,
        curve: Curve,
        times: tuple[int, int],
        share: tuple[int, int],
        fire: Callable[[int, int], bool],
    ) -> None:
        """`times`: begin and end, CLOCK_BOOTTIME; `share`: the first number and the step."""
        self._curve, self._fire = curve, fire
        self._start, self._end = times
        self._number, self._step = share
        self._timer = BootTimer()
        self.finished = asyncio.Event()

    def _due(self) -> int:
        at = self._curve.when(self._number)
        return self._end if at is None else self._start + at

    def begin(self) -> None:
        asyncio.get_running_loop().add_reader(self._timer.fileno(), self._expired)
        self._timer.set(max(self._due(), 1))

    def _expired(self) -> None:
        os.read(self._timer.fileno(), 8)
        due, left = self._due(), _AT_ONCE
        while due < self._end and due <= now() and left and not self.finished.is_set():
            number, left = self._number, left - 1
            self._number += self._step
            if not self._fire(number, due):
                self.close()
                break
            due = self._due()
        if self.finished.is_set():
            return
        if due < self._end:
            self._timer.set(max(due, 1))
        else:
            self.close()

    def close(self) -> None:
        """Fire no more."""
        if not self.finished.is_set():
            asyncio.get_running_loop().remove_reader(self._timer.fileno())
            self._timer.close()
            self.finished.set()
