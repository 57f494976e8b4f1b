"""Containers of Containerd, in a daemon of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.everywhere import Everywhere, standing
from tests.containers.grounds import Containerd, Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_containerd]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    yield from standing(Containerd)


class TestContainerd(Everywhere):
    """Everything that holds everywhere."""
