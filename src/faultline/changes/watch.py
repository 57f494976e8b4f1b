"""Faults that need a living process, and their end when it has died, stopped or hung.

Most faults are harmless without whoever made them, or the kernel ends them. A filter that leads
packets to a process is not: when the process stands still the packets vanish. Its kind has a pulse
(`Kind.pulse`), a number that the process keeps changing; a keeper that sees it stand still over
several of its own looks undoes the fault. Looks are counted and not seconds, so that a machine that
stood still as a whole, or slept, takes no fault away.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from faultline.changes import undo

if TYPE_CHECKING:
    from faultline.changes.book import Armed

EVERY = 0.15  # seconds between two looks
IDLE = 1.0  # seconds between two turns of a keeper that has nothing to watch
LOOKS = 4  # looks at the same number after which the process counts as lost


class Watch:
    """What one keeper has seen of the pulses of its faults."""

    def __init__(self, looks: int = LOOKS) -> None:
        self._looks = looks
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}  # number, how often it was seen
        self._next = 0.0

    def look(self, book: Iterable[Armed]) -> list[Armed]:
        """The faults whose process is lost; none between two looks, however often it is called."""
        now = time.monotonic()
        if now < self._next:
            return []
        self._next = now + EVERY
        before, self._seen = self._seen, {}
        # One that was tried and failed waits for its next try.
        kept = [armed for armed in book if not armed.running and not armed.tries]
        return [armed for armed in kept if self._lost(armed, before) or _orphaned(armed)]

    def _lost(self, armed: Armed, before: dict[tuple[str, int], tuple[int, int]]) -> bool:
        lost = False
        for step, ctx in zip(armed.record.steps, armed.contexts, strict=True):
            kind = undo.kind_of(step)
            pulse = kind.pulse(step.change.spec, ctx) if kind.watched else None
            if pulse is None:
                continue
            key = (ctx.uid, ctx.index)
            number, times = before.get(key, (pulse, 0))
            times = times + 1 if number == pulse else 1
            self._seen[key] = (pulse, times)
            lost = lost or times > self._looks
        return lost


def _orphaned(armed: Armed) -> bool:
    """Whether the target has ended and its fault with it: what is left of it holds things alive."""
    return bool(armed.record.place.get("ends_with")) and undo.ended_with_target(armed.record)


def pause(book: Iterable[Armed]) -> float:
    """Seconds that a keeper may sleep until it has to look again."""
    watched = (
        undo.kind_of(step).watched or armed.record.place.get("ends_with")
        for armed in book
        for step in armed.record.steps
    )
    return EVERY if any(watched) else IDLE
