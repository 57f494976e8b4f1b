"""The residue check sees what it is there to see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.kernel import netns
from faultline.kernel.cgroup import Group, layout
from faultline.testing.residue import difference, snapshot, wait_clean

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]


@pytest.fixture
def inside() -> Iterator[None]:
    """A network namespace of its own, for this thread."""
    fd = netns.create()
    try:
        with netns.entered(fd):
            yield
    finally:
        os.close(fd)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _ours(lines: list[str]) -> list[str]:
    """Without what other work on the machine does meanwhile, which carries marks of its own."""
    return [line for line in lines if "faultline" not in line and "process: " not in line]


def _pids(lines: list[str]) -> set[str]:
    return {line.split()[2] for line in lines if "process: " in line}


def test_two_looks_at_an_untouched_machine_are_equal() -> None:
    before = snapshot(folders=[Path("/etc")])
    assert _ours(wait_clean(before, folders=[Path("/etc")], seconds=2)) == []


@pytest.mark.parametrize(
    ("area", "make", "undo"),
    [
        ("link", "ip link add fl0 type veth peer name fl1", "ip link del fl0"),
        ("link", "ip link set lo mtu 9000", "ip link set lo mtu 65536"),
        ("address", "ip address add 127.1.2.3/32 dev lo", "ip address del 127.1.2.3/32 dev lo"),
        ("route", "ip route add 10.9.0.0/16 dev lo", "ip route del 10.9.0.0/16 dev lo"),
        ("qdisc", "tc qdisc add dev lo clsact", "tc qdisc del dev lo clsact"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_a_change_of_the_network_is_seen_until_it_is_undone(
    area: str, make: str, undo: str
) -> None:
    _run("ip", "link", "set", "lo", "up")
    before = snapshot()
    _run(*make.split(" "))
    seen = difference(before, snapshot())
    assert any(line[2:].startswith(f"{area}: ") for line in seen), seen
    _run(*undo.split(" "))
    assert _ours(wait_clean(before, seconds=2)) == []


@pytest.mark.usefixtures("inside")
def test_a_sysctl_of_this_namespace_is_seen() -> None:
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    other = "0" if switch.read_text().strip() == "1" else "1"  # a new namespace has the host's
    before = snapshot()
    switch.write_text(other)
    assert f"+ sysctl: net/ipv4/ip_forward = '{other}'" in difference(before, snapshot())


@pytest.mark.usefixtures("inside")
def test_a_class_and_a_filter_are_seen() -> None:
    _run("tc", "qdisc", "add", "dev", "lo", "clsact")
    _run("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb")
    before = snapshot()
    _run(
        *("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:1"),
        "htb",
        "rate",
        "1mbit",
    )
    shaped = snapshot()
    assert [line for line in difference(before, shaped) if "class htb" in line]
    _run(*("tc", "filter", "add", "dev", "lo", "egress"), *("u32", "match", "u32", "0", "0"))
    assert [line for line in difference(shaped, snapshot()) if "filter: lo u32" in line]


def test_a_control_group_and_its_limit_are_seen() -> None:
    group: Group = layout().root("pids").child(f"residue-test-{os.getpid()}")
    before = snapshot()
    group.folder.mkdir()
    try:
        made = snapshot()
        assert any("residue-test" in line for line in difference(before, made))
        group.write("pids.max", "77")
        assert any("'77'" in line for line in difference(made, snapshot()))
    finally:
        group.folder.rmdir()
    assert _ours(wait_clean(before, seconds=2)) == []


def test_a_process_with_our_mark_or_our_variable_is_seen_until_it_ends() -> None:
    before = snapshot(environment=("RESIDUE_TEST", "x"))
    wait = [sys.executable, "-c", "input()"]
    marked = subprocess.Popen([*wait, "faultline:u1:0"], stdin=subprocess.PIPE)
    another = {"RESIDUE_TEST": "y"}
    theirs = subprocess.Popen([*wait, "faultline:u2:0"], stdin=subprocess.PIPE, env=another)
    named = subprocess.Popen(wait, stdin=subprocess.PIPE, env={"RESIDUE_TEST": "x"})
    seen = difference(before, snapshot(environment=("RESIDUE_TEST", "x")))
    assert {str(marked.pid), str(named.pid)} <= _pids(seen)
    assert str(theirs.pid) not in _pids(seen)
    for process in (marked, named, theirs):
        process.communicate(b"\n")
    left = wait_clean(before, environment=("RESIDUE_TEST", "x"), seconds=2)
    assert not {str(marked.pid), str(named.pid)} & _pids(left)


def test_a_marked_file_and_a_mount_are_seen(tmp_path: Path) -> None:
    before = snapshot(folders=[tmp_path])
    (tmp_path / "deep").mkdir()
    backup = tmp_path / "deep" / ".faultline-u1-0.backup"
    backup.write_text("")
    assert f"+ file: {backup}" in difference(before, snapshot(folders=[tmp_path]))
    _run("mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "deep"))
    try:
        assert any(
            f"mount: {tmp_path}/deep tmpfs" in line for line in difference(before, snapshot())
        )
    finally:
        _run("umount", str(tmp_path / "deep"))
    backup.unlink()
    left = wait_clean(before, folders=[tmp_path], seconds=2)
    assert not [line for line in left if str(tmp_path) in line]
