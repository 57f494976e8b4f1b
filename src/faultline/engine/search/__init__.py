"""Search: the worst value of a fault's parameter that a set of probes still bears."""

from __future__ import annotations

from faultline.engine.search.settings import (
    Done,
    Entry,
    Found,
    Outcome,
    Point,
    Settings,
    Trial,
    Why,
)
from faultline.engine.search.stepping import next_step

__all__ = [
    "Done",
    "Entry",
    "Found",
    "Outcome",
    "Point",
    "Settings",
    "Trial",
    "Why",
    "next_step",
]
