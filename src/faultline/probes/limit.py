"""The two things that every measurement can run into: no time left, and no answer."""

from __future__ import annotations

import time


class NoAnswer(Exception):
    """The measured service failed: refused, timed out, answered wrongly. The text says how."""


class Limit:
    """How much time one measurement has left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than 0; raises NoAnswer when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self, what: str = "no answer") -> NoAnswer:
        """What to raise when the time is over: `what` did not come within it."""
        return NoAnswer(f"{what} within {self.seconds:.3g} s")
