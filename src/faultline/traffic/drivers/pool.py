"""Connections that are kept: the one that was used last is used next, and at most so many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """Open connections; who finds none free opens one, or waits where there may be no more."""

    def __init__(
        self,
        opens: Callable[[], Awaitable[C]],
        closes: Callable[[C], None],
        most: int = 0,
        alive: Callable[[C], bool] = lambda _: True,
    ) -> None:
        """`closes` must not wait; `most`: how many at once, 0 for any number."""
        self._opens, self._closes, self._alive = opens, closes, alive
        self._free: list[C] = []
        self._turn = asyncio.Semaphore(most) if most else None

    async def take(self) -> C:
        """One to use alone, until `give` or `lose`."""
        if self._turn:
            await self._turn.acquire()
        try:
            return self._take() or await self._opens()
        except BaseException:
            self.lose()
            raise

    def give(self, connection: C, *, keep: bool = True) -> None:
        """Give one back that nothing is under way on."""
        if keep:
            self._free.append(connection)
        else:
            self._closes(connection)
        self.lose()

    def lose(self) -> None:
        """Let somebody else have the place of one that somebody else closes."""
        if self._turn:
            self._turn.release()

    @asynccontextmanager
    async def connection(self, *, keep: bool = True) -> AsyncGenerator[C]:
        """One to use alone; closed if it is not to be kept or anything was raised."""
        found = await self.take()
        try:
            yield found
        except BaseException:
            self.give(found, keep=False)
            raise
        self.give(found, keep=keep)

    def _take(self) -> C | None:
        while self._free:
            found = self._free.pop()
            if self._alive(found):
                return found
            self._closes(found)
        return None

    def close(self) -> None:
        """Close those that are free."""
        while self._free:
            self._closes(self._free.pop())
