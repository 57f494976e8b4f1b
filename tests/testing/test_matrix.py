"""The runs behind the published matrix: whatever a fault does, it is a row, with its reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from faultline.faults.file import FileAdd
from faultline.injection import trial
from faultline.places.model import CONTAINER, HOST, PROCESS
from faultline.testing import matrix

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns]


def broken(*_: object) -> Any:
    raise RuntimeError("nobody foresaw this")


def test_a_fault_that_raises_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("plan", "observe"):
        with monkeypatch.context() as patched:
            patched.setattr(FileAdd, verb, broken)
            row = matrix.measure("file.add", HOST, 0, 1)
        assert not row.why
        assert "RuntimeError: nobody foresaw this" in "; ".join(row.complaints)


def test_what_is_not_tried_says_why() -> None:
    assert matrix.measure("kernel.panic", HOST, 0, 1).why
    assert "acts on container" in matrix.measure("container.pause", PROCESS, 0, 1).why
    assert CONTAINER not in trial.ENCLOSURES
    assert matrix.measure("file.add", CONTAINER, 0, 1).why == "no container is made for a trial"


def test_a_run_of_some_faults_keeps_what_is_known_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(fault_id: str, kind: str, kills: int, seed: int) -> matrix.Row:
        assert (kills, seed) == (-1, 1)
        return matrix.Row(fault_id, kind, "keeper-owned", effect="effective", time=1.0)

    monkeypatch.setattr(matrix, "measure", quick)
    file = tmp_path / "here.json"

    def run(*words: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["matrix", "-o", str(file), *words])
        assert matrix.main() == 0
        return json.loads(file.read_text())["rows"]

    assert len(run("file.add", "file.move")) == 2 * len(matrix.GROUNDS)
    rows = run("-j", "2", "cpu.burn", "--place", HOST)
    assert [(row["fault"], row["place"]) for row in rows[:2]] == [
        ("cpu.burn", HOST), ("file.add", HOST),
    ]  # fmt: skip
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "kernel": {"release": "another"}}))
    assert [row["fault"] for row in run("cpu.burn", "--place", HOST)] == ["cpu.burn"]
