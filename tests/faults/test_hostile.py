"""The keeper works inside the fault that it guards: at full strength the deadline is met."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, State
from faultline.injection import scratch, trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.kernel import cgroup, clock, procfs
from faultline.testing import conformance
from faultline.units import Duration

LATE = 5.0  # seconds after the deadline within which all is undone, on a machine full of tests
pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.both_kernels,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]


def _keepers(injector: Injector) -> list[procfs.Process]:
    found = procfs.find_by_cmdline(f"keeper:{injector.store.state} ", exclude=[os.getpid()])
    return [each for each in found if each.name.startswith("fl-keeper")]


def _suffer(
    state: Path, orders: list[Order], hurt: Callable[[Injector], Any] = lambda _: None
) -> list[str]:
    """Inject, make it worse, and wait with hands in the lap; complaints."""
    complaints: list[str] = []
    with Injector(state) as injector:
        # The keepers have to be hurt before they meet the fault.
        keepers.wake(injector.store)
        records = [injector.inject(order) for order in orders]
        hurt(injector)
        last = max(record.deadline for record in records)
        while clock.now() < last:
            time.sleep(0.05)
        for record in records:
            conformance.wait_ended(injector, record.uid, LATE)
            now = injector.get(record.uid)
            if now.state is not State.ENDED or now.end is not End.RECOVERED:
                told = [(str(step.outcome and step.outcome.detail)) for step in now.steps]
                complaints.append(f"{now.fault} is {now.state} {now.end}: {told}")
            complaints += injector.residue(record.uid)
        injector.recover_all()
        keepers.retire(injector.store)
    return complaints


def _orders(folder: Path, seconds: str = "1500ms") -> list[Order]:
    """One of each way in which a fault ends: a file, a filter, a hop, a worker."""
    (folder / "there").write_text("as it was\n")
    duration = Duration.parse(seconds)
    return [
        Order("file.add", {"path": str(folder / "added"), "content": "x"}, duration),
        Order("file.truncate", {"path": str(folder / "there"), "bytes": "0B"}, duration),
        Order("network.loss", {"interface": "lo", "percent": "10%"}, duration),
        Order("network.delay", {"interface": "lo", "latency": "1ms"}, duration),
        Order("network.occupy", {"port": 18765}, duration),
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scratch"
    folder.mkdir()
    with scratch.disk(folder) as (point, _):
        point.chmod(0o700)
        yield point


def test_the_disk_that_holds_the_store_is_full(disk: Path) -> None:
    """Not one byte is left for anybody, root included."""
    order = Order(
        "disk.fill",
        {"folder": str(disk), "percent": "100%", "reserve": True},
        Duration.parse("2s"),
        "full",
    )

    def check(_: Injector) -> None:
        with pytest.raises(OSError, match="No space"):
            (disk / "more").write_bytes(bytes(1 << 20))
        (disk / "more").unlink(missing_ok=True)

    assert _suffer(disk / "state", [order], check) == []
    assert os.statvfs(disk).f_bavail > 1000


def test_the_disk_that_holds_the_store_has_no_inode_left(disk: Path) -> None:
    order = Order(
        "disk.inodes", {"folder": str(disk), "percent": "100%"}, Duration.parse("2s"), "inodes"
    )
    assert _suffer(disk / "state", [order]) == []


def test_the_keepers_have_no_descriptor_left(tmp_path: Path) -> None:
    waiting: list[socket.socket] = []

    def starve(injector: Injector) -> None:
        for process in _keepers(injector):
            used = {int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
            free = min(set(range(len(used) + 1)) - used)  # a new one would get this number
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free, free))
        # Somebody who waits to be accepted must not keep a keeper from its deadlines.
        waiting.extend(filter(None, (keepers.connect(injector.store, role) for role in "ab")))

    assert trial.in_child(lambda: _suffer(tmp_path / "state", _orders(tmp_path), starve)) == []


@contextlib.contextmanager
def _few_pids() -> Iterator[cgroup.Group]:
    home = cgroup.layout().group_of(os.getpid(), "pids")
    group = home.beside(f"test-pids-{os.getpid()}")
    group.create()
    parent = group.enable("pids")
    try:
        yield group
        group.write("pids.max", "max")
        group.evacuate(home)
    finally:
        until = time.monotonic() + 10
        while True:
            try:
                group.remove()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        if parent is not None:
            parent.disable("pids")


def test_there_are_no_pids_left_and_a_keeper_is_killed(tmp_path: Path) -> None:
    """Nobody can start the second keeper again; the first one needs no new task."""

    def act() -> list[str]:
        with _few_pids() as group:

            def starve(injector: Injector) -> None:
                found = _keepers(injector)
                for process in found:
                    group.add(process.pid)
                group.write("pids.max", "1")
                assert int(group.read("pids.current")) > 1
                found[0].id.send(9)

            return _suffer(tmp_path / "state", _orders(tmp_path), starve)

    assert trial.in_child(act) == []


@pytest.mark.parametrize(
    ("fault", "params"),
    [
        ("network.partition", {"interface": "lo", "direction": "both"}),
        ("network.loss", {"interface": "lo", "percent": "100%", "direction": "both"}),
        ("network.down", {"interface": "lo"}),
    ],
)
def test_the_network_is_cut(fault: str, params: dict[str, Any], tmp_path: Path) -> None:
    order = Order(fault, params, Duration.parse("1500ms"))
    assert trial.in_child(lambda: _suffer(tmp_path / "state", [order])) == []


def _second_kernel() -> bool:
    """Whether this machine's clock is ours to set: only in the second kernel."""
    return "GUEST_BOOT" in os.environ


@pytest.mark.skipif(not _second_kernel(), reason="the clock is set in the second kernel only")
@pytest.mark.parametrize("days", [1, -1])
def test_the_clock_is_stepped(days: int, tmp_path: Path) -> None:
    def step(_: Injector) -> None:
        now = time.time()
        subprocess.run(["date", "-s", f"@{now + days * 86400:.0f}"], check=True)

    try:
        assert trial.in_child(lambda: _suffer(tmp_path / "state", _orders(tmp_path), step)) == []
    finally:
        subprocess.run(["date", "-s", f"@{time.time() - days * 86400:.0f}"], check=True)
