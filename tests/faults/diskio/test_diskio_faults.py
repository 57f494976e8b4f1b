"""Disks really slow and really hung, seen from the victim; freed by the keepers alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from faultline.changes import keepers, undo
from faultline.changes.kind import Context, kinds
from faultline.changes.model import End, Step, Undone, mark
from faultline.errors import InvalidParameter, Protected, Refused, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import blockio, cgroup, procfs
from faultline.kernel.blockio import IoLimits
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels, pytest.mark.quiet]

MIB = 1 << 20
SECOND_VERSION = "io" in cgroup.layout().controllers()


def order(fault: str, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration))


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def names(plan: Any) -> list[str]:
    return [change.kind for change in plan.changes]


def ours() -> list[cgroup.Group]:
    return cgroup.layout().find_marked()


# ---------------------------------------------------------------------------------------- limit


def test_a_reader_gets_what_is_allowed_and_no_more(injector, victim, disk, node):
    reader = victim(node)
    assert reader.rate(0.3) > 10 * MIB
    record = injector.inject(
        order("diskio.limit", pid=reader.pid, device=str(disk[1]), read_rate="2MiB/s")
    )
    reader.rate(0.5)
    assert reader.rate(2.0) == pytest.approx(2 * MIB, rel=0.25)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE
    assert "by the target" in reading.measured
    home = cgroup.layout().group_of(os.getpid(), "io" if SECOND_VERSION else "blkio")
    assert injector.recover(record.uid).end is End.RECOVERED
    assert reader.rate(0.3) > 10 * MIB
    assert blockio.io_group(cgroup.layout(), reader.pid) == home
    assert injector.residue(record.uid) == []


def test_requests_are_counted_too(injector, victim, disk, node):
    reader = victim(node)
    record = injector.inject(order("diskio.limit", pid=reader.pid, device=node, reads=20))
    reader.rate(0.5)
    assert reader.rate(2.0) / 65536 == pytest.approx(20, rel=0.3)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE


def test_an_idle_target_is_measured_by_requests_of_ours(injector, victim, disk, node):
    reader = victim(node)
    reader.process.send_signal(signal.SIGSTOP)
    record = injector.inject(
        order("diskio.limit", pid=reader.pid, folder=str(disk[0]), read_rate="1MiB/s", writes=30)
    )
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert "outside the group" in reading.measured
    reader.process.send_signal(signal.SIGCONT)


def test_a_limit_that_somebody_lifted_is_told(injector, victim, disk, node):
    reader = victim(node)
    record = injector.inject(order("diskio.limit", pid=reader.pid, device=node, read_rate="1MiB/s"))
    blockio.lift_limits(ours()[0])
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


# ----------------------------------------------------------------------------------------- hang


def test_what_hangs_cannot_be_killed_and_is_freed_at_the_deadline(injector, victim, disk, node):
    reader = victim(node)
    record = injector.inject(order("diskio.hang", "12s", pid=reader.pid, device=node))
    until(lambda: reader.state == "D")
    assert reader.rate(0.5) == 0
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    reader.process.send_signal(signal.SIGKILL)
    time.sleep(0.3)
    assert reader.state == "D"
    assert reader.process.wait(30) == -signal.SIGKILL
    until(lambda: injector.get(record.uid).end is End.RECOVERED)
    until(lambda: not ours())
    until(lambda: not procfs.find_marked(mark(record.uid, 0)))


def test_a_hung_reader_goes_on_where_it_was(injector, victim, disk, node):
    reader = victim(node)
    record = injector.inject(order("diskio.hang", pid=reader.pid, device=str(disk[1]), mode="read"))
    until(lambda: reader.state == "D")
    assert injector.recover(record.uid).end is End.RECOVERED
    assert reader.rate(0.5) > 0
    assert injector.residue(record.uid) == []


def test_the_deadline_is_met_with_the_store_on_the_hung_disk(victim, disk):
    writer = victim(str(disk[0]))
    with Injector(disk[0] / "store") as injector:
        record = injector.inject(order("diskio.hang", "3s", pid=writer.pid, folder=str(disk[0])))
        until(lambda: not ours())
        assert writer.rate(0.5) > 0
        until(lambda: injector.get(record.uid).end is End.RECOVERED)
        keepers.retire(injector.store)
    until(lambda: not procfs.find_by_cmdline(f"keeper:{disk[0]}"))


def test_keepers_that_were_killed_leave_a_hang_that_the_next_start_ends(
    injector, victim, disk, node
):
    reader = victim(node)
    record = injector.inject(order("diskio.hang", "3s", pid=reader.pid, device=node))
    until(lambda: reader.state == "D")
    for keeper in procfs.find_by_cmdline(f"keeper:{injector.store.state}", exclude=[os.getpid()]):
        keeper.id.send(signal.SIGKILL)
    injector.adopt()
    until(lambda: injector.get(record.uid).end is End.RECOVERED)
    assert reader.rate(0.5) > 0


def test_a_scan_without_any_journal_frees_what_hangs(injector, victim, disk, node):
    reader = victim(node)
    record = injector.inject(order("diskio.hang", pid=reader.pid, device=node))
    until(lambda: reader.state == "D")
    home = cgroup.layout().group_of(os.getpid(), "io" if SECOND_VERSION else "blkio")
    # As `recover --scan` does, but of this fault alone: others may be at work on this machine.
    kind = kinds()["cgroup_tasks"]
    found = [each for each in kind.scan(None, ()) if each.uid == record.uid]
    assert len(found) == 1
    step = Step(found[0].change)
    assert undo.undo_step(step, Context(record.uid, found[0].index, 0)).end is Undone.UNDONE
    assert reader.rate(0.5) > 0
    assert blockio.io_group(cgroup.layout(), reader.pid) == home


# ------------------------------------------------------------------------- the target's own group


def test_a_group_of_the_target_alone_is_limited_where_it_is(injector, victim, disk, node, group):
    reader, own = victim(node), group()
    own.add(reader.pid)
    blockio.write_limits(own, disk[1], IoLimits(writes=500))
    wanted = order("diskio.limit", pid=reader.pid, device=node, read_rate="1MiB/s")
    assert names(injector.plan(wanted)) == ["io_limit"]
    record = injector.inject(wanted)
    assert blockio.read_limits(own, disk[1]) == IoLimits(read_bytes=MIB, writes=500)
    reader.rate(0.5)
    assert reader.rate(1.0) < 2 * MIB
    assert injector.recover(record.uid).end is End.RECOVERED
    assert blockio.read_limits(own, disk[1]) == IoLimits(writes=500)


def test_a_tighter_limit_is_never_loosened_and_a_foreign_one_is_kept(
    injector, victim, disk, node, group
):
    reader, own = victim(node), group()
    own.add(reader.pid)
    blockio.write_limits(own, disk[1], IoLimits(read_bytes=4 * MIB, writes=5))
    record = injector.inject(
        order("diskio.limit", pid=reader.pid, device=node, read_rate="1MiB/s", writes=90)
    )
    assert blockio.read_limits(own, disk[1]) == IoLimits(read_bytes=MIB, writes=5)
    blockio.write_limits(own, disk[1], IoLimits(read_bytes=MIB, writes=7))
    assert injector.recover(record.uid).end is End.RECOVERED
    assert blockio.read_limits(own, disk[1]) == IoLimits(read_bytes=4 * MIB, writes=7)


def test_others_in_the_group_are_left_alone_unless_they_are_meant(
    injector, victim, disk, node, group
):
    reader, stranger, own = victim(node), victim(node), group()
    own.add(reader.pid)
    own.add(stranger.pid)
    params = {"pid": reader.pid, "device": node, "read_rate": "1MiB/s"}
    assert names(injector.plan(order("diskio.limit", **params))) == ["cgroup_tasks", "io_limit"]
    forced = injector.plan(order("diskio.limit", engine="target", **params))
    assert names(forced) == ["io_limit"]
    assert "1 more processes" in " ".join(forced.notes)
    record = injector.inject(order("diskio.limit", **params))
    reader.rate(0.5)
    assert reader.rate(1.0) < 2 * MIB < 10 * MIB < stranger.rate(0.3)
    assert injector.recover(record.uid).end is End.RECOVERED
    assert set(own.pids()) == {reader.pid, stranger.pid}


def test_two_faults_never_share_a_process_or_a_group(injector, victim, disk, node, group):
    reader = victim(node)
    params = {"pid": reader.pid, "device": node, "read_rate": "1MiB/s"}
    first = injector.inject(order("diskio.limit", **params))
    moved = blockio.io_group(cgroup.layout(), reader.pid)
    with pytest.raises(Refused):
        injector.inject(order("diskio.limit", **{**params, "engine": "ours"}))
    assert blockio.io_group(cgroup.layout(), reader.pid) == moved
    assert injector.recover(first.uid).end is End.RECOVERED


@pytest.mark.skipif(not SECOND_VERSION, reason="version 1 hands every controller down")
def test_the_controller_is_handed_down_for_the_while(injector, victim, disk, node, group):
    reader, upper = victim(node), group()
    own = group(upper, enable=False)
    own.add(reader.pid)
    assert not own.has("io.max")
    wanted = order("diskio.limit", pid=reader.pid, device=node, read_rate="1MiB/s")
    assert names(injector.plan(wanted)) == ["cgroup_controller", "io_limit"]
    record = injector.inject(wanted)
    reader.rate(0.5)
    assert reader.rate(1.0) < 2 * MIB
    assert injector.recover(record.uid).end is End.RECOVERED
    assert upper.read("cgroup.subtree_control") == ""
    assert not own.has("io.max")


# ------------------------------------------------------------------------------------------ burn


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_burn_moves_bytes_on_the_disk(injector, disk, mode):
    before = blockio.disk_use(disk[1]).transfers
    record = injector.inject(
        order("diskio.burn", folder=str(disk[0]), mode=mode, bytes="8MiB", block="64KiB", count=2)
    )
    reading = injector.observe(record.uid)
    moved = blockio.disk_use(disk[1]).transfers - before
    assert reading.effect is Effect.EFFECTIVE, reading
    assert (moved.read_bytes if mode == "read" else moved.written_bytes) > 4 * MIB
    assert injector.recover(record.uid).end is End.RECOVERED
    assert not procfs.find_marked(mark(record.uid, 0))


# --------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "params",
    [
        {"read_rate": "1MiB/s"},
        {"device": "{node}"},
        {"device": "{node}", "folder": "/tmp", "reads": 5},
        {"device": "{node}", "reads": 0},
        {"device": "nothing-here", "reads": 5},
        {"device": "9999:9999", "reads": 5},
    ],
)
def test_what_makes_no_sense_is_refused(injector, victim, node, params):
    given = {k: node if v == "{node}" else v for k, v in params.items()}
    with pytest.raises(InvalidParameter):
        injector.plan(order("diskio.limit", pid=os.getpid(), **given))


def test_our_own_session_and_a_root_group_are_refused(injector, victim, disk, node):
    with pytest.raises(Protected):
        injector.plan(order("diskio.hang", pid=os.getpid(), device=node))
    reader = victim(node)
    home = blockio.io_group(cgroup.layout(), reader.pid)
    if home.parent() is None:
        with pytest.raises(Refused, match="root control group"):
            injector.plan(order("diskio.hang", pid=reader.pid, device=node, engine="target"))


def test_a_file_system_without_a_disk_is_refused(injector, victim):
    with pytest.raises(Unsupported):
        injector.plan(order("diskio.hang", pid=1, folder="/proc"))


# ---------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("fault", ["diskio.limit", "diskio.hang"])
def test_a_place_is_limited_as_a_whole_where_it_is(
    injector, victim, disk, node, group, grouped, fault
):
    reader, stranger, place = victim(node), victim(node), grouped()
    home = place.inner("io" if SECOND_VERSION else "blkio")
    home.add(reader.pid)
    params = {"device": node, **({"read_rate": "1MiB/s"} if fault == "diskio.limit" else {})}
    wanted = Order(fault, params, Duration.parse("60s"), target=place.target)
    plan = injector.plan(wanted)
    assert names(plan) == ["io_limit"]
    # Version 2 holds all of it by the upper group, version 1 each group alone.
    limited = place.top("io") if SECOND_VERSION else home
    assert plan.changes[0].spec["group"]["folder"] == str(limited.folder)
    record = injector.inject(wanted)
    reader.rate(0.5)
    assert reader.rate(1.0) < 2 * MIB < 10 * MIB < stranger.rate(0.3)
    assert set(home.pids()) == {reader.pid, place.pid}
    assert injector.recover(record.uid).end is End.RECOVERED
    assert reader.rate(0.3) > 10 * MIB


def test_parameters_narrow_a_place(injector, victim, disk, node, grouped):
    reader, place = victim(node), grouped()
    place.inner("io" if SECOND_VERSION else "blkio").add(reader.pid)
    wanted = Order(
        "diskio.limit",
        {"device": node, "reads": 20, "pid": reader.pid},
        Duration.parse("60s"),
        target=place.target,
    )
    assert names(injector.plan(wanted)) == ["cgroup_tasks", "io_limit"]
