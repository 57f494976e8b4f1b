"""Processor time of a target: charged to it, held against its quota, and cut."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, State, mark
from faultline.errors import Conflict, InvalidParameter, Protected, Refused, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, cgroup_limits, procfs
from faultline.kernel.cgroup import Group
from faultline.places.find import Target
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels, pytest.mark.quiet]

HALF = {"cpu__max": "50000 100000", "cpu__cfs_quota_us": "50000"}
SPIN = "while True: pass"


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


def counter(place: Any) -> Group:
    """The group that counts the processor time of a whole place."""
    second = "cpuacct" not in cgroup.layout().controllers()
    return place.top("cpu" if second else "cpuacct")


def cores_used(group: Group, seconds: float) -> float:
    before, begin = cgroup_limits.cpu_usage(group), time.monotonic()
    time.sleep(seconds)
    return (cgroup_limits.cpu_usage(group) - before) / 1e9 / (time.monotonic() - begin)


# ---------------------------------------------------------------------------------------- loads


@pytest.mark.slow
def test_a_burn_of_a_place_with_a_quota_is_a_share_of_it_and_charged_to_it(injector, grouped):
    place = grouped(**HALF)
    record = injector.inject(order("cpu.burn", Target(pid=place.pid), percent="40%"))
    spec = record.steps[0].change.spec
    assert "40% of 0.5 cores" in spec["what"]
    time.sleep(1)
    assert cores_used(counter(place), 2.0) == pytest.approx(0.2, abs=0.06)
    inside = place.inner("cpu").pids()
    ours = {each.pid for each in procfs.find_marked(mark(record.uid, 0))}
    assert ours & set(inside)
    reading = injector.observe(record.uid)
    assert "of the quota of the target's control group" in reading.asked
    assert injector.recover(record.uid).end is End.RECOVERED
    until(lambda: set(place.inner("cpu").pids()) == {place.pid})


def test_without_a_quota_it_is_a_share_of_a_core_and_still_charged_to_the_target(injector, grouped):
    place = grouped()
    plan = injector.plan(order("cpu.burn", Target(pid=place.pid), percent="10%"))
    assert plan.changes[0].spec["spec"]["scope"] == "cores"
    assert str(place.inner("cpu").folder) in plan.changes[0].spec["spec"]["join"]
    with pytest.raises(Unsupported, match="quota"):
        injector.plan(order("cpu.burn", Target(pid=place.pid), percent="10%", of="group"))


@pytest.mark.parametrize(("fault", "params"), [("cpu.load", {"count": 6}), ("cpu.switch", {})])
def test_tasks_stand_in_the_groups_of_the_target(injector, grouped, fault, params):
    place = grouped()
    record = injector.inject(order(fault, Target(pid=place.pid), **params))
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    for controller in place.layout.controllers() & {"cpu", "memory", "pids", "blkio", "io"}:
        assert len(place.inner(controller).pids()) >= 2
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_load_ends_with_its_target_and_leaves_its_groups_free(injector, grouped):
    place = grouped()
    record = injector.inject(order("cpu.load", Target(pid=place.pid), count=4))
    place.process.kill()
    place.process.wait()
    until(lambda: not any(group.pids() for group in (place.inner("cpu"), place.inner("memory"))), 5)
    until(lambda: injector.get(record.uid).state is State.ENDED)
    assert injector.get(record.uid).end is End.GONE


def test_a_load_of_a_group_ends_when_nobody_else_is_in_it(injector, grouped):
    place = grouped()
    record = injector.inject(order("cpu.load", place.target, count=4))
    time.sleep(1.5)
    assert procfs.find_marked(mark(record.uid, 0))
    place.process.kill()
    place.process.wait()
    until(lambda: not procfs.find_marked(mark(record.uid, 0)), 10)
    assert place.inner("cpu").pids() == []
    assert injector.recover(record.uid).end is End.RECOVERED


@pytest.mark.slow
def test_switches_are_many_and_ours(injector, grouped):
    record = injector.inject(Order("cpu.switch", {"count": 2}, Duration.parse("60s")))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.values["measured"] > 500
    for each in procfs.find_marked(mark(record.uid, 0)):
        each.id.send(9)
    until(lambda: not procfs.find_marked(mark(record.uid, 0)))
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE


# ------------------------------------------------------------------------------------- throttle


@pytest.mark.slow
def test_a_target_that_spins_gets_what_is_left_to_it(injector, grouped):
    place = grouped(SPIN)
    record = injector.inject(order("cpu.throttle", place.target, percent="10%", of="core"))
    assert cores_used(counter(place), 2.0) < 0.13
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.values["throttled"] > 0
    assert "by the target" in reading.measured
    assert cgroup_limits.own_cpu_quota(place.top("cpu")).cores == pytest.approx(0.1)
    assert injector.recover(record.uid).end is End.RECOVERED
    assert cgroup_limits.own_cpu_quota(place.top("cpu")) is None


def test_a_target_that_sleeps_is_measured_with_processes_of_ours(injector, grouped):
    place = grouped(**HALF)
    record = injector.inject(order("cpu.throttle", Target(pid=place.pid), percent="20%"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert "with processes of ours" in reading.measured
    assert reading.values["asked"] == pytest.approx(0.1)
    assert set(place.inner("cpu").pids()) == {place.pid}
    assert injector.recover(record.uid).end is End.RECOVERED
    assert cgroup_limits.own_cpu_quota(place.top("cpu")).cores == 0.5


def test_groups_below_with_more_are_lowered_too_and_all_come_back(injector, grouped):
    place = grouped(**HALF)
    inner = place.inner("cpu")
    file, text = (
        ("cpu.max", "40000 100000") if inner.version == 2 else ("cpu.cfs_quota_us", "40000")
    )
    inner.write(file, text)
    record = injector.inject(order("cpu.throttle", place.target, percent="40%"))
    assert len(record.steps) == (1 if inner.version == 2 else 2)
    assert cgroup_limits.cpu_limit(inner)[0].cores == pytest.approx(0.2)
    assert injector.recover(record.uid).end is End.RECOVERED
    assert cgroup_limits.own_cpu_quota(inner).cores == 0.4
    assert cgroup_limits.own_cpu_quota(place.top("cpu")).cores == 0.5


def test_a_quota_that_somebody_set_meanwhile_is_told_and_left(injector, grouped):
    place = grouped(**HALF)
    record = injector.inject(order("cpu.throttle", place.target, percent="50%"))
    with pytest.raises(Conflict):
        injector.inject(order("cpu.throttle", place.target, percent="20%"))
    top = place.top("cpu")
    file, text = ("cpu.max", "30000 100000") if top.version == 2 else ("cpu.cfs_quota_us", "30000")
    top.write(file, text)
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert cgroup_limits.own_cpu_quota(top).cores == 0.3


def test_what_would_be_no_less_or_too_little_or_hit_us_is_refused(injector, grouped):
    place = grouped(**HALF)
    with pytest.raises(Refused, match="no less"):
        injector.plan(order("cpu.throttle", place.target, percent="60%", of="core"))
    with pytest.raises(InvalidParameter, match="of a core"):
        injector.plan(order("cpu.throttle", place.target, percent="0.5%"))
    with pytest.raises((Refused, Protected)):  # the root group, or the one that we are in
        injector.plan(order("cpu.throttle", Target(pid=os.getpid()), percent="50%"))
    with pytest.raises(Unsupported, match="host"):
        injector.plan(Order("cpu.throttle", {"percent": "50%"}))


def test_the_quota_comes_back_without_any_of_ours(injector, grouped):
    """Both keepers are killed; the next start of anything of ours takes over what is open."""
    place = grouped(**HALF)
    record = injector.inject(order("cpu.throttle", place.target, "2s", percent="50%"))
    for keeper in procfs.find_by_cmdline(f"keeper:{injector.store.state}", exclude=[os.getpid()]):
        keeper.id.send(9)
    injector.adopt()
    until(lambda: injector.get(record.uid).end is End.RECOVERED)
    assert cgroup_limits.own_cpu_quota(place.top("cpu")).cores == 0.5
