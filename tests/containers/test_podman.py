"""Containers of Podman, in folders of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.everywhere import Everywhere, said, standing
from tests.containers.grounds import Podman, Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_podman]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    yield from standing(Podman)


class TestPodman(Everywhere):
    """Everything that holds everywhere."""

    def test_what_it_writes_is_kept_with_a_run(self, runtime: Runtime) -> None:
        with self.own(runtime, "box", "--log-driver", "k8s-file") as name:
            found = said(name, "hello from inside")
            assert [line.text for line in found.lines] == ["hello from inside"]
