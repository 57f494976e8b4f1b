"""A pytest plugin: `a test can say that this must survive 200 ms`.

@pytest.mark.fault("network.delay", latency="200ms", interface="lo")
def test_checkout_survives(): ...

def test_by_hand(fault):
    with fault("cpu.burn", percent="80%") as burning:
        assert burning.reading.effect == "effective"
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import faultline

if TYPE_CHECKING:
    from faultline.injection.session import FaultSession


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "fault(id, **parameters): run the test while this fault is in place and effective",
    )


@pytest.fixture
def fault() -> Callable[..., FaultSession]:
    """`faultline.fault`, for use inside a test."""
    return faultline.fault


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Put the marked faults around the test's call, outermost first; each is undone afterwards."""
    with ExitStack() as stack:
        for mark in reversed(list(item.iter_markers("fault"))):
            stack.enter_context(faultline.fault(*mark.args, **mark.kwargs))
        return (yield)
