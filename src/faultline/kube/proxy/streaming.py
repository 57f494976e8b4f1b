"""One watch on its way to the client: late, cut off, silent, or behind.

Lines come in as the server sends them and go out when they may. Faults that begin or end meanwhile
count for those that are there already.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from faultline.kube.proxy.active import Active, Faults
from faultline.kube.proxy.asked import Asked
from faultline.kube.proxy.faults import Stale, WatchDelay, WatchDrop, Which
from faultline.kube.proxy.timeline import Timeline

TICK = 0.05  # seconds between two looks while a fault is there
MANY = 100_000  # lines that are held at most
W = TypeVar("W", bound=Which)
Write = Callable[[bytes], Awaitable[None]]


class Cut(Exception):
    """The watch ends as a fault wants it: without another word."""


class Watch:
    """One watch."""

    def __init__(self, asked: Asked, agent: str, faults: Faults, timeline: Timeline) -> None:
        self.asked, self.agent = asked, agent
        self._faults, self._timeline = faults, timeline
        self._begun = faults.clock()
        self._drawn: dict[Active, bool] = {}
        self._held: deque[tuple[float, bytes]] = deque()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._late: set[Active] = set()  # whose delay the line at hand had to bear
        self._noted: set[Active] = set()

    async def pass_on(self, lines: AsyncIterator[bytes], write: Write) -> None:
        """Until the server, the client or a fault ends it; raises Cut where the connection is to
        break.
        """
        reader = asyncio.create_task(self._read(lines))
        try:
            while await self._step(write):
                pass
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _read(self, lines: AsyncIterator[bytes]) -> None:
        try:
            async for line in lines:
                self._held.append((self._faults.clock(), line))
                self._arrived.set()
                if len(self._held) >= MANY:  # then the server has to wait
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._arrived.set()

    async def _step(self, write: Write) -> bool:
        """Let one line pass, or wait; False when it is over."""
        ending = self._drop()
        if ending is not None:
            active, how = ending
            self._note(active, None, how)
            if how == "expired":
                await write(_expired())
            if how == "disconnect":
                raise Cut
            return False
        if self._held and self._silenced():
            self._taken()
            return True
        if self._held and self._may_pass(*self._held[0]):
            arrived, line = self._taken()
            self._measured(arrived)
            await write(line + b"\n")
            return True
        if self._ended and not self._held:
            return False
        await self._wait()
        return True

    def _taken(self) -> tuple[float, bytes]:
        self._room.set()
        return self._held.popleft()

    async def _wait(self) -> None:
        """For a line, a change of the faults, or a moment while there are any."""
        self._arrived.clear()
        changed = self._faults.changed
        waits = [asyncio.create_task(each.wait()) for each in (self._arrived, changed)]
        try:
            patience = TICK if self._faults.any_on else None
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    # ------------------------------------------------------------------ what faults say

    def _hit_by(self, kind: type[W]) -> list[tuple[Active, W]]:
        """Those that are there and hit this watch: drawn once for each."""
        found: list[tuple[Active, W]] = []
        for active, params in self._faults.on(kind):
            if active not in self._drawn:
                fits = params.fits(self.asked, self.agent)
                self._drawn[active] = fits and active.draws()
            if self._drawn[active]:
                found.append((active, params))
        return found

    def _drop(self) -> tuple[Active, str] | None:
        """The fault that ends it now, and how."""
        for active, params in self._hit_by(WatchDrop):
            age = self._faults.clock() - self._begun
            if params.how != "silence" and age >= params.every.seconds:
                return active, params.how
        return None

    def _silenced(self) -> bool:
        hit = [active for active, params in self._hit_by(WatchDrop) if params.how == "silence"]
        for active in hit:
            active.events += 1
            self._note(active, None, "silence")
        return bool(hit)

    def _may_pass(self, arrived: float, line: bytes) -> bool:
        now, free = self._faults.clock(), True
        for active, params in self._hit_by(WatchDelay):
            self._late.add(active)
            free = free and now >= arrived + params.delay.seconds
        stale = self._hit_by(Stale)
        if free and stale:
            version = _version(line)
            for active, params in stale:
                seen = self._timeline.view(active, params)
                if seen is not None and version is not None and version > seen[0]:
                    self._late.add(active)
                    free = False
        return free

    def _measured(self, arrived: float) -> None:
        for active in self._late:
            active.events += 1
            self._note(active, self._faults.clock() - arrived, "late")
        self._late.clear()

    def _note(self, active: Active, value: float | None, code: str) -> None:
        active.note(value, code, again=active in self._noted)
        self._noted.add(active)


def _version(line: bytes) -> int | None:
    try:
        told = cast("dict[str, Any]", json.loads(line))
        version = str(told["object"]["metadata"]["resourceVersion"])
    except (ValueError, KeyError, TypeError):
        return None
    return int(version) if version.isdigit() else None


def _expired() -> bytes:
    status: dict[str, Any] = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version (a fault of Faultline)", "reason": "Expired",
        "code": 410,
    }  # fmt: skip
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
