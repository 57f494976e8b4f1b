"""Whole experiments by the command line: a real server, real clients, a real fault, a verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from scene import Scene

from faultline.api.run import Run
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.slow]

Record = Callable[[str, object], None]
VOID = ("base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr")
SLOWER = {"fault": "network.delay", "params": {"interface": "lo", "latency": "100ms"}}


class Page(HTMLParser):
    """Checks that every element is closed where it has to be, and gathers what people read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words = ""
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "these are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "data") and value is not None
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += f" {data.strip()}"


def fault(**changes: object) -> dict[str, object]:
    return {"name": "delay", "duration": "3s", **SLOWER, **changes}


def answers(**changes: object) -> dict[str, object]:
    url = "http://127.0.0.1:8080/work"
    return {"name": "answers", "type": "http", "url": url, "timeout": "3s", **changes}


def p95(expect: str) -> dict[str, object]:
    which = {"type": "traffic", "traffic": "clients", "measure": "p95", "window": "1s"}
    return {"name": "fast-enough", "mode": "during", "expect": expect, **which}


def carried_out(scene: Scene, *arguments: str, **changes: object) -> tuple[int, Run]:
    """Run it to its end; the exit status and the run as it was kept."""
    began = time.monotonic()
    program = scene.command("run", scene.experiment(**changes), *arguments)
    status = program.end()
    print(f"{program.text}\nexit status {status} after {time.monotonic() - began:.2f} s")
    return status, scene.run


def test_the_demo_experiment_holds_with_proof_of_effect_and_of_recovery(
    scene: Scene, record_property: Record
) -> None:
    target = scene.folder / "report.html"
    quick = scene.round_trip()
    longer = fault(params={"interface": "lo", "latency": "100ms", "jitter": "10ms"}, duration="5s")
    began = time.time()
    program = scene.command("run", scene.experiment(faults=[longer]), "--report", str(target))
    program.until("effective")
    slow = scene.round_trip()
    status = program.end()
    print(program.text)
    assert status == 0
    assert slow > quick + 0.15, "connecting crosses the delayed device twice"
    assert scene.round_trip() < slow / 2

    run = scene.run
    assert run.status.verdict == "held"
    acted = run.status.faults[0]
    assert (acted.effect, acted.end, acted.residue) == ("effective", "recovered", [])
    assert acted.reading is not None
    assert acted.reading["values"]["measured"] == pytest.approx(0.1, rel=0.2)
    assert all(change.describe and change.state == "undone" for change in acted.changes)
    assert [probe.verdict for probe in run.status.probes] == ["held", "held", "held"]
    totals = run.status.traffic[0].totals
    assert totals is not None
    assert totals.ok > 50
    assert scene.left() == []

    moments = (acted.injected_at, acted.effective_at, acted.recovery_started, acted.recovered_at)
    assert all(moments)
    assert list(moments) == sorted(moments)
    for name, at in zip(("injected", "effect", "recovery", "recovered"), moments, strict=True):
        record_property(f"seconds to {name}", round(at - began, 2))
    print({name: round(at - acted.started, 3) for name, at in zip("iero", moments, strict=True)})

    page = Page(target.read_text())
    for words in ("95 of 100 answers come within one second", "network.delay", "recovered"):
        assert words in page.words, words
    assert not [load for load in page.loads if load.startswith(("http:", "https:", "//"))]

    as_json = scene.command("report", run.metadata.name, "--as", "json")
    assert as_json.end() == 0
    again = Run.model_validate_json(as_json.text)
    assert again.status.model_dump() == run.status.model_dump()
    assert json.loads(as_json.text)["status"]["verdict"] == "held"


def test_a_hypothesis_that_the_fault_refutes_is_broke(scene: Scene) -> None:
    status, run = carried_out(
        scene,
        faults=[fault()],
        probes=[p95(",50ms"), answers()],
        guards=[],
    )
    assert (status, run.status.verdict) == (5, "broke")
    acted = run.status.faults[0]
    assert (acted.effect, acted.end, acted.residue) == ("effective", "recovered", [])
    assert "fast-enough" in run.status.reason
    assert scene.left() == []


def test_a_fault_that_can_match_nothing_is_never_held(scene: Scene) -> None:
    everybody = {"source": ["0.0.0.0/0", "::/0"], "exclude": True}
    nobody = {"interface": "lo", "latency": "100ms", **everybody}
    status, run = carried_out(scene, faults=[fault(params=nobody)], timeouts={"effect": "1s"})
    assert status == 4, run.status.reason
    assert run.status.verdict == "not measured"
    acted = run.status.faults[0]
    assert (acted.effect, acted.end, acted.residue) == ("unmeasured", "recovered", [])
    assert acted.recovery_started is not None
    assert acted.injected_at is not None
    assert acted.recovery_started - acted.injected_at < 3, "it is undone as soon as that is clear"
    assert scene.left() == []


def test_a_fault_whose_effect_is_there_already_is_not_effective(scene: Scene) -> None:
    core = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as spinner:
        try:
            burn = {"name": "burn", "fault": "cpu.burn", "duration": "3s"}
            status, run = carried_out(
                scene,
                faults=[{**burn, "params": {"percent": "10%", "cores": str(core)}}],
                probes=[answers()],
                hypothesis={"text": "it answers", "probes": ["answers"]},
                traffic=[],
                guards=[],
                timeouts={"effect": "1s"},
            )
        finally:
            spinner.kill()
    assert (status, run.status.verdict) == (4, "not effective"), run.status.reason
    acted = run.status.faults[0]
    assert (acted.effect, acted.end, acted.residue) == ("ineffective", "recovered", [])
    assert scene.left() == []


def test_a_hypothesis_that_cannot_be_measured_is_not_measured(scene: Scene) -> None:
    blind = {"type": "prometheus", "url": "http://127.0.0.1:9", "query": "up", "expect": "1,"}
    status, run = carried_out(
        scene,
        faults=[fault()],
        probes=[{"name": "blind", "mode": "during", **blind}, answers()],
        hypothesis={"text": "it is up", "probes": ["blind"]},
        traffic=[],
        guards=[],
    )
    assert (status, run.status.verdict) == (4, "not measured")
    assert run.status.probes[0].verdict == "not measured"
    acted = run.status.faults[0]
    assert (acted.effect, acted.end, acted.residue) == ("effective", "recovered", [])
    assert scene.left() == []


def test_a_fault_that_is_not_possible_here_is_an_error_before_anything_is_touched(
    scene: Scene,
) -> None:
    nowhere = {"interface": "nowhere0", "latency": "100ms"}
    status, run = carried_out(scene, faults=[fault(params=nowhere)])
    assert run.status.verdict == "error"
    assert status == run.status.failures[0].exit_code == 2, run.status.failures
    assert run.status.faults[0].started is None
    assert scene.records == []
    assert scene.left() == []


def test_a_document_that_is_wrong_starts_no_run(scene: Scene) -> None:
    program = scene.command("run", scene.experiment(faults=[fault(duration="3")]))
    assert program.end() == 2
    assert "duration" in program.text
    listed = scene.command("runs")
    assert listed.end() == 0
    assert "no runs" in listed.text


def test_a_guard_aborts_within_its_interval_and_a_second_and_undoes_at_once(
    scene: Scene, record_property: Record
) -> None:
    interval = Duration.parse("500ms")
    guard = answers(name="guard", expect=",50ms", timeout="500ms", interval=str(interval))
    status, run = carried_out(
        scene,
        faults=[fault(duration="60s")],
        probes=[p95(",1s"), answers(), guard],
        guards=["guard"],
    )
    assert status == 8, run.status.reason
    assert run.status.aborted_by == "guard"
    assert run.status.verdict not in ("held", "broke"), run.status.verdict
    acted = run.status.faults[0]
    assert (acted.end, acted.residue) == ("recovered", [])
    at = {point.event: point.boot_ns for point in reversed(run.status.timeline)}
    late = (at["aborted"] - at["injected"]) / 1e9
    undone = (at["recovered"] - at["aborted"]) / 1e9
    record_property("seconds from injected to aborted", round(late, 2))
    record_property("seconds from aborted to recovered", round(undone, 2))
    print(f"aborted {late:.2f} s after injected, undone {undone:.2f} s later")
    assert 0 <= late <= interval.seconds + 1 + 2, "with 2 s for a machine that is busy"
    assert 0 <= undone <= 3
    assert scene.left() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_undoes_at_once_and_says_so(
    scene: Scene, signum: signal.Signals, record_property: Record
) -> None:
    program = scene.command("run", scene.experiment(faults=[fault(duration="60s")]))
    program.until("effective")
    slow = scene.round_trip()
    program.process.send_signal(signum)
    sent = time.monotonic()
    program.until("recovered")
    undone = time.monotonic() - sent
    assert scene.round_trip() < slow / 2
    assert program.end() == 130, program.text
    record_property("seconds from the signal to recovered", round(undone, 2))
    print(f"undone {undone:.2f} s after the signal, ended {time.monotonic() - sent:.2f} s after it")
    assert undone < 5
    run = scene.run
    assert run.status.aborted_by == "user"
    assert run.status.verdict != "held"
    assert (scene.fault.end, scene.fault.residue) == ("recovered", [])
    assert (scene.folder / "state" / "reports" / f"{run.metadata.name}.html").exists()
    assert scene.left() == []
    assert scene.generators() == []
