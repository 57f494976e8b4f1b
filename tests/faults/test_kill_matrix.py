"""Killed at any step, with any keeper gone: every fault is undone all the same.

By default a sample that changes from run to run, with its seed printed; everything with `--full`.
Repeat a sample with FAULTLINE_SEED=N.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from faultline.errors import Unsupported
from faultline.injection import registry
from faultline.testing import conformance

SEED = int(
    os.environ.setdefault("FAULTLINE_SEED", str(time.time_ns() // 10**9))
)  # as in the second kernel
FAULTS = sorted(registry.everything())
HURT = ("one", "both", "stopped")
SAMPLED_STEPS = 1  # of each fault
SAMPLED_KEEPERS = 8  # pairs of a fault and what is done to its keepers

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.both_kernels,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def _sampled_keepers() -> list[tuple[str, str]]:
    pairs = [(fault_id, how) for fault_id in FAULTS for how in HURT]
    return sorted(random.Random(SEED).sample(pairs, SAMPLED_KEEPERS))


def _complaints(check: Callable[[], list[str]]) -> list[str]:
    try:
        return check()
    except Unsupported as error:
        pytest.skip(f"this kernel cannot: {error}")


@pytest.mark.parametrize("fault_id", FAULTS)
def test_killed_at_a_random_step_it_is_recovered(fault_id: str) -> None:
    print(f"seed {SEED}")
    complaints = _complaints(
        lambda: conformance.check_killed_injector(fault_id, SAMPLED_STEPS, SEED)
    )
    assert complaints == [], f"repeat with FAULTLINE_SEED={SEED}"


@pytest.mark.parametrize(("fault_id", "how"), _sampled_keepers())
def test_its_deadline_is_met_whatever_happens_to_a_keeper(fault_id: str, how: str) -> None:
    assert _complaints(lambda: conformance.check_killed_keepers(fault_id, how)) == []


@pytest.mark.full
@pytest.mark.parametrize("fault_id", FAULTS)
def test_killed_at_every_step_it_is_recovered(fault_id: str) -> None:
    assert _complaints(lambda: conformance.check_killed_injector(fault_id, 0, SEED)) == []


@pytest.mark.full
@pytest.mark.parametrize("how", HURT)
@pytest.mark.parametrize("fault_id", FAULTS)
def test_every_deadline_is_met_whatever_happens_to_a_keeper(fault_id: str, how: str) -> None:
    assert _complaints(lambda: conformance.check_killed_keepers(fault_id, how)) == []
