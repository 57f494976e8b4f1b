"""A run once more: replayed as it was, shrunk to the fault that is to blame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Cli

from faultline.units import Duration

pytestmark = pytest.mark.slow


def document(folder: Path) -> Path:
    """Three files are taken away; the service minds only the second."""
    for name in "abc":
        (folder / name).write_text(name)

    def gone(name: str) -> dict[str, Any]:
        return {"fault": "file.delete", "params": {"path": str(folder / name)}, "duration": "600ms"}

    spec: dict[str, Any] = {
        "title": "files that are missing",
        "hypothesis": {"text": "b is not missed", "probes": ["reads"]},
        "probes": [
            {"name": "reads", "type": "command", "command": ["/bin/cat", str(folder / "b")],
             "mode": "during", "interval": "200ms"},
        ],
        "faults": [{"name": "no-a", **gone("a")}, {"name": "no-b", "start": "200ms", **gone("b")}],
        "nodes": [
            {"name": "no-c", "type": "fault", **gone("c")},
            {"name": "after", "type": "wait", "duration": "100ms", "needs": ["no-c"]},
        ],
        "baseline": "200ms",
        "cooldown": "200ms",
    }  # fmt: skip
    file = folder / "experiment.yaml"
    head = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment"}
    file.write_text(yaml.safe_dump({**head, "metadata": {"name": "missing"}, "spec": spec}))
    return file


def test_a_failing_run_is_replayed_from_its_record_and_shrunk_to_one_fault(
    typed: Cli, tmp_path: Path
) -> None:
    file = document(tmp_path)
    first = typed("run", file, "--no-report", "--format", "json")
    assert first.code == 5, first
    name = first.json()["metadata"]["name"]

    file.unlink()
    again = typed("replay", name, "--no-report", "--measured", "--format", "json")
    assert again.code == 5, again
    replayed, original = again.json(), first.json()
    assert replayed["metadata"]["labels"]["replay-of"] == name
    assert replayed["spec"]["resolved"]["nodes"] == original["spec"]["resolved"]["nodes"]
    starts = [each["start"] for each in replayed["spec"]["resolved"]["faults"]]
    assert Duration.parse(starts[1]) >= Duration.parse("200ms"), "as it was measured"

    smallest = tmp_path / "smallest.yaml"
    shrunk = typed("shrink", name, "-o", smallest, "--format", "json")
    assert shrunk.code == 0, shrunk
    found = shrunk.json()
    assert (found["faults"], found["minimal"]) == (["no-b"], True)
    assert 3 <= len(found["trials"]) <= 8
    assert "smallest.yaml: ok" in typed.ok("validate", smallest)
    assert (tmp_path / "b").read_text() == "b"
    kept = yaml.safe_load(smallest.read_text())["spec"]
    assert [each["name"] for each in kept["faults"]] == ["no-b"]
    assert [each["type"] for each in kept["nodes"]] == ["wait", "wait"]

    told = typed.ok("shrink", name)
    assert told.count("missing-") == len(found["trials"]), "what is known is not tried again"
    assert "no-b: broke (none of them can be left out)" in told


def test_what_cannot_be_shrunk_or_replayed_is_refused(typed: Cli, tmp_path: Path) -> None:
    file = document(tmp_path)
    data = yaml.safe_load(file.read_text())
    del data["spec"]["nodes"], data["spec"]["faults"][1]
    file.write_text(yaml.safe_dump(data))
    name = typed("run", file, "--no-report", "--format", "json").json()["metadata"]["name"]
    refused = typed("shrink", name, "--format", "json")
    assert (refused.code, refused.error["happened"]) == (2, "nothing")
    assert "did not fail: held" in refused.error["message"]
    assert typed("replay", "nobody", "--format", "json").code == 2
