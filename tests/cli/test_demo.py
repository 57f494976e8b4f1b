"""`faultline demo` and `faultline doctor` as an ordinary user, who has no rights over anything."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel" / "packets_plain"))

import plain as plains
from plain import Plain

pytestmark = [pytest.mark.needs_userns, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def person() -> Iterator[Plain]:
    """An ordinary user with a home and nothing else."""
    python, why = plains.interpreter()
    if not python:
        pytest.skip(why)
    with plains.user() as made:
        yield made


def test_the_demo_needs_no_root_and_proves_effect_and_recovery(person: Plain) -> None:
    report = person.home / "report.html"
    done = person.faultline("demo", "--report", str(report), timeout=150)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "no root needed" in done.stdout
    assert "verdict      held" in done.stdout
    assert re.search(r"effective +delay: asked delay 100ms, measured p50 (8|9|1\d)\d", done.stdout)
    assert "nothing of it is left" in done.stdout
    page = report.read_text()
    assert "network.delay" in page
    assert "<script src=" not in page


def test_the_demo_can_be_run_again_at_once(person: Plain) -> None:
    """The second run is in other namespaces: the keepers of the first have no rights there."""
    for _ in range(2):
        done = person.faultline("demo", timeout=150)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_doctor_says_what_works_without_root_and_what_does_not(person: Plain) -> None:
    done = person.faultline("doctor", "--format", "json", "network", timeout=150)
    told = json.loads(done.stdout)
    assert told["machine"]["user"] == "uid 65534"
    assert told["machine"]["user namespaces"].startswith("work")
    assert told["machine"]["packet engines"]["packets"] == ""
    assert "run as root" in told["machine"]["packet engines"]["ebpf"]
    for fault in told["faults"]:
        if fault["fault"] == "network.reset":
            assert "only eBPF can answer packets" in fault["why"]
            assert "run as root" in fault["why"]
            continue
        assert fault["works"], fault
    text = person.faultline("doctor", "network.delay", timeout=60).stdout
    assert "NET_ADMIN" in text
    assert re.search(r"works network\.delay +p50 [45]\d", text), text


def test_outside_of_a_namespace_the_refusal_names_the_way_in(person: Plain) -> None:
    done = person.faultline("inject", "network", "delay", "-i", "lo", "-l", "5ms")
    assert done.returncode == 7
    assert "unshare" in done.stderr, done.stderr
