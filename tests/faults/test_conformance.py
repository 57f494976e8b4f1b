"""Every registered fault keeps the promises of the public conformance suite."""

from __future__ import annotations

import pytest

from faultline.errors import Unsupported
from faultline.injection import registry
from faultline.testing import conformance

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.both_kernels,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.mark.parametrize("fault_id", registry.everything())
def test_the_fault_conforms(fault_id: str) -> None:
    """Plan touches nothing, bad values are refused, the effect is measured, undo leaves nothing."""
    try:
        complaints = conformance.check(fault_id)
    except Unsupported as error:
        pytest.skip(f"this kernel cannot: {error}")
    assert complaints == []


def test_every_family_has_faults_to_check() -> None:
    assert all(registry.family(name) for name in registry.families())
