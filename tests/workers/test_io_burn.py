"""Disk traffic: what the device itself counted."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.kernel import blockio, filesystem
from faultline.kernel.blockio import Device

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]
Start = Callable[..., Any]
KIB = 1 << 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Device]]:
    """A folder on a disk of its own."""
    image, point = tmp_path / "disk.img", tmp_path / "mnt"
    with image.open("wb") as file:
        file.truncate(96 << 20)
    point.mkdir()
    made = subprocess.run(
        ["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    node = made.stdout.strip()
    subprocess.run(["mkfs.ext4", "-q", node], check=True)
    subprocess.run(["mount", "-t", "ext4", node, str(point)], check=True)
    yield point, Device.find(node)
    subprocess.run(["umount", str(point)], check=True)
    subprocess.run(["losetup", "--detach", node], check=True)


@pytest.mark.parametrize(("mode", "jobs"), [("read", 1), ("write", 1), ("write", 3)])
def test_the_device_counts_what_the_worker_counts(
    disk: tuple[Path, Device], worker: Start, mode: str, jobs: int
) -> None:
    folder, device = disk
    order = {"mode": mode, "folder": str(folder), "block": 64 * KIB, "size": 16 << 20}
    run = worker("io_burn", {**order, "jobs": jobs})
    assert run.ready["requests"] > 0
    first = run.wait_for(lambda f: f["seconds"] > 0.5)
    before = blockio.disk_use(device).transfers
    last = run.wait_for(lambda f: f["seconds"] > first["seconds"] + 1.5)
    moved = blockio.disk_use(device).transfers - before
    size = moved.read_bytes if mode == "read" else moved.written_bytes
    other = moved.written_bytes if mode == "read" else moved.read_bytes
    # The published figures are up to a second old.
    rate = last["rate"]
    assert size > 0.3 * (last["bytes"] - first["bytes"])
    assert other < 0.1 * size + (1 << 20)
    assert rate > 0
    assert last["file"] == 16 << 20
    assert len(run.children()) == jobs
    run.end()
    assert run.wait_gone()
    assert [each.name for each in folder.iterdir()] == ["lost+found"]


def test_the_file_has_no_name_and_its_space_comes_back(
    disk: tuple[Path, Device], worker: Start
) -> None:
    folder, _ = disk
    before = filesystem.space(str(folder)).used
    order = {"mode": "write", "folder": str(folder), "block": 64 * KIB, "size": 16 << 20}
    run = worker("io_burn", order)
    assert run.ready
    assert [each.name for each in folder.iterdir()] == ["lost+found"]
    time.sleep(0.5)
    assert filesystem.space(str(folder)).used > before
    run.end(9)  # SIGKILL: nothing of ours runs any more
    assert run.wait_gone()
    until = time.monotonic() + 10
    while filesystem.space(str(folder)).used > before and time.monotonic() < until:
        time.sleep(0.05)
    assert filesystem.space(str(folder)).used == before


def test_the_file_never_fills_the_disk(disk: tuple[Path, Device], worker: Start) -> None:
    folder, _ = disk
    available = filesystem.space(str(folder)).available
    order = {"mode": "write", "folder": str(folder), "block": 64 * KIB, "size": 1 << 40}
    run = worker("io_burn", order)
    assert run.ready["file"] <= available / 2


def test_a_folder_in_memory_is_refused(worker: Start) -> None:
    order = {"mode": "read", "folder": "/dev/shm", "block": 64 * KIB, "size": 1 << 20}
    run = worker("io_burn", order)
    assert run.answer["error"].startswith("Unsupported: the tmpfs file system of /dev/shm")
