"""Guards of every kind end a real run on real services; selectors hit real processes, as many as
they say.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import Scene

from faultline.kernel import procfs

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.slow]

URL = "http://127.0.0.1:8080/work"
DELAY = {"name": "delay", "fault": "network.delay", "params": {"interface": "lo"}}
CLIENTS = {"type": "http", "name": "clients", "url": URL, "rate": 20.0, "warmup": "0s"}
HELD = {"text": "it answers", "probes": ["answers"]}
ANSWERS = {"name": "answers", "type": "http", "url": URL, "timeout": "5s"}
ALERTS = """
import http.server, json, pathlib, sys
class Alerts(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        fires = pathlib.Path(sys.argv[0]).with_name("fires").exists()
        alert = {"labels": {"alertname": "Slow", "severity": "page"}, "annotations": {},
                 "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
                 "updatedAt": "2026-01-01T00:00:00Z", "fingerprint": "1", "receivers": [],
                 "status": {"state": "active", "silencedBy": [], "inhibitedBy": []}}
        body = json.dumps([alert] if fires else []).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 9093), Alerts)
print("listening", flush=True)
server.serve_forever()
"""


def test_an_error_budget_that_is_spent_ends_the_run(scene: Scene) -> None:
    # Each way takes 400 ms, and clients wait for 300: from then on every request fails.
    params = {"interface": "lo", "latency": "400ms"}
    budget = {
        "name": "slo", "traffic": "clients", "objective": "99%", "window": "200s", "spend": "50%"
    }  # fmt: skip
    file = scene.experiment(
        probes=[ANSWERS],
        hypothesis=HELD,
        traffic=[{**CLIENTS, "timeout": "300ms"}],
        faults=[{**DELAY, "params": params, "duration": "60s"}],
        guards=[],
        errorBudgets=[budget],
    )
    program = scene.command("run", file)
    status = program.end()
    print(program.text)
    run = scene.run
    assert status == 8
    assert run.status.aborted_by == "guard"
    assert "error budget slo: " in run.status.aborted
    spent, fault = run.status.budgets[0], run.status.faults[0]
    # 2 s of complete failure are all of it, half of that may be: 20 requests of 20 per second.
    assert spent.bad_events >= 20
    assert spent.spent > 0.5
    assert fault.recovery_started is not None
    assert spent.exceeded_at is not None
    assert fault.recovery_started - spent.exceeded_at < 2.0
    assert fault.started is not None
    assert 1.0 < spent.exceeded_at - fault.started < 10.0
    assert (fault.end, fault.residue) == ("recovered", [])
    assert "Budget slo spent" in program.text
    assert scene.left() == []


def test_an_alert_that_fires_and_a_person_who_calls_it_off_end_a_run(scene: Scene) -> None:
    alerts = scene.script(ALERTS)
    alerts.until("listening")
    page = {
        "name": "nobody-is-paged", "type": "alertmanager", "url": "http://127.0.0.1:9093",
        "matchers": ['severity="page"'], "state": "resolved", "interval": "200ms",
    }  # fmt: skip
    calm = {
        "name": "no-incident", "type": "webhook", "signal": "incident", "expect": "0",
        "interval": "200ms",
    }  # fmt: skip
    harmless = {**DELAY, "params": {"interface": "lo", "latency": "10ms"}, "duration": "60s"}
    file = scene.experiment(
        probes=[ANSWERS, page, calm],
        hypothesis=HELD,
        traffic=[],
        faults=[harmless],
        guards=["nobody-is-paged", "no-incident"],
    )
    fires = scene.folder / "fires"
    for name in ("nobody-is-paged", "no-incident"):
        program = scene.command("run", file, "--no-report")
        program.until("effective")
        if name == "no-incident":
            assert scene.command("signal", "latest", "incident").end() == 0
        else:
            fires.touch()
        assert program.end() == 8, program.text
        assert scene.run.status.aborted.startswith(f"guard {name} failed"), program.text
        assert scene.fault.end == "recovered"
        fires.unlink(missing_ok=True)
    alerts.kill()
    assert scene.left() == []


# ---------------------------------------------------------------------- selectors


@pytest.fixture
def sleepers(scene: Scene) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Four processes that sleep, each in a session of its own."""
    mark = f"sleeper-of-{scene.folder.name}"
    command = [sys.executable, "-c", "import time; time.sleep(300)", mark]
    found = [subprocess.Popen(command, start_new_session=True) for _ in range(4)]
    yield found
    for each in found:
        each.send_signal(signal.SIGCONT)
        each.kill()
        each.wait()


def stopped(found: list[subprocess.Popen[bytes]]) -> set[int]:
    return {each.pid for each in found if procfs.process(each.pid).state == "T"}


def test_a_selector_hits_as_many_as_it_says_and_each_is_proven(
    scene: Scene, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    selector = {"processes": {"pattern": f"sleeper-of-{scene.folder.name}"},
                "mode": "fixed-percent", "percent": "50%"}  # fmt: skip
    pause = {"name": "pause", "fault": "process.stop", "duration": "3s", "selector": selector}
    file = scene.experiment(
        probes=[ANSWERS], hypothesis=HELD, traffic=[], faults=[pause], guards=[]
    )
    plan = scene.command("run", file, "--plan", "--seed", "7", "--format", "json")
    assert plan.end() == 0, plan.text
    planned = {each["target"]["pid"] for each in json.loads(plan.text)["faults"]}
    assert stopped(sleepers) == set(), "a plan touches nothing"

    program = scene.command("run", file, "--seed", "7")
    program.until("effective")
    program.until("effective")
    assert stopped(sleepers) == planned
    assert program.end() == 0, program.text
    run = scene.run
    assert [fault.name for fault in run.status.faults] == ["pause.t1", "pause.t2"]
    for fault in run.status.faults:
        assert (fault.effect, fault.end, fault.residue) == ("effective", "recovered", [])
    rest = {each.target.pid for each in run.status.choices[0].rest}
    assert rest == {each.pid for each in sleepers} - planned
    assert stopped(sleepers) == set()
    curves = {target.name for target in run.status.targets}
    assert {f"pid {pid}" for pid in planned | rest} <= curves
    assert f"2 of 4 processes: process {min(planned)}" in program.text or len(planned) == 2
    assert scene.left() == []


def test_a_stored_experiment_is_run_by_name_with_parameters(scene: Scene, tmp_path: Path) -> None:
    document = json.loads(json.dumps({
        "apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment",
        "metadata": {"name": "note"},
        "spec": {
            "title": "A file is added for ${length}",
            "parameters": {"length": {"type": "duration", "default": "1m"},
                           "path": {"type": "string", "default": str(tmp_path / "default")}},
            "hypothesis": {"text": "true is true", "probes": ["calm"]},
            "probes": [{"name": "calm", "type": "command", "command": ["true"]}],
            "faults": [{"name": "file", "fault": "file.add", "params": {"path": "${path}"},
                        "duration": "${length}"}],
            "baseline": "0s", "cooldown": "0s",
        },
    }))  # fmt: skip
    file = scene.folder / "note.json"
    file.write_text(json.dumps(document))
    assert scene.command("schedule", "apply", str(file)).end() == 0
    wrong = scene.command("run", "note", "-p", "length=soon")
    assert wrong.end() == 2
    assert "parameters.length" in wrong.text
    there = tmp_path / "there"
    began = time.monotonic()
    program = scene.command("run", "note", "-p", "length=1s", "-p", f"path={there}")
    assert program.end() == 0, program.text
    assert time.monotonic() - began < 50, "a second, not the default minute"
    run = scene.run
    assert (run.spec.experiment, run.spec.resolved.title) == ("note", "A file is added for 1s")
    assert not os.path.lexists(there)
    assert "did you mean note" in _text(scene.command("run", "not"))


def _text(program: object) -> str:
    program.end()  # type: ignore[attr-defined]
    return str(program.text)  # type: ignore[attr-defined]
