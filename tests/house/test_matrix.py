"""The published matrix says what was measured, of every fault, and nothing else."""

from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

from faultline.injection import registry
from faultline.places.model import HOST, PROCESS
from faultline.testing.matrix import GROUNDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "docs" / "matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tables(text: str) -> list[list[list[str]]]:
    """The rows of each section, as their cells; the first is the head."""
    return [
        [
            [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("| ")
        ]
        for section in text.split("\n## ")[1:]
    ]


def test_the_page_is_made_from_what_was_recorded(matrix: ModuleType) -> None:
    assert matrix.PAGE.read_text() == matrix.page(), "run: .venv/bin/python docs/matrix.py"
    assert matrix.recorded(), "nothing was recorded: ./run matrix"


def test_it_has_all_columns_and_every_fault_on_every_kernel(matrix: ModuleType) -> None:
    for head, *rows in _tables(matrix.PAGE.read_text()):
        assert head == list(matrix.HEAD)
        assert {len(row) for row in rows} == {len(head)}
        assert registry.everything().keys() <= {row[0] for row in rows}


def test_every_fault_has_a_row_for_each_kind_of_place_and_most_are_measured(
    matrix: ModuleType,
) -> None:
    for _, *rows in _tables(matrix.PAGE.read_text()):
        pairs = [(row[0], row[1]) for row in rows]
        assert sorted(pairs) == sorted(product(registry.everything(), GROUNDS))
        measured = {(row[0], row[1]) for row in rows if row[2] != matrix.NOT_YET}
        assert measured >= set(product(registry.everything(), (HOST, PROCESS)))


def test_what_was_not_measured_is_said_and_what_failed_has_its_reason(matrix: ModuleType) -> None:
    row = {"fault": "a.b", "place": "host", "why": "", "effect": "", "end": "", "kill_points": 0,
           "survived": 0, "complaints": ["its life did not come to an end; OSError: no"],
           "time": 0.0}  # fmt: skip
    kernel = {"release": "1", "machine": "m", "cgroups": "v2", "cores": "1"}
    text = "\n".join(matrix.section({"kernel": kernel, "rows": [row]}))
    assert "| a.b | host | its life did not come to an end; OSError: no |" in text
    assert text.count(matrix.NOT_YET) == len(registry.everything()) * len(GROUNDS)
