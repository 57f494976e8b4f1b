"""Every worker ends on SIGTERM, at its deadline even when stopped, and with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import worker as worker_change
from faultline.errors import ApplyFailed
from faultline.kernel import clock, procfs
from faultline.workers import figures

pytestmark = pytest.mark.both_kernels
Start = Callable[..., Any]

ORDERS: dict[str, dict[str, Any]] = {
    "burn": {"percent": 10, "scope": "cores"},
    "load": {"count": 4},
    "fill_memory": {"kind": "anonymous", "bytes": 8 << 20},
    "io_burn": {"mode": "write", "block": 65536, "size": 1 << 20},
    "occupy": {"port": 47813, "transport": "tcp"},
    "breed": {"count": 5, "interval": 0, "lifetime": 0, "zombies": False},
    "hold_tasks": {"count": 5, "leave": 0},
    "hold_files": {"count": 50},
}


def _order(module: str, tmp_path: Path) -> dict[str, Any]:
    order = dict(ORDERS[module])
    if module == "io_burn":
        # Direct I/O needs a disk: the folder of the tests may be in memory.
        order["folder"] = _on_disk(tmp_path)
    return order


def _on_disk(tmp_path: Path) -> str:
    from faultline.kernel import filesystem

    if filesystem.type_of(tmp_path) == "tmpfs":
        pytest.skip("the folder for tests is in memory")
    return str(tmp_path)


@pytest.mark.parametrize("module", list(ORDERS))
def test_sigterm_ends_all_of_it(worker: Start, tmp_path: Path, module: str) -> None:
    run = worker(module, _order(module, tmp_path))
    assert run.ready
    assert len(run.processes()) >= 1
    run.end()
    assert run.wait_gone()
    assert [each.name for each in tmp_path.iterdir()] == [Path(run.stats).name]


@pytest.mark.parametrize("module", list(ORDERS))
def test_a_stopped_worker_ends_at_its_deadline(worker: Start, tmp_path: Path, module: str) -> None:
    run = worker(module, _order(module, tmp_path), seconds=4)
    assert run.ready
    run.end(signal.SIGSTOP)
    assert run.processes()
    clock.sleep_until(run.deadline)
    assert run.wait_gone(5)
    assert clock.now() >= run.deadline


@pytest.mark.parametrize("module", ["burn", "load", "fill_memory", "io_burn"])
def test_children_end_with_their_parent(worker: Start, tmp_path: Path, module: str) -> None:
    run = worker(module, _order(module, tmp_path))
    assert run.ready
    assert run.children()
    run.parent().id.send(signal.SIGKILL)
    assert run.wait_gone()
    assert [each.name for each in tmp_path.iterdir()] == [Path(run.stats).name]


@pytest.mark.parametrize(
    ("module", "change", "field"),
    [
        ("burn", {"percent": 0}, "percent"),
        ("burn", {"percent": 101}, "percent"),
        ("burn", {"cores": [4000]}, "cores"),
        ("load", {"count": 0}, "count"),
        ("load", {"count": 5000}, "count"),
        ("fill_memory", {"bytes": 5}, "bytes"),
        ("fill_memory", {"percent": 5}, "percent"),
        ("fill_memory", {"kind": "swap"}, "kind"),
        ("io_burn", {"block": 1000}, "block"),
        ("io_burn", {"mode": "erase"}, "mode"),
        ("io_burn", {"jobs": 0}, "jobs"),
        ("occupy", {"port": 70000}, "port"),
        ("occupy", {"transport": "sctp"}, "transport"),
    ],
)
def test_an_order_out_of_bounds_is_refused_by_name(
    worker: Start, tmp_path: Path, module: str, change: dict[str, Any], field: str
) -> None:
    order = {**ORDERS[module], "folder": str(tmp_path), **change}
    run = worker(module, order)
    assert run.answer["error"].startswith(f"InvalidParameter: {field}:")
    assert run.wait_gone()


def test_figures_are_read_whole_while_they_are_written(tmp_path: Path) -> None:
    path = str(tmp_path / "figures")
    assert figures.read(path) is None
    writer = figures.Figures(path)
    assert figures.read(path) is None
    pid = os.fork()
    if pid == 0:
        number = 0
        while True:
            number += 1
            writer.publish({"n": number, "text": str(number) * 50})
    try:
        seen = 0
        until = time.monotonic() + 1
        while time.monotonic() < until:
            found = figures.read(path)
            if found:
                assert found["text"] == str(found["n"]) * 50
                seen += 1
        assert seen > 10
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_figures_beyond_their_room_are_refused(tmp_path: Path) -> None:
    writer = figures.Figures(str(tmp_path / "figures"))
    with pytest.raises(ValueError, match="fit"):
        writer.publish({"text": "x" * 20000})
    writer.publish({"ok": 1})
    assert figures.read(str(tmp_path / "figures")) == {"ok": 1}


@pytest.mark.parametrize("module", ["burn", "load", "fill_memory", "io_burn"])
def test_all_of_it_ends_with_its_target(worker: Start, tmp_path: Path, module: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        target = procfs.ProcessId.of(sleeper.pid)
        known = {"pid": target.pid, "start": target.start}
        run = worker(module, _order(module, tmp_path), target=known)
        assert run.ready
        assert run.processes()
        sleeper.kill()
        assert run.wait_gone(5)
    late = worker(module, _order(module, tmp_path), target=known)
    assert "has ended" in late.answer["error"]


def test_a_duration_that_is_over_before_the_worker_is_there_is_told_so(tmp_path: Path) -> None:
    """The kernel ends it at its deadline, so it can say nothing itself."""
    soon = clock.now() + 10_000_000
    order = {"module": "load", "deadline": soon, "spec": {"deadline": soon, "count": 4}}
    code = str(Path(worker_change.__file__).parents[2])
    with pytest.raises(ApplyFailed, match="duration was over before worker load") as refused:
        worker_change.start(code, "faultline:late:0", order, 10.0)
    assert "longer" in refused.value.hint
