"""Start processes at a pace, up to a number that is alive at once; or leave them as zombies.

Each child dies with this process and at the deadline. A zombie is a child that has ended and that
nobody waits for: this process does so when it ends.

Order (spec), beside `deadline` and `stats`: `count`, at most so many at once; `interval`, ns from
one to the next, 0 for as fast as it goes; `lifetime`, ns that each lives, 0 for as long as this
process; `zombies`; `join`, folders of control groups.
"""

from __future__ import annotations

import errno
import gc
import os
import time
from collections.abc import Callable
from typing import Any, Final

from faultline.errors import InvalidParameter
from faultline.workers.figures import Figures
from faultline.workers.join import join_groups
from faultline.workers.lifetime import Lifetime, end_children

LIMIT: Final = 30_000
_TICK: Final = 0.02  # seconds between two looks
_BATCH: Final = 200  # children between two looks
_PAUSE: Final = 0.1  # seconds after the kernel has refused one


class Brood:
    """The children of this process."""

    def __init__(self, spec: dict[str, Any], lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._zombies = bool(spec["zombies"])
        self._seconds = int(spec["lifetime"]) / 1e9
        self.count = int(spec["count"])
        self.interval = int(spec["interval"]) / 1e9
        self.alive: set[int] = set()
        self.begun = self.refused = 0

    def grow(self, most: int) -> bool:
        """Start up to `most` children; False if the kernel has refused one."""
        for _ in range(min(most, self.count - len(self.alive), _BATCH)):
            try:
                pid = self._one()
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                    raise
                self.refused += 1
                return False
            self.alive.add(pid)
            self.begun += 1
        return True

    def _one(self) -> int:
        if not self._zombies:
            return self._lifetime.fork("fl-child", self._live)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return pid

    def _live(self) -> int:
        while True:
            time.sleep(self._seconds or 3600)
            if self._seconds:
                return 0

    def bury(self) -> None:
        """Wait for those that have ended, so that they can be replaced."""
        while not self._zombies and self.alive:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self.alive.discard(pid)

    def figures(self) -> dict[str, Any]:
        return {"alive": len(self.alive), "begun": self.begun, "refused": self.refused}


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Breed until the deadline or SIGTERM, then end and wait for all."""
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    brood = Brood(spec, lifetime)
    if not 1 <= brood.count <= LIMIT:
        raise InvalidParameter("count", brood.count, f"1 to {LIMIT}")
    join_groups(spec.get("join", ()))
    gc.freeze()  # or each child would copy what a collection touches
    told, began = False, time.monotonic()
    try:
        while True:
            brood.bury()
            due = LIMIT
            if brood.interval:
                due = int((time.monotonic() - began) / brood.interval) + 1 - brood.begun
            went = brood.grow(due)
            figures.publish(brood.figures())
            full = len(brood.alive) >= brood.count
            if not told and (full or not went or brood.interval or spec["lifetime"]):
                ready({**brood.figures(), "stats": spec.get("stats", "")})
                told = True
            hurry = went and not full and not brood.interval
            if lifetime.wait(0 if hurry else _TICK if went else _PAUSE):
                return 0
    finally:
        end_children(brood.alive)
