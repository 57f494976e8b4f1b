"""Memory really taken, inside control groups with a limit; undone by keepers that live in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, mark
from faultline.errors import InvalidParameter, Protected, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, cgroup_limits, memory, procfs
from faultline.units import Duration

LIMIT = 192 << 20
MIB = 1 << 20


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


def order(fault: str, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration))


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@pytest.mark.both_kernels
@pytest.mark.parametrize("mode", ["ram", "cache"])
def test_what_is_taken_is_no_longer_available(injector, mode):
    before = memory.host_memory().available
    record = injector.inject(order("memory.fill", bytes="300MiB", mode=mode))
    during = memory.host_memory().available
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.values["measured"] == pytest.approx(300 * MIB, rel=0.01)
    assert injector.recover(record.uid).end is End.RECOVERED
    # Others come and go on this machine; most of what was missing must be ours.
    assert max(before, memory.host_memory().available) - during > 150 * MIB
    assert not procfs.find_marked(mark(record.uid, 0))


@pytest.mark.both_kernels
def test_it_grows_at_the_asked_pace(injector):
    record = injector.inject(order("memory.fill", bytes="1GiB", growth="40MiB/s"))
    time.sleep(2)
    first = injector.observe(record.uid)
    begin = time.monotonic()
    time.sleep(1.5)
    second = injector.observe(record.uid)
    pace = (second.values["held"] - first.values["held"]) / (time.monotonic() - begin)
    assert first.effect is second.effect is Effect.EFFECTIVE
    assert pace == pytest.approx(40 * MIB, rel=0.4)


def test_a_fill_that_somebody_ended_is_told(injector):
    record = injector.inject(order("memory.fill", bytes="20MiB"))
    for process in procfs.find_marked(mark(record.uid, 0)):
        process.id.send(signal.SIGKILL)
    until(lambda: not procfs.find_marked(mark(record.uid, 0)))
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_level_that_others_hold_already_is_an_outcome_of_its_own(injector):
    if memory.host_memory().percent < 2.5:
        pytest.skip("hardly anything is in use here")
    record = injector.inject(order("memory.fill", percent="1%"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.ABOVE
    assert reading.reason.startswith("already above")


def test_the_host_is_not_taken_down_unless_by_name(injector):
    with pytest.raises(Protected, match="kill processes") as caught:
        injector.plan(order("memory.oom"))
    assert "host-oom" in caught.value.hint
    for params in ({"percent": "100%"}, {"bytes": "1024TiB"}):
        with pytest.raises(Protected) as caught:
            injector.plan(order("memory.fill", **params))
        assert "host-memory" in caught.value.hint


def test_without_a_limit_there_is_nothing_to_take_a_share_of(injector):
    if memory_limited():
        pytest.skip("this suite runs in a group with a limit")
    with pytest.raises(Unsupported, match="no memory limit"):
        injector.plan(order("memory.fill", percent="50%", of="group"))


def memory_limited() -> bool:
    group = cgroup.layout().group_of(os.getpid(), "memory")
    return cgroup_limits.memory_limit(group) is not None


@pytest.mark.parametrize(
    "params", [{}, {"percent": "10%", "bytes": "1MiB"}, {"percent": "101%"}, {"bytes": "5"}]
)
def test_either_a_share_or_an_amount(injector, params):
    with pytest.raises(InvalidParameter):
        injector.plan(order("memory.fill", **params))


# ----------------------------------------------------------------------- in a group with a limit


@pytest.fixture
def little() -> Iterator[cgroup.Group]:
    """A control group that may use 192 MiB."""
    layout = cgroup.layout()
    home = layout.group_of(os.getpid(), "memory")
    group = home.beside(f"memory-test-{os.getpid()}")
    group.create()
    enabled = group.enable("memory")
    group.write("memory.max" if group.version == 2 else "memory.limit_in_bytes", str(LIMIT))
    yield group
    until(lambda: _removed(group))
    if enabled:
        enabled.disable("memory")


def _removed(group: cgroup.Group) -> bool:
    try:
        group.remove()
    except OSError:
        return False
    return True


INSIDE = """
import json, os, sys, time
from pathlib import Path
store, folder, fault, params, duration = sys.argv[1:]
Path(folder, "cgroup.procs").write_text(str(os.getpid()))
from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.kernel import clock
from faultline.units import Duration
with Injector(Path(store)) as injector:
    record = injector.inject(Order(fault, json.loads(params), Duration.parse(duration)))
    reading = injector.observe(record.uid)
    print(json.dumps(reading.to_json()), flush=True)
    while injector.get(record.uid).end is None:
        time.sleep(0.02)
    late = (clock.now() - record.deadline) / 1e9
    print(json.dumps({"end": injector.get(record.uid).end, "late": late}), flush=True)
    keepers.retire(injector.store)
"""


def inside(group: cgroup.Group, store: Path, fault: str, duration: str, **params: Any) -> list[Any]:
    """What a fault says that is injected from within the group, with its keepers in it too."""
    import json

    arguments = [str(store), str(group.folder), fault, json.dumps(params), duration]
    run = subprocess.run(
        [sys.executable, "-c", INSIDE, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(cgroup.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(told) == 2, run.stderr
    return told


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_a_share_of_the_limit_is_held_within_a_percent(little, tmp_path):
    reading, ended = inside(
        little, tmp_path / "store", "memory.fill", "6s", percent="70%", of="group"
    )
    assert reading["effect"] == "effective", reading
    assert reading["values"]["measured"] == pytest.approx(70, abs=1)
    assert reading["values"]["total"] == LIMIT
    assert ended["end"] == "recovered"


@pytest.mark.needs_root
@pytest.mark.both_kernels
@pytest.mark.parametrize("mode", ["ram", "cache"])
def test_the_deadline_is_met_with_the_keepers_in_the_full_group(little, tmp_path, mode):
    reading, ended = inside(
        little, tmp_path / "store", "memory.fill", "6s", percent="98%", of="group", mode=mode
    )
    assert reading["effect"] == "effective", reading
    assert ended["end"] == "recovered"
    assert ended["late"] < 3
    until(lambda: cgroup_limits.memory_working_set(little) < LIMIT // 2)


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_the_killer_strikes_in_the_group_and_the_deadline_is_met(little, tmp_path):
    reading, ended = inside(little, tmp_path / "store", "memory.oom", "8s", of="group")
    assert reading["effect"] == "effective", reading
    assert reading["values"]["measured"] >= 1
    assert ended["end"] == "recovered"
    assert ended["late"] < 3
