"""The thin port below a store: the same statements for SQLite and PostgreSQL.

Statements are written with `?` for values and hold no other question mark and no percent sign. What
differs between the two is here: how rows are locked, how a change is told, whose clock counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]
Wait = Callable[[float], None]
"""Waits up to so many seconds for a change of anything; may return sooner for no reason."""

COUNTED = "SELECT version FROM counter"


class Database(Protocol):
    """One database. Used by several threads; a transaction belongs to the thread that began it."""

    words: str
    """Where it is, for people; without a password."""
    shared: bool
    """Whether other hosts may use it too."""
    row_lock: str
    """What makes a query lock the rows that it finds."""
    skip_locked: str
    """The same, leaving out rows of the table `l` that somebody else has locked."""

    def rows(self, query: str, *values: Any) -> list[Row]:
        """What a query finds."""
        ...

    def run(self, statement: str, *values: Any) -> int:
        """Change something; how many rows that were."""
        ...

    def many(self, statement: str, values: Iterable[Row]) -> None:
        """The same statement for each of these."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """All queries within see the same instant."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """All or nothing of what is done within; on disk when it is left."""
        ...

    def bump(self) -> int:
        """The next version of the store. From here to the end of the transaction nobody else gets
        one, so versions become visible in their order.
        """
        ...

    def clock(self) -> tuple[str, float]:
        """The time by which leases end, in seconds, and the epoch that it counts in: a time of
        another epoch has passed.
        """
        ...

    def waiting(self) -> AbstractContextManager[Wait]:
        """Something to wait with that misses no change from here on."""
        ...

    def close(self) -> None: ...
