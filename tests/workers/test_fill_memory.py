"""Memory: what the kernel counts for the process, the group and the host."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultline.kernel import cgroup_limits, memory, procfs
from faultline.kernel.cgroup import Group
from faultline.workers.fill_memory import Anonymous, oom_kills
from faultline.workers.join import group_to

pytestmark = pytest.mark.both_kernels
Start = Callable[..., Any]
Make = Callable[[str], Group]
MIB = 1 << 20


def _limited(make: Make, limit: int) -> tuple[Group, dict[str, object]]:
    group = make("memory")
    group.write("memory.max" if group.version == 2 else "memory.limit_in_bytes", str(limit))
    return group, {"join": [str(group.folder)], "group": group_to(group)}


def test_anonymous_bytes_are_resident_to_a_percent(worker: Start) -> None:
    run = worker("fill_memory", {"kind": "anonymous", "bytes": 100 * MIB})
    assert run.ready["held"] == 100 * MIB
    (child,) = run.children()
    used = memory.process_memory(child.pid)
    assert 100 * MIB <= used.resident + used.swapped <= 100 * MIB + 16 * MIB
    if run.ready["locked"]:
        assert used.swapped == 0
        assert used.locked >= 100 * MIB


def test_page_cache_is_filled_without_a_file_anybody_sees(worker: Start) -> None:
    run = worker("fill_memory", {"kind": "cache", "bytes": 100 * MIB})
    (child,) = run.children()
    (held,) = [
        Path(f"/proc/{child.pid}/fd/{fd}").stat()
        for fd, target in procfs.descriptors(child.pid).items()
        if target == "/memfd:faultline (deleted)"
    ]
    assert held.st_blocks * 512 == 100 * MIB
    assert memory.meminfo()["Shmem"] >= 100 * MIB


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["anonymous", "cache"])
def test_a_percentage_of_a_limit_is_held_while_others_come(
    worker: Start, scratch_group: Make, kind: str
) -> None:
    group, order = _limited(scratch_group, 200 * MIB)
    run = worker("fill_memory", {"kind": kind, "percent": 60, **order})
    assert run.ready["percent"] == pytest.approx(60, abs=1)
    alone = run.ready["held"]
    pid = os.fork()
    if pid == 0:
        group.add(os.getpid())
        data = mmap.mmap(-1, 30 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE)
        time.sleep(60)
        os._exit(len(data) % 2)
    try:
        run.wait_for(lambda f: f["held"] < alone - 25 * MIB)
        _steady(group, 60)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    run.wait_for(lambda f: f["held"] > alone - 5 * MIB)
    _steady(group, 60)
    assert oom_kills(group) == 0


def _steady(group: Group, percent: float) -> None:
    """Within a point for a second, by the group's own figures."""
    since = until = time.monotonic()
    until += 20
    while time.monotonic() < since + 1:
        use = cgroup_limits.memory_use(group)
        assert use
        if abs(use.percent - percent) > 1:
            assert time.monotonic() < until, use.percent
            since = time.monotonic()
        time.sleep(0.05)


def test_a_percentage_of_the_host_is_held(worker: Start) -> None:
    asked = round(memory.host_memory().percent) + 2
    run = worker("fill_memory", {"kind": "anonymous", "percent": asked}, seconds=60)
    assert run.ready["percent"] == pytest.approx(asked, abs=1)
    assert memory.host_memory().percent == pytest.approx(asked, abs=1)


@pytest.mark.needs_root
def test_more_in_use_than_asked_is_an_answer_of_its_own(worker: Start, scratch_group: Make) -> None:
    group, order = _limited(scratch_group, 200 * MIB)
    pid = os.fork()
    if pid == 0:
        group.add(os.getpid())
        data = bytearray(os.urandom(80 * MIB))
        time.sleep(60)
        os._exit(len(data) % 2)
    try:
        while cgroup_limits.memory_charge(group) < 80 * MIB:
            time.sleep(0.01)
        run = worker("fill_memory", {"kind": "anonymous", "percent": 10, **order})
        assert run.ready["above"]
        assert run.ready["percent"] > 30
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_growth_keeps_to_its_rate(worker: Start) -> None:
    rate = 20 * MIB
    order = {"kind": "anonymous", "bytes": 400 * MIB, "rate": rate}
    run = worker("fill_memory", order)
    begin, first = time.monotonic(), run.figures()["held"]
    time.sleep(2)
    grown = run.figures()["held"] - first
    passed = time.monotonic() - begin
    assert 0 < grown <= rate * (passed + 0.5)
    assert first < 200 * MIB


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["anonymous", "cache"])
def test_beyond_the_limit_the_kernel_kills_and_it_is_said(
    worker: Start, scratch_group: Make, kind: str
) -> None:
    group, order = _limited(scratch_group, 48 * MIB)
    run = worker("fill_memory", {"kind": kind, "oom": True, **order, "protect": False})
    assert run.ready["oom_kills"] > 0 or run.ready["killed"] > 0
    assert oom_kills(group) > 0
    assert run.parent()  # it lives to tell
    run.end()
    assert run.wait_gone()


def test_protection_that_is_refused_is_reported(worker: Start) -> None:
    order = {"kind": "anonymous", "bytes": 8 * MIB, "protect": True}
    run = worker("fill_memory", order)
    (child,) = run.children()
    assert run.ready["protected"] == (memory.oom_score_adj(child.pid) == -999)


@pytest.mark.needs_root
def test_a_user_who_may_not_lock_pages_fills_them_with_noise_instead() -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
            os.setresuid(65534, 65534, 65534)
            store = Anonymous()
            store.grow(8 * MIB)
            store.grow(8 * MIB)
            before = memory.process_memory(os.getpid()).resident
            store.shrink(12 * MIB)
            freed = before - memory.process_memory(os.getpid()).resident
            good = not store.locked and store.size == 4 * MIB and abs(freed - 12 * MIB) < MIB
            status = 0 if good else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
