"""The alerts, tried by Prometheus' own program on made-up series; the objects around them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from faultline.kube import monitoring

OF = 'namespace="shop", name="slow", fault="network.delay"'
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: install prometheus")

# What is told over a quarter of an hour, one value a minute, and which alert that is.
CASES: dict[str, tuple[str, str]] = {
    "FaultlineFaultBeyondDeadline":
        (f"faultline_fault_deadline_timestamp_seconds{{{OF}}}", "300+0x15"),
    "FaultlineUndoFailed":
        (f'faultline_fault_targets{{{OF}, state="needs_person"}}', "0x5 1x10"),
    "FaultlineUndoFailures": ("faultline_undo_failures_total", "0x5 1x10"),
    "FaultlineFaultWithoutEffect":
        (f'faultline_fault_targets{{{OF}, state="ineffective"}}', "2x15"),
    "FaultlineAgentLostWithFaults": ("faultline_hosts_lost_with_faults", "0x5 2x10"),
    "FaultlineOperatorWithoutLeader": ('faultline_leader{pod="a"}', "1x5 0x10"),
    "FaultlineAgentsNotReady": ('faultline_agents{state="lost"}', "1x15"),
    "FaultlineUnknownMarks": ("faultline_unknown_marks", "3x15"),
    "FaultlineHalted": ("faultline_halts", "1x90"),
    "FaultlineCannotWrite": ("faultline_reconcile_failures_total", "0+60x15"),
}  # fmt: skip
BESIDE = [
    {"series": f'faultline_fault_phase{{{OF}, phase="active"}}', "values": "1x90"},
    {"series": 'faultline_leader{pod="b"}', "values": "0x90"},
]


def promtool(*words: str, folder: Path) -> str:
    told = subprocess.run([str(PROMTOOL), *words], cwd=folder, capture_output=True, text=True,
                          check=False)  # fmt: skip
    return "" if told.returncode == 0 else told.stdout + told.stderr


def tried(name: str, series: str, values: str, *, fires: bool) -> dict[str, Any]:
    """One case as promtool takes it: whether the alert is there after its time."""
    at = "80m" if name == "FaultlineHalted" else "15m"
    expression = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}, *BESIDE],
        "promql_expr_test": [{
            "expr": expression, "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
        }],
    }  # fmt: skip


@needs_promtool
def test_each_alert_fires_for_what_it_is_about_and_for_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(monitoring.rules()))
    assert promtool("check", "rules", "rules.yml", folder=tmp_path) == ""
    names = {each["alert"] for each in monitoring.rules()["groups"][0]["rules"]}
    assert names == CASES.keys()
    tests = [tried(name, *case, fires=True) for name, case in CASES.items()]
    for name, (series, _) in CASES.items():
        good = "1x90" if "leader" in series else "0x90"
        good = "100000+0x90" if "deadline" in series else good
        tests.append(tried(name, series, good, fires=False))
    told = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(told))
    assert promtool("test", "rules", "tests.yml", folder=tmp_path) == ""


@needs_promtool
def test_without_any_operator_somebody_is_told(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(monitoring.rules()))
    made = tried("FaultlineOperatorWithoutLeader", "up", "0x15", fires=True)
    made["input_series"] = made["input_series"][:1]
    told = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [made]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(told))
    assert promtool("test", "rules", "tests.yml", folder=tmp_path) == ""


def test_objects_belong_together() -> None:
    service, monitor, rule, dashboard = monitoring.objects("chaos")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert {each["metadata"]["namespace"] for each in (service, monitor, rule, dashboard)} == {
        "chaos"
    }
    board = json.loads(dashboard["data"]["faultline.json"])
    places = [tuple(each["gridPos"].values()) for each in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(each["targets"] for each in board["panels"])


def test_every_alert_stands_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[3] / monitoring.DOCS).read_text()
    for each in monitoring.rules()["groups"][0]["rules"]:
        assert f"### {each['alert']}\n" in page


def test_the_command_prints_them() -> None:
    words = [sys.executable, "-m", "faultline.cli.main", "kube", "monitoring"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src")}

    def told(*more: str) -> Any:
        made = subprocess.run([*words, *more], env=env, capture_output=True, check=True)
        return yaml.safe_load(made.stdout)

    assert told("--namespace", "chaos")["items"] == monitoring.objects("chaos")
    assert told("--only", "rules") == monitoring.rules()
    assert told("--only", "dashboard", "--format", "json") == monitoring.dashboard()
