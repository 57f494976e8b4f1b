"""Killed at any step, with any keeper gone: every fault is undone all the same.

By default a sample that changes from run to run (faultline.testing.sampling); with `--full`
everything.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faultline.errors import Unsupported
from faultline.injection import registry
from faultline.places.model import HOST, PROCESS
from faultline.testing import conformance
from faultline.testing.sampling import SEED, sample

HURT = ("one", "both", "stopped")
PLACES = [
    (fault_id, kind)
    for fault_id, fault in registry.triable().items()
    for kind in (HOST, PROCESS)
    if kind in fault.places
]
PAIRS = [(*place, how) for place in PLACES for how in HURT]
SAMPLED_FAULTS = 24  # on some place, each at one step
SAMPLED_KEEPERS = 8  # on some place, with something done to its keepers

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.both_kernels,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def _complaints(check: Callable[[], list[str]]) -> list[str]:
    try:
        return check()
    except Unsupported as error:
        pytest.skip(f"this kernel cannot: {error}")


@pytest.mark.parametrize(("fault_id", "kind"), sample(PLACES, SAMPLED_FAULTS, "killed"))
def test_killed_at_a_random_step_it_is_recovered(fault_id: str, kind: str) -> None:
    complaints = _complaints(lambda: conformance.check_killed_injector(fault_id, 1, SEED, kind))
    assert complaints == [], f"repeat with FAULTLINE_SEED={SEED}"


@pytest.mark.parametrize(("fault_id", "kind", "how"), sample(PAIRS, SAMPLED_KEEPERS, "keepers"))
def test_its_deadline_is_met_whatever_happens_to_a_keeper(
    fault_id: str, kind: str, how: str
) -> None:
    complaints = _complaints(lambda: conformance.check_killed_keepers(fault_id, how, kind))
    assert complaints == [], f"repeat with FAULTLINE_SEED={SEED}"


@pytest.mark.full
@pytest.mark.parametrize(("fault_id", "kind"), PLACES)
def test_killed_at_every_step_it_is_recovered(fault_id: str, kind: str) -> None:
    assert _complaints(lambda: conformance.check_killed_injector(fault_id, 0, SEED, kind)) == []


@pytest.mark.full
@pytest.mark.parametrize(("fault_id", "kind", "how"), PAIRS)
def test_every_deadline_is_met_whatever_happens_to_a_keeper(
    fault_id: str, kind: str, how: str
) -> None:
    assert _complaints(lambda: conformance.check_killed_keepers(fault_id, how, kind)) == []
