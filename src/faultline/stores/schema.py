"""The schema of a store: one list of migrations for every database.

Alembic applies them on PostgreSQL (and, where somebody wants it, on SQLite). On SQLite the store
applies the same ones itself, so that one host needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

HEAD = 2  # the newest schema; the revisions are looked at only when a store is older
NAMES = ("m0001_resources", "m0002_histories")
PACKAGE = "faultline.stores.migrations.versions"

Execute = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
"""Runs one statement with `?` for its values."""

# Words of the statements that the two databases do not share. Names are ordered by their bytes.
WORDS = {
    "sqlite": {"text": "TEXT", "int": "INTEGER", "real": "REAL", "keyed": " WITHOUT ROWID"},
    "postgresql": {
        "text": 'TEXT COLLATE "C"',
        "int": "BIGINT",
        "real": "DOUBLE PRECISION",
        "keyed": "",
    },
}


class Revision(Protocol):
    """A migration: a module in `migrations/versions`."""

    revision: str
    UP: str
    DOWN: str

    def fill(self, execute: Execute) -> None:
        """Derive what is new from what is there."""
        ...

    def empty(self, execute: Execute) -> None:
        """Put back into what remains what will be dropped."""
        ...


def revisions() -> list[Revision]:
    """All migrations, oldest first; the n-th leads to schema n."""
    return [cast(Revision, importlib.import_module(f"{PACKAGE}.{name}")) for name in NAMES]


def apply(revision: Revision, dialect: str, execute: Execute) -> None:
    """One step up, within the transaction of the caller."""
    for statement in _statements(revision.UP, dialect):
        execute(statement, ())
    revision.fill(execute)


def revert(revision: Revision, dialect: str, execute: Execute) -> None:
    """One step down, within the transaction of the caller."""
    revision.empty(execute)
    for statement in _statements(revision.DOWN, dialect):
        execute(statement, ())


def _statements(text: str, dialect: str) -> list[str]:
    filled = text.format(**WORDS[dialect])
    return [statement for part in filled.split(";") if (statement := part.strip())]
