"""Memory of a target: charged to it, its limit cut, its cache dropped; swap of the host."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers, undo
from faultline.changes.kind import Context, kinds
from faultline.changes.model import End, Step, Undone, mark
from faultline.errors import Protected, Refused, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, cgroup_limits, filesystem, memory, procfs, swap
from faultline.places.find import Target
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

MIB = 1 << 20
LITTLE = {"memory__max": str(192 * MIB), "memory__limit_in_bytes": str(192 * MIB)}
HOLD = f"held = bytearray({40 * MIB})"
SECOND = "memory" in [
    name for h in cgroup.layout().hierarchies if h.version == 2 for name in h.controllers
]


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


def order(fault: str, target: Target, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration), target=target)


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def charged(place: Any) -> int:
    return cgroup_limits.memory_charge(place.top("memory"))


# ----------------------------------------------------------------------------------------- fill


def test_a_fill_of_a_place_with_a_limit_is_a_share_of_it_and_charged_to_it(injector, grouped):
    place = grouped(**LITTLE)
    record = injector.inject(order("memory.fill", Target(pid=place.pid), percent="50%"))
    assert charged(place) == pytest.approx(96 * MIB, rel=0.1)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert "192MiB of the target's control group" in reading.asked
    ours = {each.pid for each in procfs.find_marked(mark(record.uid, 0))}
    assert len(ours & set(place.inner("memory").pids())) == 1  # whoever watches stays outside
    assert injector.recover(record.uid).end is End.RECOVERED
    until(lambda: charged(place) < 20 * MIB)


def test_without_a_limit_the_share_is_of_the_host(injector, grouped):
    place = grouped()
    plan = injector.plan(order("memory.fill", Target(pid=place.pid), bytes="20MiB"))
    assert "group" not in plan.changes[0].spec["spec"]
    assert str(place.inner("memory").folder) in plan.changes[0].spec["spec"]["join"]
    with pytest.raises(Unsupported, match="no memory limit"):
        injector.plan(order("memory.fill", Target(pid=place.pid), percent="50%", of="group"))


def test_a_target_with_a_limit_is_not_the_host(injector, grouped):
    place = grouped(**LITTLE)
    with pytest.raises(Refused, match="within"):
        injector.plan(order("memory.fill", Target(pid=place.pid), percent="50%", of="host"))


def test_a_limit_beyond_what_there_is_protects_nobody(injector, grouped):
    huge = str(memory.host_memory().total + (64 << 30))
    place = grouped(memory__max=huge, memory__limit_in_bytes=huge)
    with pytest.raises(Protected, match="host"):
        injector.plan(order("memory.oom", Target(pid=place.pid)))
    with pytest.raises(Protected, match="host"):
        injector.plan(order("memory.fill", Target(pid=place.pid), percent="99%"))


def test_the_kernel_kills_within_the_target(injector, grouped):
    place = grouped(HOLD, **LITTLE)
    before = memory.host_memory().available
    record = injector.inject(order("memory.oom", Target(pid=place.pid)))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert before - memory.host_memory().available < 2 * 192 * MIB
    assert injector.recover(record.uid).end in (End.RECOVERED, End.GONE)


# -------------------------------------------------------------------------------------- squeeze


def test_a_limit_is_cut_and_put_back(injector, grouped):
    place = grouped(HOLD, **LITTLE)
    until(lambda: charged(place) > 40 * MIB)
    record = injector.inject(order("memory.squeeze", place.target, percent="50%", of="limit"))
    assert cgroup_limits.own_memory_limit(place.top("memory")) == 96 * MIB
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert place.process.poll() is None
    assert injector.recover(record.uid).end is End.RECOVERED
    assert cgroup_limits.own_memory_limit(place.top("memory")) == 192 * MIB


GROW = f"""
held = bytearray({40 * MIB})
time.sleep(2)
more = bytearray({80 * MIB})
"""


def test_whoever_asks_for_more_than_the_new_limit_is_killed_and_counted(injector, grouped):
    place = grouped(GROW, **LITTLE)
    until(lambda: charged(place) > 40 * MIB)
    record = injector.inject(order("memory.squeeze", place.target, bytes="64MiB"))
    assert place.process.wait(20) == -9
    reading = injector.observe(record.uid)
    assert reading.values["killed"] == 1
    assert reading.values["met"] > 0
    assert reading.effect is Effect.EFFECTIVE
    injector.recover(record.uid)
    assert cgroup_limits.own_memory_limit(place.top("memory")) == 192 * MIB


CACHE = """
with open(PATH, "rb") as file:
    while file.read(1 << 20): pass
"""


def _file(folder: Path, size: int) -> Path:
    if filesystem.type_of(folder) == "tmpfs":
        pytest.skip("the folder for tests is in memory")
    path = folder / "file"
    path.write_bytes(os.urandom(size))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return path


def test_the_page_cache_goes_first(injector, grouped, tmp_path):
    path = _file(tmp_path, 48 * MIB)
    place = grouped(CACHE.replace("PATH", repr(str(path))))
    until(lambda: cgroup_limits.memory_file_cache(place.top("memory")) > 40 * MIB)
    record = injector.inject(order("memory.squeeze", place.target, bytes="24MiB"))
    assert charged(place) <= 26 * MIB
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert place.process.poll() is None
    assert injector.recover(record.uid).end is End.RECOVERED
    assert cgroup_limits.own_memory_limit(place.top("memory")) is None


def test_what_cannot_be_taken_back_is_not_cut_unless_it_is_meant(injector, grouped):
    place = grouped(HOLD, **LITTLE)
    until(lambda: charged(place) > 40 * MIB)
    with pytest.raises(Refused, match="would kill"):
        injector.plan(order("memory.squeeze", place.target, bytes="10MiB"))
    with pytest.raises(Refused, match="no less"):
        injector.plan(order("memory.squeeze", place.target, bytes="300MiB"))
    with pytest.raises((Refused, Protected)):  # the root group, or the one that we are in
        injector.plan(order("memory.squeeze", Target(pid=os.getpid()), bytes="1GiB"))
    if not SECOND:
        with pytest.raises(Unsupported, match="version 1"):
            injector.plan(order("memory.squeeze", place.target, bytes="100MiB", mode="soft"))
        return
    record = injector.inject(order("memory.squeeze", place.target, bytes="10MiB", oom=True))
    assert place.process.wait(20) == -9
    assert injector.observe(record.uid).values["killed"] >= 1


@pytest.mark.skipif(not SECOND, reason="version 1 has no such limit")
def test_a_soft_limit_slows_and_kills_nobody(injector, grouped):
    place = grouped(GROW, **LITTLE)
    until(lambda: charged(place) > 40 * MIB)
    record = injector.inject(order("memory.squeeze", place.target, bytes="48MiB", mode="soft"))
    assert place.top("memory").read("memory.high") == str(48 * MIB)
    time.sleep(3)
    reading = injector.observe(record.uid)
    assert reading.values["met"] > 0
    assert reading.values["killed"] == 0
    assert place.process.poll() is None
    assert injector.recover(record.uid).end is End.RECOVERED
    assert place.top("memory").read("memory.high") == "max"


# ---------------------------------------------------------------------------------------- cache


def test_the_cache_of_a_target_is_dropped_and_nothing_else(injector, grouped, tmp_path):
    path = _file(tmp_path, 32 * MIB)
    place = grouped(CACHE.replace("PATH", repr(str(path))) + HOLD)
    until(lambda: charged(place) > 70 * MIB)
    record = injector.inject(order("memory.cache", place.target))
    assert cgroup_limits.memory_file_cache(place.top("memory")) < 8 * MIB
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.values["before"] - reading.values["after"] > 24 * MIB
    assert charged(place) > 38 * MIB
    assert injector.recover(record.uid).end is End.RECOVERED


# ----------------------------------------------------------------------------------------- swap


@pytest.fixture
def swapped(tmp_path: Path) -> Iterator[list[str]]:
    """Two devices that are swapped to, with priorities of their own."""
    if swap.areas():
        pytest.skip("this machine has swap of its own")
    devices: list[str] = []
    try:
        for number, priority in enumerate((7, 3)):
            image = tmp_path / f"swap-{number}"
            image.write_bytes(bytes(16 * MIB))
            made = subprocess.run(
                ["losetup", "--find", "--show", str(image)],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                pytest.skip("no loop devices here")
            devices.append(made.stdout.strip())
            subprocess.run(["mkswap", "-q", devices[-1]], check=True, capture_output=True)
            subprocess.run(["swapon", "-p", str(priority), devices[-1]], check=True)
        yield devices
    finally:
        for device in devices:
            subprocess.run(["swapoff", device], check=False, capture_output=True)
            subprocess.run(["losetup", "--detach", device], check=False)


def _on() -> dict[str, int]:
    return {each.path: each.priority for each in swap.areas()}


def test_swap_is_turned_off_and_comes_back_as_it_was(injector, swapped):
    assert list(_on().values()) == [7, 3]
    record = injector.inject(Order("memory.swapoff", {}, Duration.parse("60s")))
    assert _on() == {}
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert list(_on().values()) == [7, 3]
    assert injector.residue(record.uid) == []


def test_swap_that_somebody_turned_on_meanwhile_is_left(injector, swapped):
    record = injector.inject(Order("memory.swapoff", {}, Duration.parse("60s")))
    subprocess.run(["swapon", "-p", "5", swapped[0]], check=True)
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert sorted(_on().values()) == [3, 5]


def test_what_is_no_swap_any_more_is_told_as_gone(injector, swapped):
    record = injector.inject(Order("memory.swapoff", {}, Duration.parse("60s")))
    for device in swapped:
        with open(device, "r+b") as file:
            file.write(bytes(8192))
    assert injector.recover(record.uid).end is End.GONE
    assert injector.residue(record.uid) == []


def test_the_keepers_turn_swap_on_at_the_deadline(injector, swapped):
    record = injector.inject(Order("memory.swapoff", {}, Duration.parse("2s")))
    assert _on() == {}
    until(lambda: injector.get(record.uid).end is End.RECOVERED)
    assert list(_on().values()) == [7, 3]


def test_a_scan_without_any_journal_turns_swap_on(injector, swapped):
    record = injector.inject(Order("memory.swapoff", {}, Duration.parse("60s")))
    found = [each for each in kinds()["swap_off"].scan(None, ()) if each.uid == record.uid]
    step = Step(found[0].change, prior=found[0].prior)
    assert undo.undo_step(step, Context(record.uid, found[0].index, 0)).end is Undone.UNDONE
    assert list(_on().values()) == [7, 3]


def test_without_swap_there_is_nothing_to_turn_off(injector):
    if swap.areas():
        pytest.skip("this machine has swap")
    with pytest.raises(Unsupported, match="no swap"):
        injector.plan(Order("memory.swapoff", {}))


def test_paths_with_blanks_are_read():
    text = "Filename Type Size Used Priority\n/a\\040b file 1024 4 -2\n"
    assert swap.parse(text) == [swap.Area("/a b", "file", MIB, 4096, -2)]
