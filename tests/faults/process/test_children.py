"""Too many processes: bounded, held by the limits of the place, and all gone afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.changes.model import End
from faultline.errors import Protected
from faultline.injection import scratch, task_room, trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, cgroup_limits, procfs
from faultline.places.find import Target
from faultline.units import Duration


def order(fault: str, duration: str = "30s", pid: int = 0, **params: object) -> Order:
    return Order(fault, params, Duration.parse(duration), target=Target(pid=pid))


def ours(uid: str) -> list[procfs.Process]:
    return procfs.find_marked(f"faultline:{uid}")


def zombies(uid: str) -> int:
    parents = {each.pid for each in ours(uid)}
    return sum(each.ppid in parents and each.state == "Z" for each in procfs.processes())


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_a_storm_reaches_its_number_and_leaves_nobody(injector):
    record = injector.inject(order("process.fork", count=40))
    reading = injector.observe(record.uid)
    assert (reading.effect, reading.values["measured"]) == (Effect.EFFECTIVE, 40)
    assert len(ours(record.uid)) == 41
    assert injector.recover(record.uid).end is End.RECOVERED
    assert ours(record.uid) == []


def test_children_come_and_go_at_a_pace(injector):
    record = injector.inject(order("process.fork", count=200, interval="50ms", lifetime="1s"))
    parent = next(each.pid for each in ours(record.uid) if each.name == "fl-breed")
    until(lambda: procfs.children(parent))
    first = {each.id for each in procfs.children(parent)}
    until(lambda: not any(each.alive() for each in first))
    until(lambda: {each.id for each in procfs.children(parent)} - first)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


def test_zombies_are_waited_for_at_the_end(injector):
    record = injector.inject(order("process.zombie", "4s", count=50))
    reading = injector.observe(record.uid)
    assert (reading.effect, zombies(record.uid)) == (Effect.EFFECTIVE, 50)
    parent = ours(record.uid)[0]
    until(lambda: not parent.id.alive())
    assert not any(each.ppid == parent.pid for each in procfs.processes())


def test_a_parent_that_is_killed_takes_its_children_along(injector):
    record = injector.inject(order("process.fork", count=20))
    parent = next(p for p in ours(record.uid) if p.name == "fl-breed")
    parent.id.send(9)
    until(lambda: ours(record.uid) == [])
    reading = injector.observe(record.uid)
    assert (reading.effect, reading.reason) == (Effect.INEFFECTIVE, "our processes have ended")


def test_a_host_keeps_room_for_others_unless_that_is_allowed(injector, monkeypatch):
    monkeypatch.setattr(task_room, "SPARE", 10**6)
    with pytest.raises(Protected, match="room for") as refused:
        injector.plan(order("process.fork", count=10))
    assert "--allow host-tasks" in refused.value.hint


def _in_capsule(folder: Path) -> list[object]:
    with scratch.capsule(folder) as inside, Injector(folder.parent / "store") as injector:
        group = cgroup.layout().group_of(inside.pid, "pids")
        group.write("pids.max", str(cgroup_limits.pids_current(group) + 15))
        record = injector.inject(order("process.fork", pid=inside.pid, count=50))
        reading = injector.observe(record.uid)
        there = cgroup_limits.pids_current(group)
        ended = injector.recover(record.uid)
        keepers.retire(injector.store)
        until(lambda: cgroup_limits.pids_current(group) == 2)
        return [str(reading.effect), reading.measured, there, str(ended.end)]


@pytest.mark.needs_root
@pytest.mark.both_kernels
@pytest.mark.slow
def test_the_limit_of_a_container_holds_and_is_read(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    effect, measured, there, end = trial.in_child(lambda: _in_capsule(root))
    assert (effect, end) == ("effective", "recovered")
    assert "refused" in measured
    assert there == 17
