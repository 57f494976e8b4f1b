"""Full tables: what others suffer, and that the keepers undo inside of it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, State
from faultline.errors import InvalidParameter, Protected, Refused, Unsupported
from faultline.injection import trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, cgroup_limits, clock, procfs, tables
from faultline.places.find import Target
from faultline.units import Duration

USER = 64123  # a number that nobody has


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()


@contextlib.contextmanager
def sleeper(first: str = "") -> Iterator[subprocess.Popen[bytes]]:
    body = f"import os, resource, time\n{first}\nprint(flush=True)\ntime.sleep(60)"
    command = [sys.executable, "-I", "-S", "-c", body]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


LOGIN = f"resource.setrlimit(resource.RLIMIT_NPROC, (30, 30))\nos.setresuid({USER}, {USER}, {USER})"


@contextlib.contextmanager
def few_tasks(pid: int, limit: int) -> Iterator[cgroup.Group]:
    """A control group of our own with a limit of tasks, which this process is put into."""
    home = cgroup.layout().group_of(pid, "pids")
    group = home.beside(f"test-tables-{pid}")
    group.create()
    parent = group.enable("pids")
    group.write("pids.max", str(limit))
    group.add(pid)
    try:
        yield group
    finally:
        group.write("pids.max", "max")
        until(lambda: not group.evacuate(home))
        until(lambda: removed(group))
        if parent is not None:
            parent.disable("pids")


def removed(group: cgroup.Group) -> bool:
    try:
        group.remove()
    except OSError:
        return False
    return True


def until(condition, patience: float = 10.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def order(fault: str, duration: str = "30s", pid: int = 0, allow: str = "", **params) -> Order:
    allowed = frozenset(filter(None, [allow]))
    return Order(fault, params, Duration.parse(duration), allow=allowed, target=Target(pid=pid))


def test_a_process_can_open_as_many_files_as_are_left(injector):
    with sleeper() as victim:
        record = injector.inject(order("kernel.fdfull", pid=victim.pid, leave=2))
        soft, _ = resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
        assert soft == max(procfs.descriptors(victim.pid)) + 3
        reading = injector.observe(record.uid)
        assert reading.effect is Effect.EFFECTIVE
        assert "one more is possible" in reading.measured
        assert injector.recover(record.uid).end is End.RECOVERED


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_files_of_the_host_are_held_and_closed_again(injector):
    before = tables.files()
    record = injector.inject(order("kernel.fdfull", count=5000))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.values["held"] == 5000
    assert tables.files() > before + 2500
    assert injector.recover(record.uid).end is End.RECOVERED
    assert procfs.find_marked(f"faultline:{record.uid}") == []


@pytest.mark.needs_root
def test_the_host_keeps_files_for_others_unless_that_is_allowed(injector):
    with pytest.raises((Protected, Refused)):
        injector.plan(order("kernel.fdfull"))
    with pytest.raises(InvalidParameter, match="use leave"):
        injector.plan(order("kernel.fdfull", pid=os.getpid(), percent="50%"))


def in_second_kernel() -> bool:
    return "GUEST_BOOT" in os.environ


@pytest.mark.both_kernels
@pytest.mark.skipif(not in_second_kernel(), reason="fills the table of a host of its own only")
def test_no_ordinary_user_can_open_a_file_and_the_deadline_is_met(injector):
    switch = Path("/proc/sys/fs/file-max")
    before = switch.read_text()
    switch.write_text(f"{tables.files() + 20000}")
    try:
        record = injector.inject(order("kernel.fdfull", "4s", allow="host-files"))
        reading = injector.observe(record.uid)
        assert reading.effect is Effect.EFFECTIVE, reading
        assert "refused" in reading.measured
        until(lambda: injector.get(record.uid).state is State.ENDED, 15)
        assert injector.get(record.uid).end is End.RECOVERED
        assert tables.files() < tables.file_limit() - 10000
    finally:
        switch.write_text(before)


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_a_user_can_start_nothing_more(injector):
    with sleeper(LOGIN):
        record = injector.inject(order("kernel.nproc", user=str(USER)))
        reading = injector.observe(record.uid)
        assert reading.effect is Effect.EFFECTIVE, reading
        assert "refused" in reading.measured
        assert tables.tasks_of(USER) == 30
        assert not one_more()
        assert injector.recover(record.uid).end is End.RECOVERED
        assert one_more()


def one_more() -> bool:
    """Whether another process of that user can begin a thread."""
    body = (
        f"import os, resource, _thread, sys\n{LOGIN}\ngate = _thread.allocate_lock()\n"
        "try: _thread.start_new_thread(gate.acquire, ())\nexcept RuntimeError: sys.exit(11)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", body]
    return subprocess.run(command, check=False).returncode != 11


@pytest.mark.needs_root
@pytest.mark.both_kernels
def test_the_tasks_of_a_control_group_leave_what_was_asked(injector):
    with sleeper() as victim, few_tasks(victim.pid, 40) as group:
        record = injector.inject(order("kernel.nproc", pid=victim.pid, leave=7))
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert cgroup_limits.pids_current(group) == 33
        with pytest.raises(Refused, match="nothing is left"):
            injector.plan(order("kernel.nproc", pid=victim.pid, leave=7))
        assert injector.recover(record.uid).end is End.RECOVERED
        until(lambda: cgroup_limits.pids_current(group) == 1)


@pytest.mark.needs_root
def test_what_cannot_be_is_refused(injector):
    with pytest.raises(InvalidParameter, match="root is not"):
        injector.plan(order("kernel.nproc", user="root"))
    with sleeper() as victim, pytest.raises((Unsupported, Refused)):
        injector.plan(order("kernel.nproc", pid=victim.pid))


def _keepers(injector: Injector) -> list[procfs.Process]:
    found = procfs.find_by_cmdline(f"keeper:{injector.store.state} ", exclude=[os.getpid()])
    return [each for each in found if each.name.startswith("fl-keeper")]


def _suffer(folder: Path, fault: str) -> list[str]:
    """Keepers that share the limit which is filled, one of them killed; complaints."""
    with sleeper() as victim, few_tasks(victim.pid, 60) as group, Injector(folder) as injector:
        keepers.wake(injector.store)
        found = _keepers(injector)
        for each in found:
            group.add(each.pid)
        wrong = [] if len(found) == 2 else [f"{len(found)} keepers"]
        params = {"count": 200} if fault == "process.fork" else {}
        record = injector.inject(order(fault, "3s", pid=victim.pid, **params))
        if cgroup_limits.pids_current(group) != 60:
            wrong.append(f"{cgroup_limits.pids_current(group)} tasks of 60")
        found[0].id.send(9)
        while clock.now() < record.deadline:
            time.sleep(0.05)
        until(lambda: injector.get(record.uid).state is State.ENDED)
        end = injector.get(record.uid).end
        wrong += [] if end is End.RECOVERED else [str(end)]
        wrong += injector.residue(record.uid)
        keepers.retire(injector.store)
        until(lambda: threading.active_count() == 1)
    return wrong


@pytest.mark.needs_root
@pytest.mark.both_kernels
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kernel.nproc", "process.fork"])
def test_the_keepers_share_the_limit_that_is_full(tmp_path, fault):
    assert trial.in_child(lambda: _suffer(tmp_path / "store", fault), 100.0) == []


@pytest.mark.needs_root
@pytest.mark.both_kernels
@pytest.mark.slow
def test_the_keepers_themselves_can_open_nothing_more(tmp_path):
    """The limit of their open files is what the fault sets."""
    ours = frozenset({"faultline"})

    def act() -> list[str]:
        with Injector(tmp_path / "store") as injector:
            keepers.wake(injector.store)
            found = _keepers(injector)
            # By number: others may have keepers of their own here.
            orders = [Order("kernel.fdfull", {"pid": each.pid}, Duration.parse("3s"), allow=ours)
                      for each in found]  # fmt: skip
            hit = [injector.inject(each) for each in orders]
            last = max(record.deadline for record in hit)
            while clock.now() < last:
                time.sleep(0.05)
            until(lambda: all(injector.get(r.uid).state is State.ENDED for r in hit))
            ends = [str(injector.get(each.uid).end) for each in hit]
            keepers.retire(injector.store)
        return [] if set(ends) == {"recovered"} else ends

    assert trial.in_child(act) == []
