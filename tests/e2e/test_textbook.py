"""The textbook drill on a real service with a real Prometheus: a processor is full, half of the
successful requests are gone, an alarm fires, the service gets well. Both hits and both misses, told
apart.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alarm_chain import DRILLS, _free_port

from faultline.api.run import Run, Verdict
from faultline.engine import runs as engine
from faultline.engine.runs import Runs

pytestmark = [
    pytest.mark.needs_prometheus, pytest.mark.slow, pytest.mark.quiet, pytest.mark.timeout(240),
]  # fmt: skip

CONFIGURATION = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}
rule_files: [{rules}]
scrape_configs:
- job_name: shop
  static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""
RULES = """
groups:
- name: shop
  rules:
  - alert: ServiceSlow
    expr: rate(shop_slow_total[2s]) > 3
    for: 500ms
"""


@contextmanager
def shop(port: int, tired: float = 0.0) -> Generator[None]:
    program = [sys.executable, str(Path(__file__).with_name("shop.py")), str(port), "0", str(tired)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The port that the shop may use, and a Prometheus that watches it."""
    folder, port, own = tmp_path_factory.mktemp("textbook"), _free_port(), _free_port()
    rules, configuration = folder / "rules.yml", folder / "prometheus.yml"
    rules.write_text(RULES)
    configuration.write_text(CONFIGURATION.format(rules=rules, port=port))
    command = [
        shutil.which("prometheus") or "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
    ]
    with (
        (folder / "out").open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{own}/-/ready")
            yield port, f"http://127.0.0.1:{own}"
        finally:
            process.terminate()


def _wait(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def drill(places: tuple[int, str], folder: Path, tired: float = 0.0, **values: object) -> Run:
    port, prometheus = places
    given = {
        "url": f"http://127.0.0.1:{port}/", "prometheus": prometheus, "before": "6s",
        "duration": "16s", "window": "2s", "found": "15s", "mended": "36s", "rivals": 15, **values,
    }  # fmt: skip
    with shop(port, tired), Runs(folder) as kept:
        experiment = engine.load(DRILLS / "cpu-full.yaml", given)
        return kept.start(experiment, given)


def test_both_hits(places: tuple[int, str], tmp_path: Path) -> None:
    run = drill(places, tmp_path)
    points = run.status.points
    assert run.status.verdict == Verdict.HELD, run.status.reason
    fault = run.status.faults[0]
    assert fault.effective_at is not None
    assert points.impact is not None
    assert points.discovered is not None
    assert points.recovered is not None
    assert points.impact == points.effective, "the service counts, not the kernel"
    assert points.impact <= points.discovered <= points.recovered
    assert points.score == 100.0
    rates = next(each for each in run.status.probes if each.name == "half-gone")
    least = min(one.value for one in rates.samples if one.value is not None)
    assert rates.initial is not None
    assert least <= rates.initial / 2, "the successful requests halve"


def test_an_alarm_that_nobody_has_set_up_is_missed(places: tuple[int, str], tmp_path: Path) -> None:
    run = drill(places, tmp_path, alert="Nobody", duration="9s", found="7s", mended="30s")
    assert run.status.verdict == Verdict.BROKE
    assert "not discovered" in run.status.reason
    assert run.status.points.impact is not None
    assert run.status.points.discovered is None
    assert run.status.points.score == 0.0


def test_a_service_that_stays_ill_is_missed(places: tuple[int, str], tmp_path: Path) -> None:
    run = drill(places, tmp_path, tired=60.0, mended="13s")
    assert run.status.verdict == Verdict.BROKE
    assert "not well again" in run.status.reason
    assert run.status.points.discovered is not None
    assert run.status.points.score == 50.0


def test_without_impact_it_was_not_effective(places: tuple[int, str], tmp_path: Path) -> None:
    run = drill(places, tmp_path, lost="101%", duration="6s", found="5s")
    assert run.status.verdict == Verdict.NOT_EFFECTIVE
    assert "no impact" in run.status.reason
    assert run.status.faults[0].effect == "effective", "at the target it was"
    assert run.status.points.score is None
