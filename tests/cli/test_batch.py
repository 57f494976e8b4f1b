"""One experiment over a list of applications: a run for each, one table for all."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Cli

from faultline.engine.batch import rows_of
from faultline.errors import InvalidParameter, UsageError
from faultline.report import table
from faultline.report.table import Line

NAMES = ("shop", "bank", "depot")


def document(folder: Path, duration: str = "1s") -> Path:
    """Writes lines into the log of one of some applications and reads them there."""
    for name in NAMES:
        (folder / f"{name}.log").write_text("all is well\n")
    log = f"{folder}/${{application}}.log"
    seen = {"type": "command", "command": ["/bin/grep", "-c", "${words}", log], "code": "any"}
    spec: dict[str, Any] = {
        "title": "errors of ${application}",
        "parameters": {"application": {}, "words": {"default": "simulated"}},
        "hypothesis": {"text": "they are seen", "probes": ["seen"]},
        "probes": [
            {"name": "seen", "mode": "during", "expect": "1,", "interval": "200ms", **seen},
        ],
        "faults": [
            {
                "name": "errors",
                "fault": "log.storm",
                "duration": duration,
                "params": {"path": log, "lines": 50},
            }
        ],
        "discovery": {"probe": "seen"},
        "baseline": "300ms",
        "cooldown": "300ms",
    }
    file = folder / "experiment.yaml"
    head = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment"}
    file.write_text(yaml.safe_dump({**head, "metadata": {"name": "errors"}, "spec": spec}))
    return file


@pytest.mark.slow
def test_each_row_has_a_run_of_its_own_and_all_have_one_table(typed: Cli, tmp_path: Path) -> None:
    file, rows = document(tmp_path), tmp_path / "rows.yaml"
    # The second one looks for words that nobody writes.
    words = ("simulated", "sunshine", "simulated")
    rows.write_text(
        yaml.safe_dump([{"application": a, "words": w} for a, w in zip(NAMES, words, strict=True)])
    )
    answer = typed("run", file, "--for-each", rows, "--at-once", 3, "--summary", tmp_path / "t.md")
    assert answer.code == 5, answer
    assert "3 runs: 2 held, 1 broke." in answer.out
    assert len(typed("runs", "--format", "json").json()) == 3
    listed = (tmp_path / "t.md").read_text()
    assert listed.startswith("# errors\n")
    assert [line.split(" | ")[2] for line in listed.splitlines() if "errors-" in line] == [
        "held", "broke", "held",
    ]  # fmt: skip
    assert all((tmp_path / f"{name}.log").read_text() == "all is well\n" for name in NAMES)


@pytest.mark.slow
def test_an_interrupt_undoes_what_is_on_and_begins_no_other(typed: Cli, tmp_path: Path) -> None:
    file = document(tmp_path, "60s")
    running = typed.start(
        "run", file, "--for-each", f"application={','.join(NAMES)}", "--format", "json"
    )
    until = time.monotonic() + 60
    while "simulated" not in (tmp_path / "shop.log").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, (out, err)
    rows = json.loads(out)
    assert [row["values"]["application"] for row in rows] == list(NAMES)
    assert [row["verdict"] for row in rows][1:] == ["not run", "not run"]
    assert all((tmp_path / f"{name}.log").read_text() == "all is well\n" for name in NAMES)


def test_a_wrong_row_is_told_before_anything_is_run(typed: Cli, tmp_path: Path) -> None:
    file = document(tmp_path)
    for words in (
        ("--for-each", "colour=red"),
        ("--for-each", "application=shop,shop"),
        ("--for-each", tmp_path / "nothing.csv"),
        ("--for-each", "application=shop", "--summary", tmp_path / "t.xls"),
        ("--for-each", "application=shop", "--report", tmp_path / "r.html"),
        ("--at-once", "2", "--set", "application=shop"),
    ):
        answer = typed("run", file, *words)
        assert answer.code == 2, answer
    assert typed.ok("runs") == "no runs\n"


def test_rows_come_from_a_list_a_sheet_or_a_document(tmp_path: Path) -> None:
    assert rows_of("a=x, y,") == [{"a": "x"}, {"a": "y"}]
    (tmp_path / "r.csv").write_text('a,b\nx,1\n"y,z",2\n')
    assert rows_of(str(tmp_path / "r.csv")) == [{"a": "x", "b": "1"}, {"a": "y,z", "b": "2"}]
    (tmp_path / "r.yaml").write_text("- {a: x, b: 1}\n- {a: y, b: 2}\n")
    assert rows_of(str(tmp_path / "r.yaml"))[1] == {"a": "y", "b": "2"}
    for text in ("a,b\nx\n", "a,b\nx,1,2\n", "a,b\n"):
        (tmp_path / "wrong.csv").write_text(text)
        with pytest.raises(InvalidParameter):
            rows_of(str(tmp_path / "wrong.csv"))
    (tmp_path / "wrong.yaml").write_text("[")
    with pytest.raises(UsageError):
        rows_of(str(tmp_path / "wrong.yaml"))


def test_the_table_holds_what_people_write_without_breaking() -> None:
    lines = [
        Line({"app": "<b>|shop"}, "held", 0.1, 1.5, 2.25, "run-1", "a|b"),
        Line({"app": "bank", "more": "x,y"}, "error", reason="no <way>\nout"),
    ]
    page = table.html("A & B", lines)
    assert "<b>" not in page
    assert "&lt;b&gt;|shop" in page
    rows = [line for line in table.markdown("t", lines).splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {9}
    read = list(csv.DictReader(table.csv(lines).splitlines()[:2]))
    assert read[0]["discovered_after"] == "1.500"
    assert "2 runs: 1 held, 1 error." in page
