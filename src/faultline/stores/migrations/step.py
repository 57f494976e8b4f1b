"""One migration as Alembic runs it: the statements that a store would run itself."""

from __future__ import annotations

from typing import Any

from faultline.stores import schema


def up(revision: str) -> None:
    """Apply it to the database that Alembic is connected to."""
    _run(schema.apply, int(revision), int(revision))


def down(revision: str) -> None:
    """Take it back."""
    _run(schema.revert, int(revision), int(revision) - 1)


def _run(act: Any, number: int, after: int) -> None:
    from alembic import op

    from faultline.stores.statements import execute

    bound = op.get_bind()

    def run(statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return execute(bound, statement, values)

    act(schema.revisions()[number - 1], bound.dialect.name, run)
    if bound.dialect.name == "sqlite":  # which the store itself goes by
        bound.exec_driver_sql(f"PRAGMA user_version = {after}")
