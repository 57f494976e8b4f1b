"""A run on real pods, from an operator and an agent that are installed as people install them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_pods import kubectl
from tests.kube.deploy.conftest import SRC, Installed, archive, installed, space, until

__all__ = ["archive", "space"]
pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow, pytest.mark.timeout(400),
]  # fmt: skip
VERSION = "faultline.dev/v1alpha1"
BUSYBOX = "localhost/busybox:1"


@pytest.fixture(scope="module")
def here(space: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed(space, tmp_path_factory.mktemp("node")) as made:
        yield made


def experiment(url: str) -> dict[str, Any]:
    count = {"restartPolicy": "Never", "containers": [{
        "name": "count", "image": BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo '{\"orders\": 7}'"],
    }]}  # fmt: skip
    return {
        "title": "The web answers while it is slow",
        "hypothesis": {"text": "within two seconds", "probes": ["page"]},
        "probes": [
            {"name": "page", "type": "http", "url": url, "expect": ",2s", "interval": "300ms",
             "code": "100-599"},
            {"name": "ready", "type": "kubernetes", "selector": "shop=web", "share": True,
             "expect": "100%", "interval": "500ms"},
        ],
        "guards": ["ready"], "steadyState": ["ready"],
        "traffic": [{"name": "visitors", "type": "http", "url": url, "rate": 20, "warmup": "0s",
                     "code": "100-599",
                     "job": {"replicas": 2, "pullPolicy": "Never"}}],
        "nodes": [
            {"name": "count", "type": "task",
             "job": {"manifest": {"metadata": {"generateName": "count-"},
                                  "spec": {"backoffLimit": 0, "template": {"spec": count}}}}},
            {"name": "slow", "type": "fault", "fault": "network.delay",
             "params": {"latency": "150ms"}, "duration": "5s",
             "selector": {"pods": {"labels": {"shop": "web"}}}},
        ],
        "baseline": "3s", "cooldown": "1s",
    }  # fmt: skip


def test_an_experiment_on_pods_has_a_verdict_and_a_report(here: Installed, tmp_path: Path) -> None:
    ip = kubectl("get", "pod", "-n", here.space, "web", "-o", "jsonpath={.status.podIP}")
    made = {"apiVersion": VERSION, "kind": "Experiment", "metadata": {"name": "slow-web"},
            "spec": experiment(f"http://{ip}:8080/")}  # fmt: skip
    run = {"apiVersion": VERSION, "kind": "Run", "metadata": {"name": "first"},
           "spec": {"experiment": "slow-web"}}  # fmt: skip
    for each in (made, run):
        kubectl("apply", "-n", here.space, "-f", "-", given=each)

    def ended() -> dict[str, Any]:
        told = json.loads(kubectl("get", "run", "first", "-n", here.space, "-o", "json"))
        status = told.get("status") or {}
        return status if status.get("phase") == "ended" else {}

    try:
        told = until(ended, patience=150)
    except pytest.fail.Exception:
        found = kubectl("get", "runs,faults,jobs,pods", "-n", here.space, "-o", "yaml")
        pytest.fail(f"{found[-9000:]}\n{here.said()}", pytrace=False)
    assert told["verdict"] == "held", (told["reason"], here.said())
    (slow,) = told["faults"]
    assert (slow["effect"], slow["end"]) == ("effective", "recovered")
    nodes = {each["name"]: each for each in told["nodes"]}
    assert nodes["count"]["output"]["text"].strip() == '{"orders": 7}'

    words = [sys.executable, "-m", "faultline.cli.main", "--store", f"kube://{here.space}"]
    env = {**os.environ, "PYTHONPATH": str(SRC), "FAULTLINE_STATE": str(tmp_path)}

    def said(*more: str) -> str:
        done = subprocess.run([*words, *more], env=env, capture_output=True, text=True,
                              timeout=60, check=True)  # fmt: skip
        return done.stdout

    said("report", "first", "-o", str(tmp_path / "it.html"))
    assert "The web answers while it is slow" in (tmp_path / "it.html").read_text()
    (load,) = json.loads(said("runs", "--format", "json"))[0]["status"]["traffic"]
    totals = load["totals"]
    assert totals["ok"] + totals["errors"] > 100
    assert totals["max"] > 0.15, "answers were slow while it acted"
    assert max(each["sent"] for each in load["seconds"]) >= 15, "both pods are added up"

    def left() -> list[str]:
        return kubectl("get", "jobs,faults", "-n", here.space, "-o", "name").split()

    until(lambda: not left(), "Jobs and Faults go with their end")
