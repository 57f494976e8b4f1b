"""Processor burn: what /proc/stat and the group's own counter say against what was asked."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.kernel import cgroup, cgroup_limits, cpustat
from faultline.kernel.cgroup import Group
from faultline.workers import burn
from faultline.workers.burn import Controller, Sample
from faultline.workers.join import group_from, group_to

pytestmark = pytest.mark.quiet
Start = Callable[..., Any]
Make = Callable[[str], Group]
POINTS = 3.0  # how far the measured level may be from the asked one


def _series(cores: Sequence[int], count: int, seconds: float) -> list[float]:
    found: list[float] = []
    last = cpustat.core_times()
    for _ in range(count):
        time.sleep(seconds)
        now = cpustat.core_times()
        found.append(cpustat.used_between(last, now, cores))
        last = now
    return found


def _agrees(found: Sequence[float], asked: float, others: float) -> None:
    """Within three points and three standard errors; what others use beyond it is not ours."""
    error = statistics.stdev(found) / len(found) ** 0.5
    goal = max(asked, others)
    assert abs(statistics.mean(found) - goal) <= POINTS + 3 * error, (found, others)


@pytest.mark.both_kernels
@pytest.mark.parametrize("percent", [5, 30, 60, 95])
def test_the_measured_total_is_what_was_asked(worker: Start, percent: float) -> None:
    cores = sorted(os.sched_getaffinity(0))
    run = worker("burn", {"percent": percent, "scope": "cores", "cores": cores})
    assert run.ready["asked"] == percent
    time.sleep(1)
    found = _series(cores, 8, 0.5)
    figures = run.figures()
    _agrees(found, percent, figures["others"])
    assert len(run.children()) == len(cores)


def test_only_the_named_core_is_burnt(worker: Start) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core only")
    run = worker("burn", {"percent": 80, "scope": "cores", "cores": cores[1:2]})
    assert run.ready
    time.sleep(0.5)
    _agrees(_series(cores[1:2], 6, 0.5), 80, run.figures()["others"])
    assert all(os.sched_getaffinity(each.pid) == {cores[1]} for each in run.children())


@pytest.mark.both_kernels
def test_a_competitor_is_made_room_for_and_reported(worker: Start) -> None:
    core = min(os.sched_getaffinity(0))
    run = worker("burn", {"percent": 60, "scope": "cores", "cores": [core]})
    assert run.ready
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, {core})
        while True:
            pass
    try:
        now = run.wait_for(lambda figures: figures["above"])
        assert now["others"] > 62
        assert now["own"] < 40
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.both_kernels
@pytest.mark.needs_root
def test_a_share_of_a_quota_is_held(worker: Start, scratch_group: Make) -> None:
    """60 % of half a core is 0.3 cores, by the group's own counter."""
    layout = cgroup.layout()
    limit = scratch_group("cpu")
    usage = limit
    if limit.version == 2:
        limit.write("cpu.max", "50000 100000")
    else:
        limit.write("cpu.cfs_quota_us", "50000")
        usage = scratch_group("cpuacct")
    quota = cgroup_limits.cpu_quota(limit)
    assert quota
    assert "cpu" in layout.controllers()
    group = {"usage": group_to(usage), "quota": quota.cores}
    assert cgroup_limits.cpu_usage(group_from(group_to(usage))) == 0
    join = [str(limit.folder), str(usage.folder)]
    order = {"percent": 60, "scope": "group", "group": group, "join": join}
    run = worker("burn", order)
    assert run.ready
    time.sleep(1)
    begin, used, before = time.monotonic(), cgroup_limits.cpu_usage(usage), cpustat.core_times()
    time.sleep(4)
    cores = (cgroup_limits.cpu_usage(usage) - used) / 1e9 / (time.monotonic() - begin)
    if (full := cpustat.used_between(before, cpustat.core_times(), None)) > 95:
        pytest.skip(f"others leave it no more: all cores are busy at {full:.0f}%")
    assert cores / quota.cores * 100 == pytest.approx(60, abs=POINTS)
    run.end()
    assert run.wait_gone()
    assert usage.pids() == []


def test_a_burner_that_somebody_ends_is_replaced(worker: Start) -> None:
    run = worker("burn", {"percent": 20, "scope": "cores"})
    assert run.ready
    before = {each.pid for each in run.children()}
    run.children()[0].id.send(signal.SIGKILL)
    now = run.wait_for(lambda figures: figures["restarts"] == 1)
    assert now["restarts"] == 1
    assert len({each.pid for each in run.children()}) == len(before)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=64), st.floats(0, 1))
def test_the_level_of_all_cores_is_the_asked_mean_or_what_others_use(
    others: list[float], goal: float
) -> None:
    found = burn.level(others, goal)
    mean = sum(found) / len(found)
    assert all(a >= b and a <= 1 for a, b in zip(found, others, strict=True))
    assert mean == pytest.approx(max(goal, sum(others) / len(others)), abs=1e-6)


def _simulate(percent: float, others: float, noise: float, steps: int = 80) -> list[float]:
    """A core whose counter has the noise of ticks and reads 3 % more than was burnt."""
    random.seed(1)
    control = Controller(percent, "cores", 1.0, 1)
    (share,) = control.start()
    found: list[float] = []
    for _ in range(steps):
        own = min(share, 1 - others)
        total = min(1.0, (own + others) * 1.03 + random.uniform(-noise, noise))
        (share,) = control.correct(Sample([total], [own]))
        found.append(100 * total)
    return found


@pytest.mark.parametrize("percent", [5, 30, 60, 95])
@pytest.mark.parametrize("others", [0.0, 0.04, 0.3])
def test_the_controller_takes_a_constant_error_out(percent: float, others: float) -> None:
    found = _simulate(percent, others, noise=0.02)
    assert statistics.mean(found[20:]) == pytest.approx(max(percent, others * 103), abs=0.7)


def test_after_a_long_competitor_the_level_returns_within_three_seconds() -> None:
    control = Controller(60, "cores", 1.0, 1)
    (share,) = control.start()
    found: list[float] = []
    for step in range(60):
        others = 0.9 if step < 40 else 0.0
        own = min(share, 1 - others)
        (share,) = control.correct(Sample([own + others], [own]))
        found.append(own + others)
    assert found[39] == pytest.approx(0.9, abs=0.02)
    assert all(abs(value - 0.6) < 0.03 for value in found[46:])
