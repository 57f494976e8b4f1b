"""Drills: what monitoring is told is wrong, and nothing else is.

Lines are appended to an application's log, or figures are shown that tell of trouble. No request
is lost and nobody waits: what is tried is whether the alarm comes, and whether it goes.
"""

from __future__ import annotations

from faultline.faults.log.lines import LogSlow, LogStorm
from faultline.faults.log.metrics import LogMetrics

__all__ = ["LogMetrics", "LogSlow", "LogStorm"]
