"""Where documents live on this host, unless somebody named another place."""

from __future__ import annotations

import os
from pathlib import Path

from faultline.changes.store import open_store as open_folders
from faultline.errors import UsageError
from faultline.stores.sql import SqlStore

ENVIRONMENT = "FAULTLINE_STORE"
FILE = "resources.db"
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


def open_store(where: str | Path | None = None, state: Path | None = None) -> SqlStore:
    """The store at a path or a `postgresql://` URL; without one that which FAULTLINE_STORE names,
    else the file in the state folder.

    Raises UsageError, UntrustedStore, Unsupported (no driver), StoreFailed (no server), and
    InvalidDocument for one of a newer version.
    """
    named = where or os.environ.get(ENVIRONMENT)
    if not named:
        return SqlStore(open_folders(state).state / FILE)
    text = str(named)
    scheme, colon, rest = text.partition("://")
    if not colon:
        return SqlStore(Path(text).absolute())
    if scheme == "sqlite":
        return SqlStore(Path(rest.removeprefix("/") or FILE).absolute())
    if scheme not in _SCHEMES:
        raise UsageError(
            f"no store is reached by {scheme}://", hint="a path, or postgresql://HOST/DATABASE"
        )
    from faultline.stores.postgres import PostgresDatabase

    return SqlStore(PostgresDatabase(f"postgresql://{rest}"))
