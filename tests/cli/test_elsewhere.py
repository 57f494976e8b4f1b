"""Commands that only look at documents, or ask a cluster, need nothing of Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "faultline.cli.clusterrun", "faultline.cli.clusterplan", "faultline.cli.history",
    "faultline.cli.reporting", "faultline.cli.kube", "faultline.operator.planning",
    "faultline.operator.looking", "faultline.operator.running.bounds", "faultline.stores.kube",
    "faultline.engine.runs", "faultline.report.render",
)  # fmt: skip


def elsewhere(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, ROOT / "tests" / "cli" / "elsewhere.py", *words]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT / "src"),
           "FAULTLINE_STATE": str(folder / "state")}  # fmt: skip
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=100, check=False)


def test_documents_are_checked(tmp_path: Path) -> None:
    done = elsewhere(
        "faultline.cli.main", "validate", str(ROOT / "examples" / "slow-network.yaml"),
        folder=tmp_path,
    )  # fmt: skip
    assert (done.returncode, "ok" in done.stdout) == (0, True), done.stdout + done.stderr


def test_what_asks_a_cluster_is_loaded(tmp_path: Path) -> None:
    program = tmp_path / "loads.py"
    program.write_text("\n".join(f"import {each}" for each in MODULES) + "\nprint('loaded')\n")
    (tmp_path / "state").mkdir()
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1]); import elsewhere;"
        "elsewhere.take_away(); runpy.run_path(sys.argv[2])"
    )
    line = [sys.executable, "-c", code, str(ROOT / "tests" / "cli"), str(program)]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "loaded\n", done.stderr[-3000:]


def test_the_operator_is_one_of_a_cluster(tmp_path: Path) -> None:
    done = elsewhere(
        "faultline.cli.main", "run", "--operator", str(ROOT / "examples" / "slow-network.yaml"),
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--operator needs a cluster" in done.stderr
