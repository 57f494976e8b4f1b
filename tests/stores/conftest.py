from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.stores import server

from faultline.stores.model import Store
from faultline.stores.opening import open_store

Opener = Callable[[], Store]
STORES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[server.Server]:
    """One server for all tests; each has a database of its own."""
    if why := server.missing():
        pytest.skip(why)
    pytest.importorskip("psycopg", reason="needs the extra: faultline[sql]")
    with server.Server() as running:
        open_store(running.url("template1")).close()  # what every new database begins with
        yield running


def place(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Where a new store of this kind is."""
    if kind == "sqlite":
        return str(folder / "resources.db")
    return request.getfixturevalue("postgres").database()


@pytest.fixture(params=STORES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store on each database, as `open_store` takes it."""
    return place(request.param, request, tmp_path)


@pytest.fixture
def opener(where: str) -> Iterator[Opener]:
    """Opens one more connection to the same store."""
    opened: list[Store] = []

    def more() -> Store:
        opened.append(open_store(where))
        return opened[-1]

    yield more
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> Store:
    return opener()
