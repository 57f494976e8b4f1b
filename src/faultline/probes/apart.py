"""Calls that no limit of ours reaches (a disk that hangs, the driver of a database): each runs in a
thread of its own, which is left behind when it takes too long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from faultline.probes.limit import Limit

T = TypeVar("T")

_GRACE = 0.05  # seconds; a call that knows the limit itself says better what was late


class _Call(Generic[T]):
    """One call: its answer, or what it raised."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answer: list[T] = []
        self._raised: BaseException | None = None
        self.over = threading.Event()

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        """Whatever ends the call is raised again by whoever waits for it."""
        self._raised = raised
        self.over.set()
        return True

    def run(self) -> None:
        with self:
            self._answer.append(self._call())

    def answer(self) -> T:
        if self._raised is not None:
            raise self._raised
        return self._answer[0]


class Apart:
    """Runs calls apart from the caller; at most `most` may be left behind at a time."""

    def __init__(self, name: str, most: int = 1) -> None:
        self._name, self._most = name, most
        self._left: list[_Call[object]] = []

    def run(self, limit: Limit, call: Callable[[], T], late: Callable[[], None] | None = None) -> T:
        """The answer of the call; raises what it raises, and NoAnswer when the time is over.

        `late` is told then: it may cut what the call waits for.
        """
        self._make_room(limit)
        begun: _Call[T] = _Call(call)
        threading.Thread(target=begun.run, name=self._name, daemon=True).start()
        if not begun.over.wait(limit.left() + _GRACE):
            self._left.append(begun)  # pyright: ignore[reportArgumentType]
            if late is not None:
                late()
            raise limit.late()
        return begun.answer()

    def _make_room(self, limit: Limit) -> None:
        self._left = [each for each in self._left if not each.over.is_set()]
        if len(self._left) < self._most:
            return
        # Waiting for the oldest keeps the number of threads bounded, however long it hangs.
        if not self._left[0].over.wait(limit.left()):
            raise limit.late("a measurement before this one has not ended, and did not")
        self._left.pop(0)
