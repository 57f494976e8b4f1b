"""The fault of an object that the documentation shows, and another package's way to bring one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
from tests.kube.conftest import Server

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import metadata
from faultline.kubefaults import registry
from faultline.kubefaults.carrying import Carrier, Order, packed

PAGE = Path(__file__).parents[3] / "docs" / "writing-a-fault.md"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the page, as an installed package has it."""
    shown = PAGE.read_text().partition("<!-- object example: begin -->")[2]
    code = shown.partition("```python\n")[2].partition("```")[0]
    made = ModuleType("budgets_of_others")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(code, str(PAGE), "exec"), vars(made))
    point = EntryPoint("budget", made.__name__, registry.GROUP)

    def points(group: str) -> list[EntryPoint]:
        return [point] if group == registry.GROUP else []

    monkeypatch.setattr(registry, "entry_points", points)
    registry.faults.cache_clear()
    yield made
    registry.faults.cache_clear()


def test_a_fault_of_another_package_is_known(example: ModuleType) -> None:
    assert isinstance(registry.get("budget.strict"), example.BudgetStrict)


@pytest.mark.needs_apiserver
def test_the_fault_that_the_page_shows_works(
    example: ModuleType, apiserver: Server, namespace: str
) -> None:
    with closing(apiserver.client()) as client:
        kind = client.kind("PodDisruptionBudget")
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        made = {"apiVersion": kind.version, "kind": kind.kind, "metadata": {"name": "web"}}
        target = client.create(kind, {**made, "spec": spec}, namespace)
        order = Order("0123", "budget.strict", {}, kind.version, kind.kind, namespace, "web",
                      str(metadata(target)["uid"]))  # fmt: skip
        carrier = Carrier(client)
        changes = carrier.plan(order)
        record = packed(changes)
        carrier.make(order, changes, again=False)
        assert _least(client, namespace) == 1000
        assert str(carrier.measure(order, record).effect) == "effective"
        assert carrier.unmake(order.uid, record, order).how == "recovered"
        assert _least(client, namespace) == 1


def _least(client: Client, namespace: str) -> int:
    found = client.get(client.kind("PodDisruptionBudget"), "web", namespace)
    return int(found["spec"]["minAvailable"])
