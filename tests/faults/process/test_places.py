"""Who is hit on a place that is not the host: its members and nobody else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End
from faultline.errors import Protected, TargetGone, UsageError
from faultline.injection import guards, scratch, trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import procfs
from faultline.places.find import Target
from faultline.units import Duration

FAMILY = "import os\nfor _ in range(2):\n  os.fork() or time.sleep(60)\n"  # two children that sleep


def order(fault: str, place: int, **params: Any) -> Order:
    return Order(fault, params, Duration.parse("30s"), target=Target(pid=place))


def children(pid: int, count: int = 2) -> list[procfs.Process]:
    end = time.monotonic() + 10
    while len(found := procfs.children(pid)) < count:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_without_a_selection_the_whole_place_is_stopped_and_goes_on(injector, start):
    top, other = start(FAMILY), start()
    members = [top.pid, *(each.pid for each in children(top.pid))]
    record = injector.inject(order("process.stop", top.pid))
    assert injector.observe(record.uid).measured == "3 of 3 stopped"
    assert procfs.thread_states(members) == {"T": 3}
    assert procfs.process(other.pid).state in "RS"
    assert injector.recover(record.uid).end is End.RECOVERED
    assert "T" not in procfs.thread_states(members)


def test_a_selection_is_narrowed_to_the_place(injector, start, tmp_path):
    top, other = start(), start(word=f"{tmp_path}-twin")
    with pytest.raises(TargetGone, match=f"in process {top.pid}"):
        injector.plan(order("process.kill", top.pid, pattern=f"{tmp_path}-twin"))
    with pytest.raises(TargetGone):
        injector.plan(order("process.kill", top.pid, pid=other.pid))
    assert other.poll() is None


def test_the_whole_place_is_killed_and_that_is_the_effect(injector, start):
    top = start(FAMILY)
    members = [procfs.ProcessId.of(top.pid), *(each.id for each in children(top.pid))]
    record = injector.inject(order("process.kill", top.pid))
    assert top.wait(10) == -signal.SIGKILL
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.measured == "3 of 3 ended"
    assert not any(each.alive() for each in members)
    assert injector.recover(record.uid).end is End.NOTHING


def test_killing_again_reads_the_members_again(injector, start, tmp_path):
    word = f"{tmp_path}-again"
    again = f"subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', '{word}'])"
    nest = f"import subprocess, sys\nwhile True:\n  {again}"
    top, other = start(f"pass;;{nest}"), start(word=word)
    first = children(top.pid, 1)[0]
    record = injector.inject(
        order("process.kill", top.pid, pattern=f"{word}$", interval="100ms", expected="1-2")
    )
    assert first.id.wait(10)
    second = children(top.pid, 1)[0]
    assert second.id.wait(10)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert other.poll() is None
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_host_needs_to_be_told_who_is_meant(injector):
    for fault in ("process.kill", "process.stop", "process.crash"):
        with pytest.raises(UsageError, match="nothing says which"):
            injector.plan(Order(fault, {}, Duration.parse("5s")))


def test_a_program_that_keeps_the_machine_reachable_is_refused_inside_of_a_place_too(
    injector, start, monkeypatch
):
    top = start()
    monkeypatch.setattr(guards, "PROGRAMS", frozenset({procfs.process(top.pid).name}))
    with pytest.raises(Protected, match=f"process {top.pid} is python"):
        injector.plan(order("process.kill", top.pid))


def _in_capsule(folder: Path) -> list[str]:
    told = []
    with scratch.capsule(folder) as inside, Injector(folder.parent / "store") as injector:
        target = Target(pid=inside.pid)
        second = Order("process.stop", {"inner_pid": 2}, Duration.parse("30s"), target=target)
        plan = injector.plan(second)
        told.append(str([change.spec["pid"] for change in plan.changes] == [inside.sleeper]))
        first = {"pid": inside.pid, "signal": "USR1"}  # by default it would end
        kill = Order("process.kill", first, Duration.parse("30s"), target=target)
        record = injector.inject(kill)
        told += [record.note, injector.observe(record.uid).reason]
        record = injector.inject(Order("process.kill", {}, Duration.parse("30s"), target=target))
        reading = injector.observe(record.uid)
        told += [str(reading.effect), reading.measured]
        injector.recover_all()
        keepers.retire(injector.store)
    return told


@pytest.mark.needs_root
@pytest.mark.slow
def test_the_first_process_of_a_container(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    found, noted, reason, effect, measured = trial.in_child(lambda: _in_capsule(root))
    assert found == "True"
    assert "process 1 of its pid namespace" in noted
    assert "the kernel drops it" in reason
    assert (effect, measured) == ("effective", "2 of 2 ended")


def test_a_crash_says_what_becomes_of_the_core_file(injector, start):
    victim = start("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))")
    plan = injector.plan(Order("process.crash", {"pid": victim.pid}, Duration.parse("5s")))
    assert any("core" in note for note in plan.notes)
    record = injector.carry_out(plan)
    assert victim.wait(10) == -signal.SIGSEGV
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.NOTHING


def test_a_command_line_has_no_place_options_that_select_processes_twice():
    command = [sys.executable, "-m", "faultline.cli.main", "inject", "process", "stop", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--container" in told
    assert "--cgroup" in told
    assert told.count("--pid ") == 1  # its own parameter
