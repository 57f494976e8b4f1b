"""Rules over the registry: every fault is described, documented and named as the others are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from faultline.api.quantities import Between, Flag, Quantity
from faultline.injection import registry
from faultline.injection.model import Ending, Fault

ROOT = Path(__file__).resolve().parents[2]
NAMES = tomllib.loads((ROOT / "docs" / "parameters.toml").read_text())
UNIT_WORDS = re.compile(r"_(ns|us|ms|s|sec|seconds|minutes|bytes|kb|mb|gb|percent|bits?)$")
# What every fault takes besides its parameters.
RESERVED_SHORT = {"t", "o", "h"}
RESERVED_LONG = {
    "duration", "uid", "allow", "creator", "format", "output", "no-observe", "follow", "help",
    "seed",
}  # fmt: skip

FAULTS = registry.everything()


@pytest.fixture(params=sorted(FAULTS))
def fault(request: pytest.FixtureRequest) -> Fault[Any]:
    return FAULTS[request.param]


def test_there_are_faults() -> None:
    assert FAULTS


def test_a_fault_describes_itself(fault: Fault[Any]) -> None:
    assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9-]+", fault.id)
    assert isinstance(fault.ending, Ending)
    for name in ("__doc__", "does", "cannot", "measures", "restores"):
        text = getattr(fault, name) or ""
        assert len(text.split()) >= 3, f"{fault.id} says too little in {name}: {text!r}"
        assert not re.search(r"\w'(t|s|re|ll|ve)\b(?<!s's)", text.replace("'s ", " ")), text
    assert vars(type(fault)).get("__doc__"), f"{fault.id} inherits its docstring"


def test_the_names_of_parameters_come_from_one_table(fault: Fault[Any]) -> None:
    fields = fault.params_type().model_fields
    assert set(fields) <= set(NAMES), f"not in docs/parameters.toml: {set(fields) - set(NAMES)}"
    assert not [name for name in fields if UNIT_WORDS.search(name)]
    assert not set(fields) & RESERVED_LONG


def test_every_parameter_is_explained_and_bounded(fault: Fault[Any]) -> None:
    for name, field in fault.params_type().explained().items():
        assert field.description, f"{fault.id} does not explain {name}"
        quantity = any(isinstance(each, Quantity) for each in field.metadata)
        bounded = any(isinstance(each, Between) for each in field.metadata)
        assert bounded or not quantity, f"{fault.id}: the quantity {name} has no bounds"


def test_short_flags_and_aliases_are_unique(fault: Fault[Any]) -> None:
    found: list[str] = []
    for name, field in fault.params_type().model_fields.items():
        found.append(name.replace("_", "-"))
        for each in field.metadata:
            if isinstance(each, Flag):
                found += [each.short] if each.short else []
                found += each.aliases
    assert len(found) == len(set(found)), found
    assert not set(found) & (RESERVED_SHORT | RESERVED_LONG)


def test_every_fault_has_a_page(fault: Fault[Any]) -> None:
    family = fault.id.partition(".")[0]
    page = ROOT / "docs" / "reference" / "faults" / f"{family}.md"
    assert page.exists(), "python docs/generate.py"
    assert f"\n## {fault.id}\n" in page.read_text()


def test_every_family_says_what_it_is_about() -> None:
    for module in registry.families().values():
        assert (__import__(module, fromlist=["x"]).__doc__ or "").strip(), module


def test_no_name_stands_in_the_table_for_nothing() -> None:
    used = {name for each in FAULTS.values() for name in each.params_type().model_fields}
    assert set(NAMES) - used == set()
