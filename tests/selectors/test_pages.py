"""The pages about guards and selectors: every example is accepted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from faultline.api import admission
from faultline.api.budget import ErrorBudget
from faultline.api.selector import Selector
from faultline.engine import wiring

ROOT = Path(__file__).resolve().parents[2]
SETS = ("containers", "processes", "cgroups", "pods")  # of one host
FAULT = {"name": "slow", "fault": "network.delay",
         "params": {"interface": "eth0", "latency": "200ms"}, "duration": "1m"}  # fmt: skip


def blocks(page: str) -> list[dict[str, Any]]:
    text = (ROOT / "docs" / page).read_text()
    return [yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def problems(spec: dict[str, Any]) -> list[str]:
    probes = [*spec.pop("probes", []), {"name": "p", "type": "icmp", "host": "shop.test"}]
    document = {
        "apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "page"},
        "spec": {"title": "t", "hypothesis": {"text": "h", "probes": ["p"]}, "faults": [FAULT],
                 "probes": probes, **spec},
    }  # fmt: skip
    return [str(each) for each in admission.problems(document, wiring.check_fault)]


@pytest.mark.parametrize("spec", blocks("guards.md"), ids=lambda spec: list(spec)[-1])
def test_an_example_of_a_guard_is_accepted(spec: dict[str, Any]) -> None:
    assert problems(spec) == []


@pytest.mark.parametrize("spec", blocks("selectors.md"), ids=lambda spec: next(iter(spec)))
def test_an_example_of_a_selector_is_accepted(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTLINE_PLUGINS", str(ROOT / "examples" / "plugins"))
    if "selector" in spec:
        spec = {"faults": [{**FAULT, **spec}]}
    assert problems(spec) == []


def test_every_set_mode_and_field_is_told_of() -> None:
    page = (ROOT / "docs" / "selectors.md").read_text()
    modes = ("one", "all", "fixed", "fixed-percent", "random-max-percent")
    for word in (*SETS, "plugin", *modes, "count", "percent", "exclude", "seed"):
        assert f"`{word}`" in page, word
    for name in ("containers", "processes", "cgroups"):
        model: Any = Selector.model_fields[name].annotation
        kind = next(each for each in model.__args__ if each is not type(None))
        for field in kind.model_fields:
            assert f"`{field}`" in page, f"{name}.{field}"
    page = (ROOT / "docs" / "guards.md").read_text()
    for name, field in ErrorBudget.model_fields.items():
        assert f"`{field.alias or name}`" in page or name == "name", name
