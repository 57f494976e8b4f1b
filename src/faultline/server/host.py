"""What the routes work with: the runs and faults of this host, and the engine that keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from faultline.api.admission import CheckFault
from faultline.engine.runs import Runs
from faultline.injection.injector import Injector


def _nobody(_name: str) -> None:
    """No engine is told."""


@dataclass(frozen=True, slots=True)
class Host:
    """Each call opens what it needs, and closes it again: it runs in a thread of its own."""

    runs: Callable[[], AbstractContextManager[Runs]]
    injector: Callable[[], Injector]
    check_fault: CheckFault
    begin: Callable[[str], None] = _nobody
    """Tells the engine that a run is its to begin, at once."""
    ending: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends: who follows the events is let go."""
