"""Fixtures of the heart: a store of the test's own, with its keepers ended afterwards."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers

sys.path.insert(0, str(Path(__file__).parent))

from lifeground import Ground, keepers_of, until


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    for process in keepers_of(made.store).values():
        process.id.send(signal.SIGCONT)
    if made.store.journal.exists():
        with made.injector() as injector:
            injector.lift()
            injector.recover_all()
    for role in ("a", "b"):
        if connection := keepers.connect(made.store, role):
            with connection:
                keepers.ask(connection, {"op": "quit"})
    assert until(lambda: not keepers_of(made.store)), keepers_of(made.store)
