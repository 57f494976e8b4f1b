"""Curves of real targets of this kernel: processes, a control group, the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.api.watching import TargetSecond
from faultline.errors import Unsupported
from faultline.kernel import cgroup
from faultline.kernel.blockio import Device
from faultline.watching.watcher import Watcher

BUSY = """
import os, sys, time
if sys.argv[1] == "disk":
    with open(sys.argv[2], "wb") as file:
        while True:
            file.write(os.urandom(1 << 20)); file.flush(); os.fsync(file.fileno())
            file.seek(0); time.sleep(0.02)
held = bytearray(int(sys.argv[2])); held[::4096] = b"x" * len(held[::4096])
print("ready", flush=True)
while sys.argv[1] == "cpu": pass
time.sleep(60)
"""
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    begun: list[subprocess.Popen[bytes]] = []

    def run(*args: str) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen([sys.executable, "-c", BUSY, *args], stdout=subprocess.PIPE))
        return begun[-1]

    yield run
    for each in begun:
        each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher(every=0.2)
    yield made
    made.stop()


def until(watcher: Watcher, name: str, wanted: Callable[[list[TargetSecond]], bool]) -> None:
    deadline = time.monotonic() + 20
    while not wanted(watcher.seconds(name)):
        assert time.monotonic() < deadline, watcher.seconds(name)[-3:]
        time.sleep(0.05)


def test_a_process_that_computes_is_seen_at_it(watcher: Watcher, start: Start) -> None:
    one = start("cpu", "1")
    watcher.start("one", {"pid": one.pid})
    until(watcher, "one", lambda found: any((each.cpu or 0) > 0.1 for each in found))
    status = watcher.status("one")
    assert status is not None
    assert (status.kind, status.end) == ("process", "")
    assert any("network" in each for each in status.missing)


def test_its_memory_and_its_end_are_seen(watcher: Watcher, start: Start) -> None:
    one = start("hold", str(64 << 20))
    assert one.stdout is not None
    one.stdout.readline()
    watcher.start("one", {"pid": one.pid})
    until(watcher, "one", lambda found: any((each.memory or 0) > 64 << 20 for each in found))
    one.kill()
    one.wait()
    deadline = time.monotonic() + 10
    while not (status := watcher.status("one")) or not status.end:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status.end == "it has ended"
    assert status.ended is not None
    count = len(watcher.seconds("one"))
    time.sleep(0.5)
    assert len(watcher.seconds("one")) == count, "its curve ends"


@pytest.mark.needs_root
def test_what_a_process_writes_is_counted(watcher: Watcher, start: Start, tmp_path: Path) -> None:
    try:
        Device.of_path("/var/tmp")
    except Unsupported as why:
        pytest.skip(str(why))
    one = start("disk", f"/var/tmp/{tmp_path.name}-{os.getpid()}")
    try:
        watcher.start("one", {"pid": one.pid})
        until(watcher, "one", lambda found: any((each.written or 0) > 1 << 18 for each in found))
    finally:
        one.kill()
        one.wait()
        Path(f"/var/tmp/{tmp_path.name}-{os.getpid()}").unlink(missing_ok=True)


def test_a_named_process_that_comes_back_goes_on_with_its_curve(
    watcher: Watcher, start: Start
) -> None:
    mark = str(1_000_000 + os.getpid())
    first = start("hold", mark)
    watcher.start("named", {"process": f"hold {mark}"})
    until(watcher, "named", lambda found: len(found) >= 2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    start("hold", mark)
    until(watcher, "named", lambda found: len(found) >= 4)
    status = watcher.status("named")
    assert status is not None
    assert (status.end, status.ended) == ("", None)
    # The first reading of the new process has nothing before it but its size.
    until(watcher, "named", lambda found: any(each.restarts for each in found))


def test_a_target_that_is_not_there_says_so_and_spoils_no_other(watcher: Watcher) -> None:
    watcher.start("nobody", {"process": f"no such process {os.getpid()} [x]"})
    watcher.start("host", {})
    until(watcher, "host", lambda found: len(found) >= 2)
    status = watcher.status("nobody")
    assert status is not None
    assert "no process has" in status.end
    assert watcher.seconds("nobody") == []
    assert watcher.status("never asked for") is None


@pytest.mark.both_kernels
def test_the_host_has_all_curves_that_its_kernel_counts(watcher: Watcher) -> None:
    watcher.start("host", {})
    until(watcher, "host", lambda found: len(found) >= 3)
    second = watcher.seconds("host")[-1]
    status = watcher.status("host")
    assert status is not None
    assert status.cores is not None
    assert status.cores >= 1
    assert second.cpu is not None
    assert 0 <= second.cpu <= status.cores * 1.5
    assert second.memory is not None
    assert status.memory_limit is not None
    assert 0 < second.memory < status.memory_limit
    assert second.processes is not None
    assert second.processes > 1
    assert (second.received, second.sent) != (None, None)
    if Path("/proc/pressure/cpu").exists():
        assert second.cpu_pressure is not None
        assert 0 <= second.cpu_pressure <= 1
    assert status.cost is not None


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_a_control_group_is_read_by_its_own_counters(watcher: Watcher, start: Start) -> None:
    layout = cgroup.layout()
    name = f"fltest-watch-{os.getpid()}"
    groups = [
        layout.root(each).child(name)
        for each in ("memory", "cpu", "pids")
        if each in layout.controllers()
    ]
    groups = list({each.folder: each for each in groups}.values())
    if not groups:
        pytest.skip("no controllers here")
    one = start("cpu", str(32 << 20))
    assert one.stdout is not None
    try:
        for group in groups:
            group.create()
            group.add(one.pid)
        one.stdout.readline()
        watcher.start("group", {"cgroup": f"/{name}"})
        until(watcher, "group", lambda found: any((each.cpu or 0) > 0.05 for each in found))
        second = watcher.seconds("group")[-1]
        assert second.processes == 1
        one.kill()
        one.wait()
        for group in groups:
            group.remove()
        deadline = time.monotonic() + 10
        while not (status := watcher.status("group")) or not status.end:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        one.kill()
        one.wait()
        for group in groups:
            group.remove()


def test_a_second_is_given_once_and_in_order(watcher: Watcher) -> None:
    watcher.start("host", {})
    until(watcher, "host", lambda found: len(found) >= 4)
    found = watcher.seconds("host")
    assert watcher.seconds("host", found[1].at) == watcher.seconds("host")[2:]
    assert all(each.span < 2 for each in found)
