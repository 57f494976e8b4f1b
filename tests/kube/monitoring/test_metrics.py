"""`/metrics` of a real operator, asked by a real Prometheus: names, rules, the dashboard."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kube.operator.conftest import Bench, bench, kinds, until

from faultline.kube import monitoring
from faultline.operator.app import Operator
from faultline.operator.exposition import serve

__all__ = ["bench", "kinds"]  # fixtures
pytestmark = pytest.mark.needs_apiserver
NAMES = re.compile(r"\bfaultline_[a-z0-9_]+")
RARE = {  # units that this fault has not, and what nothing has been refused or waited for yet
    f"faultline_fault_{what}_{unit}"
    for what in ("asked", "measured")
    for unit in ("ratio", "bytes", "bytes_per_second", "cores", "number")
}


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        return page.read().decode()


def value(page: str, name: str, /, **labels: str) -> float | None:
    """The sum of the series with these labels; None if there is none."""
    found: float | None = None
    for line in page.splitlines():
        series, _, number = line.rpartition(" ")
        if re.split(r"[{ ]", line)[0] == name and all(
            f'{key}="{each}"' in series for key, each in labels.items()
        ):
            found = (found or 0.0) + float(number)
    return found


@pytest.fixture
def serving(bench: Bench) -> Iterator[tuple[Operator, str]]:
    """An operator that answers, and where."""
    made, address = bench.operate(), f"127.0.0.1:{free_port()}"
    end = serve(made, address)
    yield made, address
    end()


def checked(page: str) -> str:
    """What promtool has against it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return ""
    told = subprocess.run([promtool, "check", "metrics"], input=page, text=True,
                          capture_output=True, check=False)  # fmt: skip
    return told.stdout + told.stderr


def test_a_fault_is_seen_from_its_beginning_to_proven_absence(
    bench: Bench, serving: tuple[Operator, str]
) -> None:
    _, address = serving
    assert bench.agents is not None
    bench.agents.values = {"asked": 0.1, "measured": 0.101}
    bench.apply("delay", duration="4s")
    until(lambda: bench.status("delay").get("effect") == "effective")
    of = {"name": "delay", "namespace": bench.namespace, "fault": "network.delay"}

    def told(name: str, /, **labels: str) -> Callable[[], bool]:
        return lambda: value(scrape(address), name, **of, **labels) is not None

    until(told("faultline_fault_measured_seconds"))
    page = scrape(address)
    assert value(page, "faultline_leader") == 1
    assert value(page, "faultline_fault_phase", **of) == 1
    assert value(page, "faultline_fault_targets", state="effective", **of) == 6
    assert value(page, "faultline_fault_asked_seconds", **of) == pytest.approx(0.1)
    for stat in ("min", "median", "max"):
        found = value(page, "faultline_fault_measured_seconds", stat=stat, **of)
        assert found == pytest.approx(0.101)
    assert (value(page, "faultline_fault_deadline_timestamp_seconds", **of) or 0) > time.time()
    name = "faultline_target_time_to_effect_seconds_count"
    assert value(page, name, fault="network.delay") == 6
    assert (value(page, "faultline_agents", state="ready") or 0) >= 3
    assert (value(page, "faultline_api_requests_total", verb="patch", code="200") or 0) >= 3
    assert (value(page, "faultline_reconcile_duration_seconds_count") or 0) > 0
    assert checked(page) == ""

    bench.phase("delay", "ended")
    name = "faultline_target_time_to_absence_seconds_count"
    until(lambda: value(scrape(address), name, fault="network.delay") == 6)
    page = scrape(address)
    assert value(page, "faultline_fault_time_to_absence_seconds", **of) is not None
    assert value(page, "faultline_targets_ended_total", end="recovered") == 6
    assert value(page, "faultline_undo_failures_total") == 0
    assert value(page, "faultline_fault_deadline_timestamp_seconds", **of) is None


def test_hosts_that_are_lost_and_halts_are_counted(
    bench: Bench, serving: tuple[Operator, str]
) -> None:
    _, address = serving
    assert bench.agents is not None
    bench.apply("delay")
    bench.phase("delay", "active")
    bench.agents.hosts[bench.node(1)].silent = True
    until(lambda: value(scrape(address), "faultline_hosts_lost_with_faults") == 1)
    assert (value(scrape(address), "faultline_agents", state="lost") or 0) >= 1


def test_one_that_waits_tells_of_itself_alone(bench: Bench, serving: tuple[Operator, str]) -> None:
    first, address = serving
    until(lambda: first.leader.leads)
    second, other = bench.operate(), f"127.0.0.1:{free_port()}"
    end = serve(second, other)
    try:
        bench.apply("delay")
        until(lambda: value(scrape(address), "faultline_fault_phase", name="delay") == 1)
        page = scrape(other)
        assert value(page, "faultline_leader") == 0
        assert value(page, "faultline_fault_phase") is None
        until(lambda: value(scrape(other), "faultline_api_requests_total", verb="list"))
    finally:
        end()


# ---------------------------------------------------------------------- a real Prometheus


@pytest.fixture
def prometheus(serving: tuple[Operator, str], tmp_path: Path) -> Iterator[str]:
    """One that scrapes the operator every second and has our rules."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(monitoring.rules()))
    scraped = [{
        "job_name": "operator", "honor_labels": True,
        "static_configs": [{"targets": [serving[1]]}],
    }]  # fmt: skip
    told = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.yml")], "scrape_configs": scraped,
    }  # fmt: skip
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(told))
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip
    yield f"http://{address}"
    process.terminate()
    process.wait(30)


def ask(url: str, path: str, **query: str) -> Any:
    try:
        with urllib.request.urlopen(
            f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=5
        ) as page:
            return json.load(page)["data"]
    except OSError:
        return None


def queries() -> list[str]:
    """All of the rules and of the dashboard, with what its variables stand for."""
    found = [each["expr"] for each in monitoring.rules()["groups"][0]["rules"]]
    for panel in monitoring.dashboard()["panels"]:
        found += [each["expr"] for each in panel["targets"]]
    return [each.replace("$namespace", ".*").replace("$name", ".*") for each in found]


@pytest.mark.needs_prometheus
def test_every_name_in_rules_and_dashboard_is_there(
    bench: Bench, serving: tuple[Operator, str], prometheus: str
) -> None:
    assert bench.agents is not None
    bench.agents.values = {"asked": 0.1, "measured": 0.101}
    bench.apply("delay", duration="3s")
    bench.phase("delay", "ended")
    bench.apply("again", duration="2m")
    until(lambda: bench.status("again").get("effect") == "effective")
    wanted = {name for each in queries() for name in NAMES.findall(each)}
    wanted |= {
        name
        for each in monitoring.dashboard()["templating"]["list"]
        for name in NAMES.findall(str(each["query"]))
    }

    def missing() -> set[str]:
        return wanted - RARE - set(ask(prometheus, "label/__name__/values") or ())

    until(lambda: not missing(), "names in Prometheus", 40.0)
    for each in queries():
        assert ask(prometheus, "query", query=each) is not None, each
    found = ask(prometheus, "query", query="faultline_fault_phase == 1")["result"]
    assert {each["metric"]["namespace"] for each in found} == {bench.namespace}
    alerts = ask(prometheus, "rules")["groups"][0]["rules"]
    assert {each["health"] for each in alerts} <= {"ok", "unknown"}
    assert not [each for each in alerts if each["state"] == "firing"]
