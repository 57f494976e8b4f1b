"""Where documents live: on this host, unless somebody named another place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from faultline.changes.store import open_store as open_folders
from faultline.errors import UsageError
from faultline.stores.sql import SqlStore

if TYPE_CHECKING:
    from faultline.stores.kube import KubeStore

    Opened = SqlStore | KubeStore

ENVIRONMENT = "FAULTLINE_STORE"
FILE = "resources.db"
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


def open_store(
    where: str | Path | None = None, state: Path | None = None, *, cached: bool = False
) -> Opened:
    """The store at a path, a `postgresql://` URL or a `kube://` one (a namespace of a cluster);
    without one that which FAULTLINE_STORE names, else the file in the state folder.

    `cached` is for who asks every second, as an engine does: a server far away tells what changes.

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
    if scheme == "kube":
        return _in_kubernetes(text, cached=cached)
    if scheme not in _SCHEMES:
        raise UsageError(
            f"no store is reached by {scheme}://",
            hint="a path, postgresql://HOST/DATABASE, or kube://NAMESPACE",
        )
    from faultline.stores.postgres import PostgresDatabase

    return SqlStore(PostgresDatabase(f"postgresql://{rest}"))


def _in_kubernetes(url: str, *, cached: bool) -> KubeStore:
    from faultline.stores.kube import KubeStore
    from faultline.stores.kube_calls import Where

    where = Where.read(url)
    return KubeStore(where.connect, where.namespace, cached=cached, place=where)
