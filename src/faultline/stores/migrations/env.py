"""What Alembic runs for each command; the caller has put its connection into the configuration."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Bring the connection of the command to the revision that it names."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


if hasattr(context, "config"):  # within a command of Alembic, not merely imported
    run()
