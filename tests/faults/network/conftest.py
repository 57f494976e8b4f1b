"""Fixtures of the network faults: a store with its keepers, lanes for traffic, namespaces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.injection import engines
from faultline.injection.injector import Injector
from faultline.kernel import netns

sys.path.insert(0, str(Path(__file__).parents[2] / "kernel" / "net"))
sys.path.insert(0, str(Path(__file__).parent))

from lanes import Lane, lane
from netrig import Wire

LANES = ("lo-out", "lo-in", "wire-out", "wire-in")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for a module: its keepers are started once."""
    path = tmp_path_factory.mktemp("network") / "store"
    yield path
    with Injector(path) as injector:
        keepers.retire(injector.store)


def _injector(store: Path, namespace: int) -> Iterator[Injector]:
    with netns.entered(namespace), Injector(store) as found:
        yield found
        found.recover_all()


@pytest.fixture(params=[f"{kind}-{family}" for kind in LANES for family in (4, 6)])
def way(request: pytest.FixtureRequest) -> Iterator[Lane]:
    """Every lane there is: on `lo` and over a wire, outgoing and incoming, IPv4 and IPv6."""
    kind, _, family = request.param.rpartition("-")
    made, nets = lane(kind, int(family))
    before = [net.residue() for net in nets]
    yield made
    after = [net.residue() for net in nets]
    for net in nets:
        net.close()
    assert after == before


@pytest.fixture(params=["lo-out-4", "wire-out-4", "wire-in-6"])
def few(request: pytest.FixtureRequest) -> Iterator[Lane]:
    """Some of the lanes, for what takes longer."""
    kind, _, family = request.param.rpartition("-")
    made, nets = lane(kind, int(family))
    before = [net.residue() for net in nets]
    yield made
    after = [net.residue() for net in nets]
    for net in nets:
        net.close()
    assert after == before


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire.make()
    yield made
    made.here.close()
    made.there.close()


@pytest.fixture
def on_way(way: Lane, store: Path) -> Iterator[Injector]:
    """An injector where the lane's device is."""
    yield from _injector(store, way.inside.fd)


@pytest.fixture
def on_few(few: Lane, store: Path) -> Iterator[Injector]:
    yield from _injector(store, few.inside.fd)


@pytest.fixture
def injector(wire: Wire, store: Path) -> Iterator[Injector]:
    """An injector at the near end of the wire."""
    yield from _injector(store, wire.here.fd)


@pytest.fixture
def offered() -> frozenset[str]:
    """What the kernel here can do."""
    return engines.offered()
