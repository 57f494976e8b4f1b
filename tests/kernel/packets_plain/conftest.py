"""An ordinary user for each test, or the reason why there is none here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import plain as plains


@pytest.fixture
def plain() -> Iterator[plains.Plain]:
    python, why = plains.interpreter()
    if not python:
        pytest.skip(why)
    with plains.user() as made:
        yield made
