"""The store of the simulations keeps the promises of the real ones: the same model checks it."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.engine.shelf import Connection, Shelf
from tests.stores.test_stateful import Operations

from faultline.testing.sampling import examples


def test_any_order_of_operations_is_as_with_a_database() -> None:
    shelf = Shelf()
    stores = (Connection(shelf), Connection(shelf))
    machine = type("Bound", (Operations,), {"stores": stores})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(
        max_examples=examples(30, 400),
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=checks,
    )
    run_state_machine_as_test(machine, settings=chosen)
