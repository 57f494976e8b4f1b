"""`faultline run` against a cluster from a computer that is no Linux: nothing of Linux is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kube.operator.conftest import VERSION
from tests.kube.runs.conftest import Place, experiment, until

pytestmark = pytest.mark.needs_apiserver
ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = ROOT / "tests" / "cli" / "elsewhere.py"


def started(place: Place, folder: Path, *words: str) -> subprocess.Popen[str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "FAULTLINE_STATE": str(folder / "state"),
        "KUBECONFIG": str(place.bench.server.kubeconfig()), "PYTHONPATH": str(ROOT / "src"),
        "FAULTLINE_NAMESPACE": place.bench.own, "USER": "me", "LOGNAME": "me",
    }  # fmt: skip
    where = f"kube://{place.bench.namespace}"
    line = [sys.executable, ELSEWHERE, "faultline.cli.main", "--store", where, *words]
    return subprocess.Popen(
        line, env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def written(folder: Path, **fields: Any) -> Path:
    file = folder / "slow.yaml"
    made = {"apiVersion": VERSION, "kind": "Experiment", "metadata": {"name": "slow"},
            "spec": experiment(**fields)}  # fmt: skip
    file.write_text(yaml.safe_dump(made))
    return file


def test_it_is_checked_planned_followed_and_reported(place: Place, tmp_path: Path) -> None:
    place.bench.operate()
    file = written(tmp_path)
    for words, said in {
        ("validate", str(file)): "ok",
        ("run", "--plan", str(file)): "nothing was touched",
        ("run", str(file), "--report", "it.html"): "effective",
        ("runs",): "held",
    }.items():
        process = started(place, tmp_path, *words)
        out = process.communicate(timeout=110)[0]
        assert (process.returncode, said in out) == (0, True), out
    assert "the web is slow" in (tmp_path / "it.html").read_text()
    assert not place.bench.desired()


@pytest.mark.slow
def test_interrupted_it_undoes_everything_in_the_cluster(place: Place, tmp_path: Path) -> None:
    place.bench.operate()
    process = started(place, tmp_path, "run", str(written(tmp_path)), "-p", "length=2m")
    until(lambda: any(f.get("status", {}).get("effect") for f in place.faults()), patience=60)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=110)[0]
    assert (process.returncode, "interrupted: it is undone" in out) == (130, True), out
    assert not place.bench.desired()
