from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.stores.model import Store
from faultline.stores.sql import SqlStore

Opener = Callable[[], Store]


def _sql(folder: Path) -> Opener:
    return lambda: SqlStore(folder / "resources.db")


STORES = {"sql": _sql}


@pytest.fixture(params=sorted(STORES))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens one more connection to the same store; every implementation runs the same tests."""
    return STORES[request.param](tmp_path)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    opened = opener()
    yield opened
    opened.close()
