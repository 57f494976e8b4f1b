"""The suite of all stores over this one, with and without a cache."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kube.stores.conftest import Opener
from tests.stores import test_conformance as suite
from tests.stores.test_conformance import *  # noqa: F403
from tests.stores.test_series import (
    test_another_process_goes_on_with_the_series,  # noqa: F401
    test_series_come_back_complete_whatever_is_done_to_them,  # noqa: F401
)

from faultline.api.run import Run
from faultline.stores.kube import KubeStore
from faultline.stores.model import Expired, Store

pytestmark = pytest.mark.needs_apiserver


@pytest.fixture(params=[False, True], ids=["asked", "told"])
def store(request: pytest.FixtureRequest, opener: Opener) -> KubeStore:
    return opener(cached=request.param)


def test_a_watcher_that_is_too_far_behind_is_told_so(store: Store) -> None:
    """What the server keeps is its own business; version 1 it has never kept."""
    with pytest.raises(Expired):
        next(store.watch(1, timeout=0))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-(2.0**53), 2.0**53)  # beyond that the server makes whole numbers of them
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    params=st.dictionaries(st.text(), JSON, max_size=3),
    labels=st.dictionaries(st.text(), st.text()),
)
def test_any_document_comes_back_equal(
    store: Store, params: dict[str, object], labels: dict[str, str]
) -> None:
    suite.test_any_document_comes_back_equal.hypothesis.inner_test(store, params, labels)  # type: ignore[attr-defined]


def test_filters_find_what_the_documents_say_in_pages(opener: Opener) -> None:
    """All of them over the same documents, which take a while to make."""
    asked, told = opener(), opener(cached=True)
    suite.fill(asked)
    runs = asked.list(Run)
    for wanted in suite.FILTERS:
        for store in (asked, told):
            suite.check_filter(store, wanted, runs)
