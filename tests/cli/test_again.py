"""A run once more: replayed as it was, shrunk to the fault that is to blame, made from a search."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Cli

from faultline.units import Duration, Size

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
    first = typed("run", file, "--no-report", "--seed", "4711", "--format", "json")
    assert first.code == 5, first
    name = first.json()["metadata"]["name"]

    file.unlink()
    again = typed("replay", name, "--no-report", "--format", "json")
    assert again.code == 5, again
    replayed, original = again.json(), first.json()
    assert replayed["metadata"]["labels"]["replay-of"] == name
    assert replayed["spec"]["resolved"]["nodes"] == original["spec"]["resolved"]["nodes"]
    assert replayed["spec"]["seed"] == original["spec"]["seed"] == 4711
    timings = replayed["spec"]["repeat"]["timings"]
    assert Duration.parse(timings["no-b"]["begin"]) >= Duration.parse("200ms"), "as it was measured"
    begun = {"no-a", "no-b", "no-c", "after"}
    assert {name for name, each in timings.items() if each["begin"]} == begun
    for now, then in zip(_offsets(replayed), _offsets(original), strict=True):
        assert now > then - 0.1, "as it was measured; a busy machine makes it later, never sooner"
    assert "Seed" in typed.ok("report", replayed["metadata"]["name"])

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


def _offsets(run: dict[str, Any]) -> list[float]:
    status = run["status"]
    zero = next(each["started"] for each in status["phases"] if each["phase"] == "injection")
    return [each["started"] - zero for each in (*status["faults"], *status["nodes"])]


def test_a_replay_acts_on_the_same_process_or_on_none(typed: Cli, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    mark = f"replay-of-{os.getpid()}"
    gone = {"fault": "file.delete", "params": {"path": str(tmp_path / "a")}, "duration": "300ms"}
    spec: dict[str, Any] = {
        "title": "a file that a process may miss",
        "hypothesis": {"text": "there is a file system", "probes": ["lists"]},
        "probes": [{"name": "lists", "type": "command", "command": ["/bin/ls", "/"],
                    "mode": "during", "interval": "100ms"}],
        "faults": [{"name": "no-a", "target": {"process": mark}, **gone}],
        "baseline": "100ms",
        "cooldown": "100ms",
    }  # fmt: skip
    file = tmp_path / "experiment.yaml"
    head = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment"}
    file.write_text(yaml.safe_dump({**head, "metadata": {"name": "missed"}, "spec": spec}))

    def replayed(*more: str) -> Any:
        return typed("replay", name, "--no-report", *more, "--format", "json")

    with _sleeping(mark) as pid:
        first = typed("run", file, "--no-report", "--format", "json").json()
        name = first["metadata"]["name"]
        acted = first["status"]["faults"][0]["target"]
        assert (acted["kind"], acted["pid"]) == ("process", pid)
        assert acted["command"].endswith(mark)
    refused = replayed()
    assert (refused.code, refused.error["code"]) == (3, "target-gone")
    assert "--retarget" in refused.error["hint"]
    with _sleeping(mark) as pid:
        second = replayed().json()
        assert second["status"]["verdict"] == "held"
        assert second["status"]["faults"][0]["target"]["pid"] == pid, "started anew"
    with _sleeping(f"another-{mark}") as pid:
        assert replayed().code == 3
        third = replayed("--retarget").json()
        assert third["status"]["faults"][0]["target"]["pid"] == pid
    listed = typed("runs", "--format", "json").json()
    assert len(listed) == 3, "what is refused leaves no run"


@contextmanager
def _sleeping(mark: str) -> Iterator[int]:
    """A process that nothing else is like; its command line is there from the beginning."""
    words = [sys.executable, "-S", "-c", "print(flush=True); import time; time.sleep(60)", mark]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_search_is_carried_out_and_its_regression_holds(typed: Cli, tmp_path: Path) -> None:
    """How short may a file be? Its reader needs 5 bytes."""
    data = tmp_path / "data"
    data.write_text("0123456789")
    reader = "import sys; sys.exit(len(open(sys.argv[1]).read()) < 5)"
    searched = {"parameter": "bytes", "low": "1B", "high": "9B", "tolerance": "4B",
                "worse": "smaller", "probes": ["reads"], "hold": "200ms",
                "confidence": "60%"}  # fmt: skip
    spec: dict[str, Any] = {
        "title": "a file that is cut off",
        "hypothesis": {"text": "it is read", "probes": ["reads"]},
        "probes": [
            {"name": "reads", "type": "command", "mode": "during", "interval": "100ms",
             "command": [sys.executable, "-S", "-c", reader, str(data)]},
        ],
        "nodes": [
            {"name": "how-short", "type": "search", "search": searched,
             "fault": {"fault": "file.truncate", "params": {"path": str(data)}}},
        ],
        "baseline": "200ms",
        "cooldown": "200ms",
    }  # fmt: skip
    file, pinned = tmp_path / "experiment.yaml", tmp_path / "pinned.yaml"
    head = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment"}
    file.write_text(yaml.safe_dump({**head, "metadata": {"name": "cut"}, "spec": spec}))
    run = typed("run", file, "--no-report", "--format", "json").json()
    found = run["status"]["nodes"][0]["search"]["result"]
    print(found["text"])
    assert found["answer"] == "found"
    assert Size.parse(found["notBorne"]) < 5 <= Size.parse(found["borne"])
    typed.ok("regression", run["metadata"]["name"], "-o", pinned)
    assert data.read_text() == "0123456789"
    held = typed("run", pinned, "--no-report", "--format", "json")
    assert held.code == 0

    refused = typed("shrink", held.json()["metadata"]["name"], "--format", "json")
    assert (refused.code, refused.error["happened"]) == (2, "nothing")
    assert "did not fail: held" in refused.error["message"]
    assert typed("replay", "nobody", "--format", "json").code == 2
