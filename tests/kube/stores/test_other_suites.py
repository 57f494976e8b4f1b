"""What else is asked of all stores: many at once, what is kept, files of runs."""

from __future__ import annotations

import pytest
from tests.stores.test_groups import (
    test_one_that_is_refused_is_refused_alone,
    test_who_was_refused_sees_what_was_written_before_it,
)
from tests.stores.test_retention import (
    test_runs_come_back_from_a_file_as_they_were,
    test_what_somebody_wrote_meanwhile_stays,
)

__all__ = [
    "test_one_that_is_refused_is_refused_alone",
    "test_runs_come_back_from_a_file_as_they_were",
    "test_what_somebody_wrote_meanwhile_stays",
    "test_who_was_refused_sees_what_was_written_before_it",
]
pytestmark = pytest.mark.needs_apiserver
