"""Several engines and writers on one store in a cluster: processes that are stopped and killed."""

from __future__ import annotations

import pytest
from tests.stores.test_replicas import (
    test_a_watcher_misses_nothing_that_several_processes_write as test_a_watcher_misses_nothing,
)
from tests.stores.test_replicas import (
    test_each_run_is_carried_out_by_one_engine_at_a_time_and_none_is_lost as test_one_at_a_time,
)

__all__ = ["test_a_watcher_misses_nothing", "test_one_at_a_time"]
pytestmark = pytest.mark.needs_apiserver
