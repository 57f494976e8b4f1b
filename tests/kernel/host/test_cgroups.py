"""Control groups of whichever version is mounted, and of the layouts that are not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.errors import Unsupported
from faultline.kernel import cgroup, cgroup_limits, mounts
from faultline.kernel.cgroup import Group, Hierarchy, Layout, Mode

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]
Make = Callable[[str], Group]


def _sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_mode_is_what_the_mount_table_says() -> None:
    table = Path("/proc/self/mountinfo").read_text()
    expected = {
        (True, True): Mode.HYBRID,
        (True, False): Mode.V1,
        (False, True): Mode.V2,
        (False, False): Mode.NONE,
    }[(any(f" - cgroup {x}" in table for x in ("cgroup", "none")), " - cgroup2 " in table)]
    assert cgroup.layout().mode is expected


def test_each_controller_has_the_group_that_the_kernel_names() -> None:
    layout = cgroup.layout()
    for controller in layout.controllers():
        group = layout.group_of(os.getpid(), controller)
        assert group.exists()
        assert os.getpid() in group.pids()


def test_a_controller_that_is_not_mounted_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="nonsense"):
        cgroup.layout().hierarchy("nonsense")


def test_a_process_is_moved_and_the_group_removed(scratch_group: Make) -> None:
    group = scratch_group("pids")
    home = cgroup.layout().group_of(os.getpid(), "pids")
    pid = _sleeper()
    try:
        group.add(pid)
        assert group.pids() == [pid]
        assert cgroup.layout().group_of(pid, "pids") == group
        with pytest.raises(OSError, match="busy"):
            group.remove()
        assert group.evacuate(home) == [pid]
        assert group.pids() == []
        assert cgroup.layout().group_of(pid, "pids") == home
    finally:
        _end(pid)
    group.remove()
    assert not group.exists()
    group.remove()  # once more is as good as once


def test_a_value_is_only_swapped_when_it_is_still_the_expected_one(scratch_group: Make) -> None:
    group = scratch_group("pids")
    assert group.swap("pids.max", "max", "100") is None
    assert group.swap("pids.max", "max", "200") == "100"
    assert group.read("pids.max") == "100"
    assert group.swap("pids.max", "100", "max") is None
    assert group.read("pids.max") == "max"


def test_a_refused_value_raises_and_names_the_file(scratch_group: Make) -> None:
    group = scratch_group("pids")
    with pytest.raises(OSError, match="many") as caught:
        group.write("pids.max", "many")
    assert str(caught.value.filename).endswith("pids.max")


def test_marked_groups_are_found_by_their_names(scratch_group: Make) -> None:
    group = scratch_group("memory")
    name = Path(group.path).name
    uid, step = cgroup.read_group_name(name) or ("", -1)
    assert (uid, step) == (f"t{os.getpid()}", 0)
    assert group in cgroup.layout().find_marked()
    assert cgroup.layout().find_marked(name) == [group]
    assert cgroup.read_group_name("user.slice") is None


def test_the_quota_is_the_tightest_on_the_way_up(scratch_group: Make) -> None:
    group = scratch_group("cpu")
    assert cgroup_limits.cpu_quota(group) is None
    _set_quota(group, 50_000)
    child = group.child("inner")
    child.create()
    try:
        child.enable("cpu")
        assert cgroup_limits.own_cpu_quota(child) is None
        quota = cgroup_limits.cpu_quota(child)
        assert quota
        assert quota.cores == 0.5
        _set_quota(child, 20_000)
        tighter = cgroup_limits.cpu_quota(child)
        assert tighter
        assert tighter.cores == 0.2
    finally:
        child.remove()


def _set_quota(group: Group, microseconds: int) -> None:
    if group.version == 2:
        group.write("cpu.max", f"{microseconds} 100000")
    else:
        group.write("cpu.cfs_period_us", "100000")
        group.write("cpu.cfs_quota_us", str(microseconds))


def test_processor_time_of_a_group_is_counted(scratch_group: Make) -> None:
    layout = cgroup.layout()
    group = scratch_group("cpuacct" if "cpuacct" in layout.controllers() else "cpu")
    pid = os.fork()
    if pid == 0:
        group.add(os.getpid())
        while time.thread_time() < 0.3:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
    assert 0.2e9 < cgroup_limits.cpu_usage(group) < 0.6e9  # some kernels count in ticks


def test_memory_of_a_group_is_counted_and_limited(scratch_group: Make) -> None:
    group = scratch_group("memory")
    assert cgroup_limits.memory_limit(group) is None
    assert cgroup_limits.memory_use(group) is None
    limit = 64 << 20
    group.write("memory.max" if group.version == 2 else "memory.limit_in_bytes", str(limit))
    assert cgroup_limits.memory_limit(group) == (limit, group)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        group.add(os.getpid())
        held = bytearray(os.urandom(16 << 20))
        os.write(writer, b"x")
        time.sleep(60)
        os._exit(len(held) % 2)
    os.read(reader, 1)
    use = cgroup_limits.memory_use(group)
    _end(pid)
    os.close(reader)
    os.close(writer)
    assert use
    assert use.total == limit
    assert 16 << 20 <= use.used <= 48 << 20  # the suite forks with what it has loaded
    assert use.percent == pytest.approx(100 * use.used / limit)


def test_a_container_that_sees_a_part_of_the_tree_finds_its_folder() -> None:
    part = Hierarchy(1, "/sys/fs/cgroup/memory", "/docker/c1", frozenset({"memory"}), True)
    assert part.folder("/docker/c1") == "/sys/fs/cgroup/memory"
    assert part.folder("/docker/c1/app") == "/sys/fs/cgroup/memory/app"
    for outside in ("/docker/c12", "/docker", "/"):
        with pytest.raises(Unsupported):
            part.folder(outside)
    whole = Hierarchy(2, "/sys/fs/cgroup", "/", frozenset(), True)
    with pytest.raises(Unsupported):
        whole.folder("/../sibling")


def test_an_unmounted_host_has_no_mode() -> None:
    assert Layout(()).mode is Mode.NONE
    with pytest.raises(Unsupported):
        Layout(()).hierarchy("cpu")


def test_mount_lines_with_blanks_and_optional_fields_are_read() -> None:
    line = "36 35 98:0 /a\\040b /mnt/c\\134d rw,noatime shared:1 master:2 - ext3 /dev/root rw,x=y"
    (mount,) = mounts.parse_mountinfo(line)
    assert (mount.root, mount.point, mount.type) == ("/a b", "/mnt/c\\d", "ext3")
    assert (mount.device, mount.source) == ((98, 0), "/dev/root")
    assert mount.super_options == {"rw", "x=y"}


def test_the_mount_of_a_path_has_its_device(tmp_path: Path) -> None:
    assert mounts.mount_of("/proc/self/status").type == "proc"
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert mounts.mount_of(link).type == "proc"
    with pytest.raises(FileNotFoundError):
        mounts.mount_of(tmp_path / "absent")
