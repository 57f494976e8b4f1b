"""One scratch namespace for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import rig as rigs


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[rigs.Rig]:
    with rigs.scratch(tmp_path) as made:
        yield made
