"""The migrations of a store, and what Alembic needs to apply them."""
