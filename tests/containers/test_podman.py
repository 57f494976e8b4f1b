"""Containers of Podman, in folders of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.everywhere import Everywhere, standing
from tests.containers.grounds import Podman, Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_podman]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    yield from standing(Podman)


class TestPodman(Everywhere):
    """Everything that holds everywhere."""
