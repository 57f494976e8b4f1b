"""The page of figures says what the newest recorded run measured, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_figures_is_made_from_the_newest_recorded_run() -> None:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    made = figures.page(figures.recorded())
    assert figures.PAGE.read_text() == made, "run: .venv/bin/python docs/figures.py"
    assert "| figure | value | aim |" in made
