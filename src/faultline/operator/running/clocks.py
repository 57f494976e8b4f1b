"""The clock that runs of a cluster are kept by: no machine's own.

An engine that goes on with a run on another node must understand what the one before it has
written, so deadlines are times of day in nanoseconds. Within one process the clock goes as evenly
as that of the machine, whatever anybody sets.
"""

from __future__ import annotations

import time
from typing import Final

from faultline.engine.model import Now
from faultline.kernel import clock

BOOT: Final = "kubernetes"
"""Stands where a run of one machine has the boot of that machine."""
_AHEAD = time.time_ns() - clock.now()


def instant() -> Now:
    """Now."""
    return Now(time.time(), clock.now() + _AHEAD, BOOT)
