"""Processors really busy, measured by others than the fault; undone by the keepers under load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, State, mark
from faultline.errors import InvalidParameter, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, cpustat, procfs
from faultline.units import Duration

pytestmark = pytest.mark.quiet
SPIN = "while True: pass"
QUOTA = 0.5  # cores


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


@pytest.fixture
def spinner() -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts a process that uses a core fully."""
    started: list[subprocess.Popen[bytes]] = []

    def start(core: int) -> subprocess.Popen[bytes]:
        # In a session of its own: sched_autogroup (sched(7)) weighs sessions, not processes.
        command = [sys.executable, "-I", "-S", "-c", SPIN]
        process = subprocess.Popen(command, start_new_session=True)
        os.sched_setaffinity(process.pid, {core})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def order(fault: str, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration))


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def busy(cores: list[int] | None, seconds: float = 2.0) -> float:
    before = cpustat.core_times()
    time.sleep(seconds)
    return cpustat.used_between(before, cpustat.core_times(), cores)


def quiet(core: int) -> None:
    """Skips on a machine whose cores others fill: the level could not be told from theirs."""
    if (use := busy([core], 1.0)) > 15:
        pytest.skip(f"others use {use:.0f}% of core {core}")


def ticks(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.both_kernels
def test_rivals_take_a_core_from_what_runs_there(
    injector: Injector, spinner: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    """Without them it keeps what it uses; with three it is one of four."""
    quiet(0)
    victim = spinner(0)

    def share(seconds: float = 1.5) -> float:
        begun, used = time.monotonic(), ticks(victim)
        time.sleep(seconds)
        return (ticks(victim) - used) / (time.monotonic() - begun)

    record = injector.inject(order("cpu.burn", percent="100%", cores="0"))
    assert share() > 0.4
    injector.recover(record.uid)
    record = injector.inject(order("cpu.burn", percent="100%", cores="0", rivals=3))
    found = injector.observe(record.uid)
    assert share() < 0.35
    assert found.values["others"] < 35, found
    assert found.effect is Effect.EFFECTIVE, found
    assert injector.recover(record.uid).end is End.RECOVERED
    assert injector.residue(record.uid) == []


def test_others_who_weigh_more_than_the_rivals_are_told_of(
    injector: Injector, spinner: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    for _ in range(3):
        spinner(0)
    record = injector.inject(order("cpu.burn", percent="100%", cores="0", rivals=1))
    found = injector.observe(record.uid)
    assert found.effect is Effect.INEFFECTIVE, found
    assert "weigh more" in found.reason


@pytest.mark.parametrize("params", [{"percent": "90%"}, {"percent": "100%", "of": "all"}])
def test_rivals_go_with_all_of_a_core(injector: Injector, params: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="rivals"):
        injector.plan(order("cpu.burn", rivals=2, **params))


@pytest.mark.both_kernels
def test_a_core_is_held_at_the_level_that_was_asked(injector):
    quiet(0)
    record = injector.inject(order("cpu.burn", percent="60%", cores="0"))
    assert record.steps[0].change.spec["what"] == "hold core 0 busy at 60%, in total"
    time.sleep(1)
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(busy, [0])
        reading = injector.observe(record.uid)
    assert reading.values["measured"] == pytest.approx(seen.result(), abs=5)
    if reading.values["others"] < 10:
        assert reading.effect is Effect.EFFECTIVE, reading
        assert reading.values["measured"] == pytest.approx(60, abs=5)
    assert injector.recover(record.uid).end is End.RECOVERED
    assert injector.residue(record.uid) == []


@pytest.mark.both_kernels
def test_what_others_use_beyond_the_level_is_an_outcome_of_its_own(injector, spinner):
    spinner(0)
    record = injector.inject(order("cpu.burn", percent="20%", cores="0"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.ABOVE
    assert reading.values["others"] > 50
    assert reading.reason.startswith("already above")


@pytest.mark.both_kernels
def test_a_burn_that_somebody_ended_is_told(injector):
    record = injector.inject(order("cpu.burn", percent="50%", count=1))
    for process in procfs.find_marked(mark(record.uid, 0)):
        process.id.send(signal.SIGKILL)
    until(lambda: not procfs.find_marked(mark(record.uid, 0)))
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


@pytest.mark.both_kernels
def test_the_deadline_is_met_with_every_core_full(injector, spinner):
    for core in cpustat.online_cores():
        spinner(core)
    record = injector.inject(order("cpu.burn", "3s", percent="100%", of="all"))
    assert busy(None, 1.0) > 90
    until(lambda: not procfs.find_marked(mark(record.uid, 0)))
    until(lambda: injector.get(record.uid).state is State.ENDED)
    assert injector.get(record.uid).end is End.RECOVERED


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"percent": "0%"},
        {"percent": "10%", "cores": "0", "count": 1},
        {"percent": "10%", "of": "all", "cores": "0"},
        {"percent": "10%", "cores": "60000"},
        {"percent": "10%", "cores": "2-1"},
        {"percent": "10%", "count": 60000},
    ],
)
def test_what_makes_no_sense_is_refused(injector, params):
    with pytest.raises(InvalidParameter):
        injector.plan(order("cpu.burn", **params))


# ------------------------------------------------------------------------------------- a quota


@pytest.fixture
def quota_group() -> Iterator[list[cgroup.Group]]:
    """A control group with a quota of half a core, and the one that counts its use."""
    layout = cgroup.layout()
    names = ["cpu"] if layout.hierarchy("cpu").version == 2 else ["cpu", "cpuacct"]
    groups = [layout.root(name).child(f"quota-test-{os.getpid()}") for name in names]
    for group in groups:
        group.create()
    if groups[0].version == 2:
        groups[0].write("cpu.max", "50000 100000")
    else:
        groups[0].write("cpu.cfs_quota_us", "50000")
    yield groups
    for group in groups:
        until(lambda group=group: not group.pids())
        until(lambda group=group: _removed(group))


def _removed(group: cgroup.Group) -> bool:
    try:
        group.remove()
    except OSError:
        return False
    return True


INSIDE = """
import os, sys, time
from pathlib import Path
store, *folders = sys.argv[1:]
for folder in folders:
    Path(folder, "cgroup.procs").write_text(str(os.getpid()))
from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.units import Duration
with Injector(Path(store)) as injector:
    order = Order("cpu.burn", {"percent": "80%", "of": "group"}, Duration.parse("8s"))
    record = injector.inject(order)
    time.sleep(1)
    reading = injector.observe(record.uid)
    print(record.steps[0].change.spec["what"])
    print(reading.effect, reading.values["measured"], reading.reason, flush=True)
    while injector.get(record.uid).end is None:
        time.sleep(0.1)
    print(injector.get(record.uid).end)
    keepers.retire(injector.store)
"""


@pytest.mark.needs_root
@pytest.mark.both_kernels
@pytest.mark.slow
def test_a_share_of_the_quota_is_held_with_the_keepers_inside_it(quota_group, tmp_path):
    source = str(Path(cgroup.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", INSIDE, str(tmp_path / "store"), *map(str, _folders(quota_group))],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    what, told, end = run.stdout.splitlines() or ["", "", run.stderr]
    assert "0.5 cores" in what
    effect, measured, *_ = told.split()
    # Our own process and the keepers use the same quota, so that the level is a mean over time.
    assert effect == "effective", (told, run.stderr)
    assert float(measured) == pytest.approx(80, abs=15)
    assert end == "recovered"


def _folders(groups: list[cgroup.Group]) -> list[Path]:
    return [group.folder for group in groups]


@pytest.mark.needs_root
def test_without_a_quota_there_is_nothing_to_take_a_share_of(injector):
    with pytest.raises(Unsupported, match="quota"):
        injector.plan(order("cpu.burn", percent="10%", of="group"))


# ---------------------------------------------------------------------------------------- load


@pytest.mark.both_kernels
def test_tasks_wait_and_use_no_processor(injector):
    record = injector.inject(order("cpu.load", count=12))
    ours = [each.pid for each in procfs.find_marked(mark(record.uid, 0))]
    assert procfs.thread_states(ours)["D"] >= 12
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE
    assert reading.values["measured"] >= 12
    assert injector.recover(record.uid).end is End.RECOVERED
    assert not procfs.find_marked(mark(record.uid, 0))


def test_waiting_tasks_that_somebody_ended_are_told(injector):
    record = injector.inject(order("cpu.load", count=3))
    for process in procfs.find_marked(mark(record.uid, 0)):
        process.id.send(signal.SIGKILL)
    until(lambda: not procfs.find_marked(mark(record.uid, 0)))
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE


def test_without_a_number_four_tasks_wait_for_each_core(injector):
    plan = injector.plan(order("cpu.load"))
    assert plan.changes[0].spec["spec"]["count"] == 4 * len(cpustat.online_cores())
