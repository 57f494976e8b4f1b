"""`faultline traffic`: what is typed, and what comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DATA = Path(__file__).parent / "data"
SOURCES = str(Path(__file__).resolve().parents[2] / "src")

TOOL = """
apiVersion: faultline.dev/v1alpha1
kind: Traffic
metadata: {name: tool}
spec:
  type: external
  name: tool
  command: [%s, -u, -c, "import time\\nfor n in range(%d): print('rate=10 p50=3'); time.sleep(.1)"]
  format: regex
  pattern: 'rate=(?P<rate>\\d+) p50=(?P<p50>\\d+)'
  interval: 100ms
"""


@pytest.fixture
def typed(tmp_path: Path):
    def run(*words: str, interrupt: bool = False) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [sys.executable, "-m", "faultline.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": SOURCES, "FAULTLINE_STATE": str(tmp_path / "state")},
        ) as process:
            if interrupt:
                assert process.stdout is not None
                process.stdout.readline()
                process.stdout.readline()
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return run


def test_import_prints_or_writes_and_tells_what_it_left_out(typed, tmp_path: Path) -> None:
    printed = typed("traffic", "import", str(DATA / "shop.har"))
    assert printed.returncode == 0
    assert yaml.safe_load(printed.stdout)["kind"] == "Traffic"
    assert "1 scenario with 4 requests" in printed.stderr
    assert "a WebSocket is not sent" in printed.stderr
    target = tmp_path / "made.yaml"
    words = ("--format", "har", "-o", str(target))
    written = typed("traffic", "import", str(DATA / "shop.har"), *words)
    assert (written.returncode, written.stdout) == (0, "")
    assert target.read_text() == printed.stdout
    assert typed("validate", str(target)).stdout == f"{target}: ok\n"


def test_a_wrong_format_is_an_error_of_the_caller(typed) -> None:
    wrong = typed("traffic", "import", str(DATA / "shop.har"), "--format", "postman")
    assert wrong.returncode == 2
    assert "no request that could be sent" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_run_tells_each_second_and_a_table(typed, tmp_path: Path) -> None:
    file = tmp_path / "tool.yaml"
    file.write_text(TOOL % (json.dumps(sys.executable), 25))
    done = typed("traffic", "run", str(file))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SECOND", "SENT", "OK", "ERRORS", "P50", "P90", "P95", "P99", "MAX"]
    assert lines[1].split()[0] == "0"
    assert "3ms" in lines[1]
    assert lines[-1].split()[0] == "all"


def test_run_as_data_for_a_time(typed, tmp_path: Path) -> None:
    file = tmp_path / "tool.yaml"
    file.write_text(TOOL % (json.dumps(sys.executable), 10_000))
    done = typed("traffic", "run", str(file), "--for", "1500ms", "--format", "json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["totals"]["ok"] == pytest.approx(15, abs=10)
    assert len(status["seconds"]) >= 1


def test_run_ends_by_ctrl_c_with_its_figures(typed, tmp_path: Path) -> None:
    file = tmp_path / "tool.yaml"
    file.write_text(TOOL % (json.dumps(sys.executable), 10_000))
    done = typed("traffic", "run", str(file), interrupt=True)
    assert done.returncode == 130, done.stderr
    assert "all" in done.stdout


def test_run_of_what_is_no_load_or_cannot_run(typed, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    head = "apiVersion: faultline.dev/v1alpha1\nmetadata: {name: x}\n"
    file.write_text(head + "kind: Probe\nspec: {type: tcp, name: x, host: h, port: 1}\n")
    assert "has kind 'Probe'" in typed("traffic", "run", str(file)).stderr
    spec = "{type: external, name: x, format: wrk, command: [no-such-tool]}"
    file.write_text(head + f"kind: Traffic\nspec: {spec}\n")
    failed = typed("traffic", "run", str(file))
    assert failed.returncode == 1
    assert "there is no program 'no-such-tool'" in failed.stderr
    assert typed("traffic", "run", str(tmp_path / "not")).returncode == 2
