"""Writes of several threads that go to disk together, in one transaction with a savepoint for each.

One that fails takes nothing of the others with it, and none is acknowledged before all are there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from faultline.stores.model import StoreFailed

_LONGEST = 0.02  # seconds that the first of them waits for the others to be made


class Shared(Protocol):
    """The transaction that they share. What it raises is StoreFailed."""

    def begin(self) -> None:
        """Open it."""
        ...

    def save(self, first: bool) -> None:
        """Before each write; `first`: nothing that is kept stands in it yet."""
        ...

    def keep(self) -> None:
        """After a write that was done."""
        ...

    def undo(self, first: bool) -> bool:
        """Take back what was done since `save`; False if everything in it is lost."""
        ...

    def commit(self) -> None:
        """Put it on disk."""
        ...

    def rollback(self) -> None:
        """Forget it. Raises nothing of the database's."""
        ...

    def failed(self, error: BaseException) -> StoreFailed:
        """What others are told whose writes went with it."""
        ...


class _Group:
    """Writes that go to disk together."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.writes = 0
        self.settled = threading.Event()
        self.error: StoreFailed | None = None


class Groups:
    """Threads that take turns in transactions of at most so many writes."""

    def __init__(self, shared: Shared, most: int) -> None:
        self.turn = threading.Lock()
        """Whoever has it writes, or sees to it that nobody does."""
        self.queued = 0
        """How many wait for their turn."""
        self._shared, self._most = shared, most
        self._writer: int | None = None  # the thread whose turn it is
        self._queue = threading.Lock()  # of those who want a turn
        self._group: _Group | None = None

    @property
    def mine(self) -> bool:
        """Whether this thread is within a transaction that writes."""
        return self._writer == threading.get_ident()

    @contextmanager
    def writing(self) -> Generator[None]:
        """All or nothing of what is done within; on disk when it is left."""
        if self.mine:
            raise RuntimeError("a transaction of this thread is under way")
        with self._queue:
            self.queued += 1
        with ExitStack() as after, self._my_turn():
            group = self._group or self._begun()
            # Whoever has the last turn puts it on disk; from then on it has been written. Who
            # was refused waits too: he will look at what the others wrote.
            after.callback(group.settled.wait)
            try:
                with self._within(group):
                    yield
            finally:
                if self._group is group and (self._full(group) or not self.queued):
                    self.settle(group)
        if group.error is not None:
            raise StoreFailed(group.error.message, hint=group.error.hint) from group.error

    @contextmanager
    def _my_turn(self) -> Generator[None]:
        """When it comes, this thread is the one that writes."""
        left = False
        try:
            with self.turn:
                with self._queue:
                    self.queued -= 1
                    left = True
                self._writer = threading.get_ident()
                try:
                    yield
                finally:
                    self._writer = None
        finally:
            if not left:  # interrupted while it waited: others may wait for it
                with self._queue:
                    self.queued -= 1
                with self.turn:
                    if self._group is not None and not self.queued:
                        self.settle(self._group)

    def _begun(self) -> _Group:
        self._shared.begin()
        self._group = _Group()
        return self._group

    def _full(self, group: _Group) -> bool:
        return group.writes >= self._most or time.monotonic() - group.begun >= _LONGEST

    @contextmanager
    def _within(self, group: _Group) -> Generator[None]:
        """All or nothing of what is done within; the others of the group keep what they did."""
        first = group.writes == 0
        try:
            self._shared.save(first)
            yield
            self._shared.keep()
            group.writes += 1
        except BaseException as error:
            if not self._shared.undo(first):
                group.error = self._shared.failed(error)
                self._group = None
                self._shared.rollback()
                group.settled.set()
            raise

    def settle(self, group: _Group) -> None:
        """Put all of it on disk; what does not get there is told to everybody who wrote it."""
        self._group = None
        try:
            if group.writes:
                self._shared.commit()
            else:
                self._shared.rollback()
        except StoreFailed as error:
            group.error = error
            self._shared.rollback()
        except BaseException as error:
            group.error = self._shared.failed(error)
            raise
        finally:
            group.settled.set()
