"""Containers of Docker, in a daemon of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.everywhere import Everywhere
from tests.containers.grounds import Docker, Runtime, prepared

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_docker]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with prepared(Docker) as made:
        yield made


class TestDocker(Everywhere):
    """Everything that holds everywhere."""
