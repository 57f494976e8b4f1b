"""A generator that nobody talks to: what runs in a pod, and says on its output what it has met.

The load stands in the environment. It begins by itself, tells when, and then each second in the
words that generators have; SIGTERM means to send no more and to wait for the answers under way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from faultline.errors import UsageError
from faultline.kernel.clock import now
from faultline.traffic.model import SECOND, Load
from faultline.traffic.worker import Worker

LOAD = "FAULTLINE_LOAD"
"""The variable with the load, as JSON."""
_READY_WITHIN = 30.0
_LEAD = SECOND // 20  # from "go" to the first request
_LOOK = 0.1


def main() -> int:
    """Send, tell, end; the exit status says whether that went well. Raises UsageError."""
    try:
        load = Load.from_line(os.environ[LOAD].encode())
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"there is no load in {LOAD}: {error}") from error
    worker = Worker(load)

    def end(_number: int, _frame: object) -> None:
        worker.tell(b"end\n")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if not worker.ready.wait(_READY_WITHIN) or worker.ended.is_set():
        worker.stop()
        return _failed(worker.failure() or "the generator was not ready in time")
    begin = now() + _LEAD
    _say({"begun": time.time() + _LEAD / SECOND})
    worker.tell(b"go %d\n" % begin)
    told, over = 0, False
    while not over:
        over = worker.ended.wait(_LOOK)
        for tick in worker.ticks[told:]:
            sys.stdout.write(tick.to_line() + "\n")
            told += 1
        sys.stdout.flush()
    if why := worker.failure():
        return _failed(why)
    _say({"done": True})
    return 0


def _failed(why: str) -> int:
    _say({"failed": why})
    return 1


def _say(word: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()
