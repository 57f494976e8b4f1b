"""One fault by hand: plan, inject, query, recover, and what is left of it: nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.cli.command import Cli

from faultline.kernel import link, tc
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns]
DELAY = ("network", "delay", "-i", "lo", "-l")


def filters(cli: Cli) -> int:
    """How many filters there are on lo, ours or not; and devices beside it count as well."""
    with cli.inside(), Netlink.open() as nl:
        index = link.get(nl, 1).index
        found = [tc.filters(nl, index, each.parent) for each in Direction]
        return sum(map(len, found)) + len(link.links(nl)) - 1


@pytest.mark.both_kernels
def test_the_first_three_commands_work_as_typed(cli: Cli) -> None:
    injected = cli.ok("inject", *DELAY, "2s", "--uid", "test-fg3g4", "-t", "10m")
    assert "effect: effective: asked delay 2s, measured p50 2" in injected
    listed = cli.ok("query")
    row = listed.splitlines()[1].split()
    assert row[:4] == ["test-fg3g4", "network.delay", "active", "effective"]
    assert "in 9m" in listed
    assert filters(cli)
    assert cli.ok("recover", "test-fg3g4").startswith("test-fg3g4: recovered")
    assert not filters(cli)
    assert "recovered" in cli.ok("query")


@pytest.mark.both_kernels
def test_a_plan_tells_engine_exemption_undo_and_end_and_touches_nothing(cli: Cli) -> None:
    told = cli.ok("plan", *DELAY, "50ms", "-t", "3m")
    lines = told.splitlines()
    assert any(line.startswith("engine ") for line in lines)
    assert "ebpf is not possible: eBPF decides about packets and cannot hold them" in told
    assert "exempt" in told
    assert told.count(" undo ") == told.count(" do ") >= 1
    assert "after 3m at the latest, kernel-owned" in told
    assert lines[-1] == "nothing was touched"
    assert not filters(cli)
    assert cli.ok("query") == "no faults\n"


def test_a_session_over_ssh_is_exempt_and_the_plan_says_so(cli: Cli) -> None:
    cli.extra["SSH_CONNECTION"] = "192.0.2.7 50022 192.0.2.1 22"
    told = cli.ok("plan", "network", "partition", "-i", "lo")
    assert "your own session from 192.0.2.7 port 50022 to port 22" in told


@pytest.mark.both_kernels
def test_a_saved_plan_is_applied_once(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    cli.ok("plan", "network", "loss", "-i", "lo", "-p", "50%", "--uid", "saved", "-o", file)
    assert json.loads(file.read_text())["engine"]
    assert "effect: effective" in cli.ok("apply", file)
    again = cli("apply", file, "--format", "json")
    assert (again.code, again.error["code"]) == (3, "conflict")


@pytest.mark.both_kernels
def test_what_is_left_to_chance_is_drawn_from_the_seed_that_is_given(cli: Cli) -> None:
    words = ("plan", "network", "delay", "-i", "lo", "-l", "20ms", "--format", "json")
    assert json.loads(cli.ok(*words, "--seed", "4711"))["seed"] == 4711
    drawn = {json.loads(cli.ok(*words))["seed"] for _ in range(2)}
    assert len(drawn) == 2
    assert cli("plan", "network", "delay", "-l", "1s", "--seed", "-1").code == 2


def test_a_plan_is_refused_when_the_world_has_moved(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    cli.ok("plan", "network", "loss", "-i", "lo", "-p", "50%", "-o", file)
    plan = json.loads(file.read_text())
    plan["changes"][0]["spec"]["ifindex"] = 77  # as if the device had been made anew since
    file.write_text(json.dumps(plan))
    stale = cli("apply", file)
    assert stale.code == 3
    assert "change.1.spec.ifindex was 77, is 1" in stale.err
    assert not filters(cli)


def test_what_is_no_plan_is_refused(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    for text in ("not JSON", "{}", "[]", '{"schema": 99}'):
        file.write_text(text)
        assert cli("apply", file).code == 2, text


@pytest.mark.both_kernels
def test_everything_is_recovered_at_once(cli: Cli) -> None:
    for uid in ("one", "two"):
        cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", uid, "--no-observe")
    told = cli.ok("recover", "--all")
    assert "one: recovered" in told
    assert "two: recovered" in told
    assert not filters(cli)
    assert cli.ok("recover", "--all") == "nothing to recover\n"


@pytest.mark.both_kernels
def test_a_scan_finds_a_fault_whose_journal_and_keepers_are_gone(cli: Cli) -> None:
    cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", "lost", "--no-observe")
    cli.kill_keepers()
    for file in cli.state.glob("journal.db*"):
        file.unlink()
    assert filters(cli)
    assert "lost: recovered" in cli.ok("recover", "--scan")
    assert not filters(cli)


@pytest.mark.both_kernels
def test_query_has_a_fault_kept_again_whose_keepers_were_killed(cli: Cli) -> None:
    cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", "kept", "--no-observe")
    cli.kill_keepers()
    assert not cli.keepers()
    cli.ok("query")
    assert len(cli.keepers()) >= 2  # one may be about to start the other once more


@pytest.mark.parametrize("pause", [0.15, 0.4, 0.8, 1.6])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_injection_is_undone(cli: Cli, pause: float, number: int) -> None:
    running = cli.start("inject", *DELAY, "5s", "--uid", "stopped")
    time.sleep(pause)
    os.killpg(running.pid, number)
    out, err = running.communicate(timeout=30)
    assert running.returncode in (130, -number), (out, err)  # or while Python still loads
    until = time.monotonic() + 10
    while filters(cli) and time.monotonic() < until:
        time.sleep(0.05)  # not committed: the keepers are undoing it
    assert not filters(cli)
    assert not [each for each in cli("query", "--format", "json").json() if not each["end"]]


@pytest.mark.both_kernels
def test_one_fault_is_shown_with_its_changes_and_how_they_were_undone(cli: Cli) -> None:
    cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", "shown")
    told = cli.ok("query", "shown")
    assert "parameters  interface lo" in told
    assert "applied: " in told
    assert "undo it now: faultline recover shown" in told
    cli.ok("recover", "shown")
    told = cli.ok("query", "shown")
    assert "undone: " in told
    assert "undo it now" not in told


def test_open_faults_are_listed_beyond_the_limit(cli: Cli) -> None:
    for number in range(3):
        cli.ok("inject", "network", "loss", "-i", "lo", "-p", "1%", "--uid", f"n{number}",
               "--no-observe")  # fmt: skip
    assert len(cli("query", "--limit", "1", "--format", "json").json()) == 3
    cli.ok("recover", "--all")
    assert len(cli("query", "--limit", "1", "--format", "json").json()) == 1
    assert len(cli("query", "--all", "--format", "json").json()) == 3
    assert cli("query", "-s", "active", "--format", "json").json() == []
    assert cli("query", "-f", "network.loss", "--all", "--format", "json").json()
    assert cli("query", "-f", "network.delay", "--all", "--format", "json").json() == []


@pytest.mark.both_kernels
def test_a_halt_undoes_everything_and_holds_until_it_is_lifted(cli: Cli) -> None:
    cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", "going", "--no-observe")
    told = cli.ok("halt", "an incident")
    assert "going: recovered" in told
    assert not filters(cli)
    refused = cli("inject", "network", "loss", "-i", "lo", "-p", "10%")
    assert refused.code == 3
    assert "an incident" in refused.err
    assert "faultline halt --lift" in refused.err
    assert cli.ok("query").startswith("halted: an incident")
    cli.ok("halt", "--lift")
    cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", "on", "--no-observe")


@pytest.mark.both_kernels
def test_watch_shows_what_is_active_and_stops_when_told(cli: Cli) -> None:
    cli.ok("inject", "network", "loss", "-i", "lo", "-p", "10%", "--uid", "seen", "--no-observe")
    assert "seen" in cli.ok("watch", "--count", "2", "-n", "100ms")
    lines = cli.ok("watch", "--count", "2", "-n", "100ms", "--format", "json").splitlines()
    assert [json.loads(line)["faults"][0]["uid"] for line in lines] == ["seen", "seen"]
    running = cli.start("watch", "-n", "100ms")
    time.sleep(1)
    os.killpg(running.pid, signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == 0
    refused = cli("watch", "-n", "1")
    assert refused.code == 2
    assert "a duration with a unit" in refused.err


def test_nothing_of_an_earlier_boot_is_nothing_to_recover(cli: Cli) -> None:
    assert cli.ok("boot") == "nothing to recover\n"
    unit = cli.ok("boot", "install", "--print")
    assert f"FAULTLINE_STATE={cli.state}" in unit
    assert "faultline.changes.at_boot" in unit
