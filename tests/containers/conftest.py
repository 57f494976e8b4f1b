"""Stores for the tests of containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.injection.injector import Injector


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for a module, so that its keepers need not be started for each test."""
    state = tmp_path_factory.mktemp("containers") / "state"
    yield state
    with Injector(state) as injector:
        injector.recover_all()
        keepers.retire(injector.store)


@pytest.fixture
def injector(store: Path) -> Iterator[Injector]:
    with Injector(store) as made:
        yield made
        made.recover_all()
