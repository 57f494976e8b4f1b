"""Every registered fault keeps the promises of the public conformance suite, wherever it acts."""

from __future__ import annotations

import pytest

from faultline.errors import Unsupported
from faultline.injection import registry
from faultline.places.model import HOST, PROCESS
from faultline.testing import conformance, together
from faultline.testing.sampling import SEED, sample

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.both_kernels,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

ON_HOST = [i for i, each in registry.triable().items() if HOST in each.places]
ELSEWHERE = [i for i, each in registry.triable().items() if PROCESS in each.places]
SAMPLED = 12  # faults that are tried on a place of their own


def _conforms(fault_id: str, kind: str) -> None:
    try:
        complaints = conformance.check(fault_id, kind)
    except Unsupported as error:
        pytest.skip(f"this kernel cannot: {error}")
    assert complaints == []


@pytest.mark.parametrize("fault_id", ON_HOST)
def test_the_fault_conforms(fault_id: str) -> None:
    """Plan touches nothing, bad values are refused, the effect is measured, undo leaves nothing."""
    _conforms(fault_id, HOST)


@pytest.mark.parametrize("fault_id", sample(ELSEWHERE, SAMPLED, "places"))
def test_the_fault_conforms_on_a_place_with_everything_of_its_own(fault_id: str) -> None:
    _conforms(fault_id, PROCESS)


@pytest.mark.full
@pytest.mark.parametrize("fault_id", ELSEWHERE)
def test_every_fault_conforms_on_a_place_with_everything_of_its_own(fault_id: str) -> None:
    _conforms(fault_id, PROCESS)


def test_ten_faults_at_once_on_one_place_leave_nothing() -> None:
    complaints = together.check_together(10, SEED)
    assert complaints == [], f"repeat with FAULTLINE_SEED={SEED}"


@pytest.mark.full
@pytest.mark.parametrize("more", range(1, 20))
def test_any_ten_faults_at_once_leave_nothing(more: int) -> None:
    complaints = together.check_together(10, SEED + more)
    assert complaints == [], f"repeat with FAULTLINE_SEED={SEED + more}"


def test_every_family_has_faults_to_check() -> None:
    assert all(registry.family(name) for name in registry.families())
