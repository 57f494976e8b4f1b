"""Any order of operations on a store in a cluster, against the model of what a store is."""

from __future__ import annotations

from functools import partial

import pytest
from tests.kube.stores.conftest import Opener
from tests.stores import test_stateful as suite

pytestmark = pytest.mark.needs_apiserver


@pytest.mark.parametrize("examples", [3, pytest.param(60, marks=pytest.mark.full)])
def test_any_order_of_operations_is_as_the_model_says(opener: Opener, examples: int) -> None:
    """One of the two keeps what it knows, the other asks each time."""
    suite.check(partial(opener, cached=True), opener, examples, suite.QUICK)
