"""The recorded runs (test data) and what several tests make of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.api.run import Run

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in DATA.glob("*.json"))
Read = Callable[[str], Run]


@pytest.fixture(scope="session")
def recorded() -> Read:
    """Reads a recorded run by name, fresh each time: tests may change it."""

    def read(name: str) -> Run:
        return Run.model_validate_json((DATA / f"{name}.json").read_text(encoding="utf-8"))

    return read


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest, recorded: Read) -> Run:
    """Each recorded run in turn."""
    return recorded(request.param)


@pytest.fixture
def held(recorded: Read) -> Run:
    return recorded("run-held")


@pytest.fixture
def broke(recorded: Read) -> Run:
    return recorded("run-broke")
