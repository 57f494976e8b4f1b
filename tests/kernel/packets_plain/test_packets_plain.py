"""Packet faults of an ordinary user: no root, no eBPF, and perhaps no TAP device."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain import Plain

pytestmark = [pytest.mark.needs_userns, pytest.mark.timeout(180)]

PORTS = pytest.mark.parametrize("tun", [True, False], ids=["tap", "pair"])
FAULTS = {
    "delay": {"latency": "50ms"},
    "loss": {"percent": "20%"},
    "duplicate": {"percent": "20%"},
    "corrupt": {"percent": "20%"},
    "reorder": {"latency": "50ms", "gap": 3},
    "limit": {"rate": "10mbit"},
    "partition": {"destination": ["127.0.0.2"]},
}


def _skip_closed(tun: bool) -> None:
    device = Path("/dev/net/tun")
    if tun and not (device.exists() and device.stat().st_mode & 0o006 == 0o006):
        pytest.skip("/dev/net/tun is closed to ordinary users here: the pair is tested")


@pytest.mark.slow
@PORTS
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_loopback_works_is_measured_and_leaves_nothing(
    plain: Plain, fault: str, tun: bool
) -> None:
    _skip_closed(tun)
    params = {"interface": "lo", **FAULTS[fault]}
    told = plain.inside("life", fault=f"network.{fault}", params=params, tun=tun)
    assert told["kinds"] == ["worker", "redirect"]
    assert told["port"] == ("tun" if tun else "veth")
    assert told["effect"] == "effective", told
    assert told["end"] == "recovered"
    assert told["left"] == []
    assert told["same"], "the network namespace is as it was"
    assert told["workers"] == 0


@pytest.mark.slow
def test_damage_that_is_delivered_is_measured_too(plain: Plain) -> None:
    params = {"interface": "lo", "percent": "20%", "checksum": "fixed"}
    told = plain.inside("life", fault="network.corrupt", params=params, tun=False)
    assert told["effect"] == "effective", told


@pytest.mark.slow
@pytest.mark.parametrize("params", [{"protocol": "tcp"}, {"destination_port": ["53"]}])
def test_what_is_chosen_by_protocol_or_port_is_measured_by_packets_of_that_kind(
    plain: Plain, params: dict[str, object]
) -> None:
    asked = {"interface": "lo", "percent": "30%", **params}
    told = plain.inside("life", fault="network.loss", params=asked, tun=False)
    assert told["effect"] == "effective", told


@pytest.mark.slow
@PORTS
def test_every_packet_is_received_once_and_the_devices_say_nothing(plain: Plain, tun: bool) -> None:
    _skip_closed(tun)
    told = plain.inside("copies", tun=tun)
    broadcast = told.pop("127.255.255.255")
    assert told == {"127.0.0.1": 60, "::1": 60, "sent by the pair": 0}
    assert broadcast == 60


@pytest.mark.slow
def test_a_pair_carries_large_packets_whole_and_right(plain: Plain) -> None:
    size = 64 << 20
    told = plain.inside("transfer", size=size, tun=False)
    assert told == {"taken": size, "sent": size, "wrong": 0}


@PORTS
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_packets_flow_again_when_the_worker_is_lost(plain: Plain, how: str, tun: bool) -> None:
    _skip_closed(tun)
    told = plain.inside("lost_worker", how=how, tun=tun)
    assert told["workers"] == 1
    # Four looks of a keeper; the rest is for a busy machine. Without them it were a minute.
    assert 0.3 < told["silent"] < 4, told
    assert told["end"] == "recovered"
    assert told["left"] == []
    assert told["same"]
    assert any("had ended before" in each for each in told["told"]) == (how == "SIGKILL")


@pytest.mark.slow
def test_a_worker_that_pauses_keeps_its_fault(plain: Plain) -> None:
    assert plain.inside("busy_worker", tun=False) == {"effect": "effective", "end": None}


@pytest.mark.slow
def test_packets_go_on_passing_when_the_deadline_comes(plain: Plain) -> None:
    """The worker takes nothing that would be late, and passes it until the filter is gone."""
    told = plain.inside("deadline", latency="700ms", duration="3s", tun=False)
    assert told["end"] == "recovered"
    assert told["same"]
    assert told["gap"] < 1.5  # 0.7 s at the start are the delay itself


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True], ids=["with-worker", "without-worker"])
def test_a_scan_finds_the_redirection_without_a_journal(plain: Plain, kill: bool) -> None:
    told = plain.inside("scan", kill=kill, tun=False)
    assert told["keepers"] == 2
    assert told["ends"]
    assert set(told["ends"]) == {"recovered"}
    assert told["same"]


@pytest.mark.slow
def test_a_device_has_one_redirection_and_each_network_has_its_own(plain: Plain) -> None:
    told = plain.inside("twice", tun=False)
    assert told["refused"]
    assert told["elsewhere"] == {
        "effect": "effective",
        "end": "recovered",
        "other is still there": True,
    }
