"""The engine as a person has it: a process that listens, is killed, and is started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Cli
from tests.cli.test_experiments import document
from tests.server.conftest import Client, until

from faultline.changes import keepers
from faultline.changes.store import open_store
from faultline.injection.recovery import Recovery
from faultline.kernel import link, netns
from faultline.kernel.netlink import Netlink

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.slow]

Started = Callable[[], Any]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Commands in a network namespace of the test."""
    tmp_path.chmod(0o700)
    state = tmp_path / "state"
    namespace = netns.create()
    try:
        with netns.entered(namespace), Netlink.open() as nl:
            link.set_up(nl, "lo")
        yield Cli(state, namespace)
        with netns.entered(namespace), Recovery(state) as recovery:
            recovery.recover_all()
            keepers.retire(open_store(state))
    finally:
        os.close(namespace)


@contextmanager
def engine(cli: Cli, file: Path) -> Generator[tuple[subprocess.Popen[str], Client]]:
    """An engine that listens at a file; it is ended afterwards."""
    process = cli.start("engine", "--listen", f"unix:{file}")
    try:
        until(lambda: _reached(file, process))
        yield process, Client(f"unix:{file}")
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        told = process.communicate(timeout=30)
    assert "Traceback" not in told[0] + told[1], told


def _reached(file: Path, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, process.communicate()
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(str(file)) == 0


def test_a_network_fault_is_injected_measured_and_recovered_over_http(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "engine.sock"
    order = {
        "fault": "network.delay",
        "params": {"interface": "lo", "latency": "30ms"},
        "duration": "1m",
        "uid": "delayed",
        "observe": False,
    }
    with engine(cli, file) as (process, call):
        assert call.post("/plan", order)["steps"]
        assert call.post("/faults", order)["state"] == "active"
        reading = call.post("/faults/delayed/observe")["reading"]
        assert reading["effect"] == "effective", reading
        assert reading["values"]["measured"] >= 0.03
        done = call.delete("/faults/delayed")
        assert (done["end"], done["residue"]) == ("recovered", [])
        follower = call.events("/events?since=0")
        next(follower)
        second = cli("engine", "--listen", f"unix:{file}")
        assert (second.code, "already" in second.err) == (3, True)
        process.terminate()
        assert process.wait(20) == 0
        list(follower)  # ends as streams do
        assert not file.exists()


def test_a_run_is_posted_the_engine_killed_and_the_run_ends_once(cli: Cli, tmp_path: Path) -> None:
    file, sock = document(tmp_path, duration="2s"), tmp_path / "engine.sock"
    with engine(cli, sock) as (process, call):
        made = call("POST", "/runs", file.read_text(), content_type="application/yaml")
        assert made.status == 201, made.body
        name = made.json()["metadata"]["name"]
        last = ""
        for each in call.events(f"/events?run={name}&since=0"):
            last = each["id"]
            points = call.get(f"/runs/{name}")["status"].get("timeline", [])
            if any(point["event"] == "effective" for point in points):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert sock.exists()
    with engine(cli, sock) as (_, call):
        for each in call.events(f"/events?run={name}", last=last):
            if each["data"]["phase"] == "ended":
                break
        run = call.get(f"/runs/{name}")
        assert [each["name"] for each in call.get("/runs")["runs"]] == [name]
    assert run["status"]["verdict"] == each["data"]["verdict"]
    assert run["status"]["resumed"] == 1
    told = [point["event"] for point in run["status"]["timeline"]]
    assert [told.count(event) for event in ("started", "injected", "verdict")] == [1, 1, 1]
    assert (tmp_path / "app.conf").read_text() == "mode = good\n"
    assert yaml.safe_load(file.read_text())["metadata"]["name"] == run["spec"]["experiment"]
