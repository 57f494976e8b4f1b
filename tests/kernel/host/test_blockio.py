"""Block devices: their counters and limits, on a loop device that nobody else uses."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.errors import InvalidParameter, Unsupported
from faultline.kernel import blockio, cgroup, procfs
from faultline.kernel.blockio import UNLIMITED, Device, IoLimits
from faultline.kernel.cgroup import Group

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]
Disk = tuple[Path, Device]
Make = Callable[[str], Group]
BLOCK = 64 << 10


def _io_controller() -> str:
    return "io" if "io" in cgroup.layout().controllers() else "blkio"


def _write(node: Path, blocks: int, group: Group) -> int:
    """A child in the group that writes directly to the device; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            group.add(os.getpid())
            fd = os.open(node, os.O_RDWR | os.O_DIRECT)
            buffer = mmap.mmap(-1, BLOCK)
            for number in range(blocks):
                os.pwrite(fd, buffer, number * BLOCK)
            status = 0
        finally:
            os._exit(status)
    return pid


def _seconds(node: Path, blocks: int, group: Group) -> float:
    begin = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(_write(node, blocks, group), 0)[1]) == 0
    return time.monotonic() - begin


def test_a_device_is_found_by_number_name_and_node(disk: Disk) -> None:
    node, device = disk
    assert Device.find(str(device)) == Device.find(node.name) == device
    assert device.name == node.name
    assert device.disk() == device
    assert device in blockio.devices()


@pytest.mark.parametrize("text", ["8", "8:x", "999:999", "/dev/null", "/dev/absent", "../etc"])
def test_what_is_no_block_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="device"):
        Device.find(text)


def test_a_partition_leads_to_its_disk(disk: Disk) -> None:
    node, device = disk
    # A table by hand: one Linux partition of 1,000 sectors behind the first 2,048.
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 1000)
    node.write_bytes(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    subprocess.run(["partx", "--add", str(node)], check=False, capture_output=True)
    parts = [each for each in blockio.devices() if each.name == f"{node.name}p1"]
    if not parts:
        pytest.skip("loop devices have no partitions here")
    try:
        assert parts[0] != device
        assert parts[0].disk() == device
    finally:
        subprocess.run(["partx", "--delete", str(node)], check=True)


def test_a_file_system_in_memory_has_no_device() -> None:
    with pytest.raises(Unsupported, match="without a block device"):
        Device.of_path("/proc")


def test_transfers_are_counted_for_device_and_group(disk: Disk, scratch_group: Make) -> None:
    node, device = disk
    group = scratch_group(_io_controller())
    if group.version == 1:  # counts only devices that it has a rule for
        blockio.write_limits(group, device, IoLimits(writes=1 << 30))
    before, mine = blockio.disk_use(device), blockio.group_transfers(group, device)
    _seconds(node, 16, group)
    after = blockio.disk_use(device)
    moved = after.transfers - before.transfers
    assert (moved.written_bytes, moved.writes) == (16 * BLOCK, 16)
    own = blockio.group_transfers(group, device) - mine
    assert (own.written_bytes, own.read_bytes) == (16 * BLOCK, 0)
    assert after.in_flight == 0


def test_a_device_that_is_gone_has_no_counters() -> None:
    with pytest.raises(FileNotFoundError):
        blockio.disk_use(Device(999, 999))


def test_a_rate_limit_holds_and_is_lifted(disk: Disk, scratch_group: Make) -> None:
    """1 MiB at 1 MiB/s takes about a second; the limit read back is the limit set."""
    node, device = disk
    group = scratch_group(_io_controller())
    free = _seconds(node, 16, group)
    limits = IoLimits(write_bytes=1 << 20)
    blockio.write_limits(group, device, limits)
    assert blockio.read_limits(group, device) == limits
    limited = _seconds(node, 16, group)
    assert limited > 0.7
    assert limited > 3 * free or free > 0.3
    assert blockio.swap_limits(group, device, UNLIMITED, IoLimits(reads=5)) == limits
    assert blockio.swap_limits(group, device, limits, UNLIMITED) is None
    assert not blockio.read_limits(group, device)
    assert _seconds(node, 16, group) < limited


def test_all_four_limits_are_kept_apart(disk: Disk, scratch_group: Make) -> None:
    _, device = disk
    group = scratch_group(_io_controller())
    limits = IoLimits(1 << 20, 2 << 20, 30, 40)
    blockio.write_limits(group, device, limits)
    assert blockio.read_limits(group, device) == limits
    blockio.write_limits(group, device, IoLimits(reads=30))
    assert blockio.read_limits(group, device) == IoLimits(reads=30)
    blockio.write_limits(group, device, UNLIMITED)
    assert blockio.read_limits(group, device) == UNLIMITED


def test_lifting_frees_a_hung_task_that_moving_does_not(disk: Disk, scratch_group: Make) -> None:
    node, device = disk
    group = scratch_group(_io_controller())
    home = cgroup.layout().group_of(os.getpid(), _io_controller())
    blockio.write_limits(group, device, IoLimits(write_bytes=1, writes=1 << 20))
    pid = _write(node, 4, group)
    try:
        _until(lambda: procfs.process(pid).state == "D")
        group.evacuate(home)
        time.sleep(0.3)
        assert procfs.process(pid).state == "D"
        blockio.write_limits(group, device, UNLIMITED)
        _until(lambda: procfs.process(pid).state == "Z")
    finally:
        blockio.write_limits(group, device, UNLIMITED)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_device_that_is_gone_takes_no_limit(scratch_group: Make) -> None:
    group = scratch_group(_io_controller())
    with pytest.raises(OSError, match="999:999"):
        blockio.write_limits(group, Device(999, 999), IoLimits(reads=1))


def test_the_group_of_a_process_for_block_io_is_found() -> None:
    group = blockio.io_group(cgroup.layout(), os.getpid())
    assert os.getpid() in group.pids()
