"""Faults while they are there: which requests they hit, what was measured. No I/O."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from faultline.injection.reading import Effect, Reading, share_is
from faultline.kube.proxy.asked import Asked
from faultline.kube.proxy.faults import Latency, Stale, WatchDelay, WatchDrop, Which
from faultline.kube.proxy.wishes import Wish

SAMPLES = 1000
W = TypeVar("W", bound=Which)


@dataclass(eq=False)
class Active:
    """One fault that is there, or was."""

    wish: Wish
    begun: float
    ended: float | None = None
    over: bool = False  # whether it has been told that its time is over
    matched: int = 0  # requests, or watches, that fit
    chosen: int = 0  # of those, the ones that chance has hit
    hit: int = 0  # of those, the ones at which something has happened
    missed: int = 0  # of those that were to be hit and could not be
    events: int = 0  # of watches
    values: deque[float] = field(default_factory=lambda: deque[float](maxlen=SAMPLES))
    codes: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def params(self) -> Which:
        return self.wish.params

    @property
    def until(self) -> float:
        return self.begun + self.wish.seconds

    def is_on(self, now: float) -> bool:
        return self.ended is None and now < self.until

    def draws(self) -> bool:
        """Whether the next request that fits is hit: the same ones with the same seed."""
        self.matched += 1
        drawn = random.Random(f"{self.wish.seed}\0{self.matched}").random()
        hit = drawn < self.params.percent.ratio
        self.chosen += hit
        return hit

    def note(self, value: float | None = None, code: str = "", *, again: bool = False) -> None:
        """Something has happened at one; `again` if it had happened there before."""
        self.hit += not again
        if value is not None:
            self.values.append(value)
        if code:
            self.codes[code] = self.codes.get(code, 0) + 1

    # ------------------------------------------------------------------ what it has done

    def reading(self) -> Reading:
        """Asked against measured."""
        asked, method = self.params.words, "counted and timed by the proxy itself"
        if not self.matched:
            return Reading.unmeasured(asked, method, "no request fits")
        if not self.chosen:
            return Reading.unmeasured(asked, method, f"chance has hit none of {self.matched}")
        if not self.hit and not self.missed:
            return Reading.unmeasured(asked, method, "nothing has changed that a watch could tell")
        share = self.hit / self.matched
        text = f"{self.hit} of {self.matched} ({100 * share:.3g}%)"
        numbers = {"asked": self.params.percent.ratio, "measured": share, "n": float(self.matched)}
        if self.events:
            text += f", {self.events} events"
        if self.values:
            middle = statistics.median(self.values)
            text += f", p50 {middle:.3f} s"
            numbers["p50"] = middle
        if self.missed:
            text += f", {self.missed} not possible"
        why = self._why(share)
        effect = Effect.INEFFECTIVE if why else Effect.EFFECTIVE
        return Reading(effect, asked, text, method, why, numbers)

    def _why(self, share: float) -> str:
        """Why it has not the effect that was asked for; empty if it has."""
        if self.missed:
            return "the server does not keep the state that was asked for"
        per_watch = isinstance(self.params, (WatchDelay, WatchDrop, Stale))
        if not per_watch and not share_is(self.params.percent.ratio, self.hit, self.matched):
            return "more than three standard errors from what was asked"
        asked = self._value_asked()
        if asked is not None and self.values and statistics.median(self.values) < 0.9 * asked:
            return "shorter than was asked"
        return ""

    def _value_asked(self) -> float | None:
        if isinstance(self.params, WatchDelay):
            return self.params.delay.seconds
        if isinstance(self.params, Latency) and not self.params.jitter.seconds:
            return self.params.delay.seconds
        return None

    def to_json(self, now: float) -> dict[str, Any]:
        end = self.ended if self.ended is not None else min(now, self.until)
        return {
            "name": self.wish.name,
            "fault": self.wish.fault,
            "active": self.is_on(now),
            "seconds": round(end - self.begun, 3),
            "left": round(max(0.0, self.until - now), 3) if self.is_on(now) else 0.0,
            "matched": self.matched,
            "hit": self.hit,
            "missed": self.missed,
            "events": self.events,
            "codes": dict(self.codes),
            "reading": self.reading().to_json(),
        }


class Faults:
    """All faults of one proxy. For one event loop."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self.all: list[Active] = []
        self.changed = asyncio.Event()
        """Set whenever a fault begins or ends; whoever waits takes a new one (`again`)."""

    def want(self, wishes: Iterable[Wish]) -> None:
        """These are to be there and no others. One that has ended by its deadline stays ended."""
        wanted = {each.name: each for each in wishes}
        for active in self.all:
            if active.ended is None and wanted.get(active.wish.name) != active.wish:
                active.ended = min(self.clock(), active.until)
        known = {each.wish.name: each.wish for each in self.all if each.ended is None}
        for name, wish in wanted.items():
            if name not in known:
                self.all.append(Active(wish, self.clock()))
        self.again()

    def tick(self) -> bool:
        """End what is over; whether anything has ended."""
        now, ended = self.clock(), False
        for active in self.all:
            if active.ended is None and now >= active.until and not active.over:
                active.over = ended = True
        if ended:
            self.again()
        return ended

    def again(self) -> None:
        """Wake all that wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def on(self, kind: type[W]) -> list[tuple[Active, W]]:
        """Those of one kind that are there now."""
        now = self.clock()
        return [
            (each, each.params)
            for each in self.all
            if isinstance(each.params, kind) and each.is_on(now)
        ]

    def hitting(self, kind: type[W], asked: Asked, agent: str) -> list[tuple[Active, W]]:
        """Those that hit this request; asked once for each request."""
        return [
            (active, params)
            for active, params in self.on(kind)
            if params.fits(asked, agent) and active.draws()
        ]

    @property
    def any_on(self) -> bool:
        now = self.clock()
        return any(each.is_on(now) for each in self.all)

    def to_json(self) -> list[dict[str, Any]]:
        now = self.clock()
        return [each.to_json(now) for each in self.all]
