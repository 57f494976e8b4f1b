"""A wire with a name server at its far end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.kernel import netns

sys.path.insert(0, str(Path(__file__).parents[2] / "kernel" / "net"))
sys.path.insert(0, str(Path(__file__).parent))

from netrig import Wire


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for a module: its keepers are started once."""
    path = tmp_path_factory.mktemp("dns") / "store"
    yield path
    with Injector(path) as injector:
        keepers.retire(injector.store)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire.make()
    before = made.here.residue()
    yield made
    after = made.here.residue()
    made.here.close()
    made.there.close()
    assert after == before


@pytest.fixture
def inside(wire: Wire, store: Path) -> Iterator[Injector]:
    """An injector at the near end of the wire."""
    with netns.entered(wire.here.fd), Injector(store) as found:
        yield found
        found.recover_all()
