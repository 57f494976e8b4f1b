"""Fixtures of the network kernel layer: a namespace, two on a wire, and what the kernel has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.kernel import features
from faultline.kernel.features import Features

sys.path.insert(0, str(Path(__file__).parent))

from netrig import Net, Wire


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net.make()
    yield made
    made.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire.make()
    yield made
    made.here.close()
    made.there.close()


@pytest.fixture(scope="session")
def kernel() -> Features:
    return features.probe_features()


@pytest.fixture
def netem(kernel: Features) -> None:
    if "netem" not in kernel.present:
        pytest.skip(f"this kernel has no netem: {kernel.missing['netem']}")
