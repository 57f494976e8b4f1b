"""What a search has spent of what it may break."""

from __future__ import annotations

import math
from collections.abc import Sequence

from faultline.engine.search.settings import Entry, Outcome, Settings


def broken_seconds(settings: Settings, history: Sequence[Entry]) -> float:
    """For how long the system was broken."""
    return sum(
        settings.hold if entry.broken is None else entry.broken
        for entry in history
        if entry.outcome is Outcome.BROKE or entry.broken is not None
    )


def breaks_left(settings: Settings, history: Sequence[Entry]) -> float:
    """How many more trials may break."""
    left = math.inf
    if settings.broken_trials is not None:
        left = settings.broken_trials - sum(entry.outcome is Outcome.BROKE for entry in history)
    if settings.hold > 0 and settings.broken_seconds < math.inf:
        free = settings.broken_seconds - broken_seconds(settings, history)
        left = min(left, free // settings.hold)
    return left
