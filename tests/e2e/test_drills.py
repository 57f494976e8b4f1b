"""The drills of the examples against a real chain: log, exporter, Prometheus, alert."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from alarm_chain import DRILLS, ROOT, Watching, watching

from faultline.api.run import Run
from faultline.engine.runs import Runs


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs the whole chain."""
    return pytest.mark.needs_prometheus(pytest.mark.slow(pytest.mark.quiet(test)))


APPLICATIONS = ("shop", "bank", "depot")
SHORT = {"duration": "6s", "within": "5s", "resolved": "20s", "every": "200ms"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    with watching(tmp_path_factory.mktemp("watching"), *APPLICATIONS) as found:
        yield found


def command(state: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`faultline` with a store of its own."""
    env = {**os.environ, "FAULTLINE_STATE": str(state), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "faultline.cli.main", *map(str, words)],
        env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    return done


def settings(chain: Watching, **values: str) -> list[str]:
    given = {"prometheus": chain.url, **SHORT, **values}
    return [word for name, value in given.items() for word in ("--set", f"{name}={value}")]


def own(text: str) -> str:
    """The lines of a log without those of drills."""
    return "".join(line for line in text.splitlines(keepends=True) if " faultline=" not in line)


def kept(state: Path) -> list[Run]:
    with Runs(state) as runs:
        return runs.list()


def check_times(run: Run) -> None:
    """Effect, discovery, recovery and the end of the alarm, in this order."""
    status = run.status
    fault = status.faults[0]
    times = [fault.injected_at, fault.effective_at, status.discovered_at, fault.recovered_at,
             status.resolved_at]  # fmt: skip
    assert all(time is not None for time in times), times
    assert times == sorted(time for time in times if time is not None)
    events = [point.event for point in status.timeline]
    told = [events.index(each) for each in ("effective", "discovered", "recovered", "resolved")]
    assert told == sorted(told)


@real
def test_an_error_surge_is_noticed_for_every_application_of_a_list(
    chain: Watching, tmp_path: Path
) -> None:
    rows = tmp_path / "applications.csv"
    lines = [f"{name},{chain.log(name)}" for name in APPLICATIONS[:2]]
    rows.write_text("\n".join(["application,log", *lines]) + "\n")
    before = [chain.log(name).read_text() for name in APPLICATIONS]
    page = tmp_path / "all.html"
    done = command(
        tmp_path / "state", "run", DRILLS / "error-surge.yaml", *settings(chain),
        "--for-each", rows, "--at-once", "2", "--summary", page,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "2 runs: 2 held." in done.stdout
    made = kept(tmp_path / "state")
    assert {run.spec.parameters["application"] for run in made} == set(APPLICATIONS[:2])
    for run in made:
        assert run.status.verdict == "held", run.status.reason
        check_times(run)
        report = tmp_path / "state" / "reports" / f"{run.metadata.name}.html"
        assert "Alarm ended" in report.read_text()
        assert run.metadata.name in page.read_text()
    after = [chain.log(name).read_text() for name in APPLICATIONS]
    assert after != before, "the exporter has the logs open, so that the lines stay"
    assert [own(text) for text in after] == before
    assert not chain.ask('ALERTS{application="depot"}'), "nothing was written to its log"


@real
def test_slow_calls_in_a_log_are_noticed(chain: Watching, tmp_path: Path) -> None:
    log = chain.log("depot")
    before = log.read_text()
    done = command(
        tmp_path / "state", "run", DRILLS / "slow-interface-log.yaml", "--format", "json",
        *settings(chain, application="depot", log=str(log), keep="none"),
    )  # fmt: skip
    assert done.returncode == 0, done
    run = kept(tmp_path / "state")[0]
    assert run.status.verdict == "held", run.status.reason
    check_times(run)
    assert log.read_text() == before
    slow = chain.ask('log_latency_seconds_bucket{application="depot",le="1.0"}')
    total = chain.ask('log_latency_seconds_count{application="depot"}')
    share = 1 - float(slow[0]["value"][1]) / float(total[0]["value"][1])
    assert share == pytest.approx(0.5, abs=0.05), "half of the calls took longer than a second"


@real
def test_an_alarm_that_nobody_has_set_up_breaks_the_drill(chain: Watching, tmp_path: Path) -> None:
    quick = {"alert": "Nobody", "duration": "3s", "within": "2s", "resolved": "2s"}
    sheet = tmp_path / "all.csv"
    done = command(
        tmp_path / "state", "run", DRILLS / "error-surge.yaml",
        *settings(chain, log=str(chain.log("shop")), **quick),
        "--for-each", "application=shop", "--summary", sheet, "--format", "json", "--no-report",
    )  # fmt: skip
    assert done.returncode == 5, done
    (row,) = json.loads(done.stdout)
    assert row["values"] == {"application": "shop"}
    assert row["verdict"] == "broke"
    assert row["discovered_after"] is None
    assert "not discovered" in row["reason"]
    (line,) = csv.DictReader(sheet.read_text().splitlines())
    assert line["application"] == "shop"
    assert line["verdict"] == "broke"
    assert float(line["effect_after"]) > 0


def test_what_the_drills_name_is_there() -> None:
    alerts: list[dict[str, Any]] = yaml.safe_load((DRILLS / "alerts.yml").read_text())["groups"]
    named = {rule["alert"] for group in alerts for rule in group["rules"]}
    for drill in ("error-surge", "slow-interface-log"):
        asked = yaml.safe_load((DRILLS / f"{drill}.yaml").read_text())["spec"]["parameters"]
        assert asked["alert"]["default"] in named
