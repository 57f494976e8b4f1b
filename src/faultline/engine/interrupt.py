"""Ctrl-C and SIGTERM end what is being carried out in order: everything is undone first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping(stop: Callable[[str], None]) -> Generator[None]:
    """Call `stop` with the reason when a signal comes; the undo is not interrupted by a second one.

    Only the main thread hears signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        stop(f"interrupted by {signal.Signals(number).name}")

    before = {each: signal.signal(each, handle) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
