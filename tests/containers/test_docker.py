"""Containers of Docker, in a daemon of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.everywhere import Everywhere, standing
from tests.containers.grounds import Docker, Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_docker]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    yield from standing(Docker)


class TestDocker(Everywhere):
    """Everything that holds everywhere."""
