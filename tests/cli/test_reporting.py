"""`report` in all its forms, over runs that were stored."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.cli.command import Cli

from faultline.api.run import Run
from faultline.stores.opening import open_store

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "report" / "data"


@pytest.fixture
def stored(typed: Cli) -> Cli:
    """Two ended runs of one experiment, the later one broke."""
    with open_store(None, typed.state) as store:
        for name in ("run-held", "run-broke"):
            run = Run.model_validate_json((DATA / f"{name}.json").read_text(encoding="utf-8"))
            made = store.create(run)
            store.write_status(made.model_copy(update={"status": run.status}))
    return typed


def test_the_latest_run_is_compared_with_the_one_before(stored: Cli, tmp_path: Path) -> None:
    told = stored.ok("report")
    assert "Compared with run-held" in told
    assert "Regression: verdict: held became broke" in " ".join(told.split())
    assert "Compared" not in stored.ok("report", "--no-compare")
    assert "Compared" not in stored.ok("report", "run-held")
    page = tmp_path / "report.html"
    stored.ok("report", "-o", page)
    assert "Compared with the run before" in page.read_text()


def test_each_form_is_written_by_the_ending_of_the_file(stored: Cli, tmp_path: Path) -> None:
    xml, text = tmp_path / "junit.xml", tmp_path / "summary.md"
    stored.ok("report", "-o", xml)
    assert ET.parse(xml).getroot().tag == "testsuites"
    stored.ok("report", "-o", text)
    assert text.read_text().startswith("## ❌ Broke")
    assert stored("report", "--format", "otel").json()["resourceSpans"]
    found = stored("report", "--format", "grafana", "--dashboard", "board").json()
    assert found[0]["dashboardUID"] == "board"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "html", "--to", "http://x"], "--to goes with --format otel or grafana"),
        (["--format", "otel", "--token-env", "X"], "no variable X"),
        (["--format", "otel", "--panel", "3"], "go with --format grafana"),
        (["--format", "grafana", "--to", "http://127.0.0.1:9"], "refused"),
        (["--compare", "run-held", "--no-compare"], "either --compare"),
    ],
)
def test_what_does_not_go_together_is_refused(stored: Cli, words: list[str], said: str) -> None:
    answer = stored("report", *words)
    assert answer.code != 0
    assert said in answer.err
    assert "Traceback" not in answer.err
