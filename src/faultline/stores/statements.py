"""Statements with `?` on an SQLAlchemy connection, whatever its driver writes for a value."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult


@lru_cache(maxsize=256)
def formatted(statement: str) -> str:
    """The statement as psycopg reads it; it holds no other question mark and no percent sign."""
    return statement.replace("?", "%s")


def perform(connection: Connection, statement: str, values: Any = ()) -> CursorResult[Any]:
    """Run it; `values` is one row of them, or a list of rows."""
    if connection.dialect.paramstyle != "qmark":
        statement = formatted(statement)
    return connection.exec_driver_sql(statement, values or None)


def execute(connection: Connection, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """Run it; what it found, if it was a question."""
    result = perform(connection, statement, values)
    return [tuple(row) for row in result] if result.returns_rows else []
