"""Faults of processes on processes of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from faultline.changes.model import End
from faultline.errors import InvalidParameter, Protected, Refused, TargetGone
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import procfs
from faultline.units import Duration


def order(fault: str, duration: str = "60s", allow: tuple[str, ...] = (), **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration), allow=frozenset(allow))


def until(condition: Callable[[], object], patience: float = 10.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_a_kill_ends_the_process_and_has_nothing_to_undo(injector, start):
    victim, other = start(), start()
    record = injector.inject(order("process.kill", pid=victim.pid))
    assert victim.wait(5) == -signal.SIGKILL
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.NOTHING
    assert other.poll() is None


def test_all_that_fit_a_pattern_are_hit_and_no_others(injector, start, tmp_path):
    victims = [start(word=f"{tmp_path}-victim") for _ in range(3)]
    other = start(word=f"{tmp_path}-other")
    record = injector.inject(
        order("process.kill", pattern=f"{tmp_path}-victim$", signal="TERM", expected="3")
    )
    assert [victim.wait(5) for victim in victims] == [-15] * 3
    assert injector.observe(record.uid).measured == "3 of 3 ended"
    assert other.poll() is None


def test_more_than_expected_are_refused_and_nobody_is_hit(injector, start, tmp_path):
    victims = [start() for _ in range(3)]
    with pytest.raises(Refused, match="3 processes fit"):
        injector.inject(order("process.kill", pattern=str(tmp_path), expected="1-2"))
    with pytest.raises(Refused, match="3 processes fit"):
        injector.inject(order("process.kill", pattern=str(tmp_path), expected="4-"))
    assert [victim.poll() for victim in victims] == [None] * 3


def test_a_process_is_found_by_the_port_that_it_listens_on(injector, start):
    code = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], end='')"
    victim = start(f"{code};;time.sleep(60)")
    sockets = subprocess.run(
        ["ss", "-Hltnp"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    line = next(each for each in sockets if f"pid={victim.pid}," in each)
    port = int(line.split()[3].rpartition(":")[2])
    record = injector.inject(order("process.stop", port=port))
    until(lambda: procfs.process(victim.pid).state == "T")
    assert injector.recover(record.uid).end is End.RECOVERED


def test_an_ignored_signal_is_told_apart_from_an_effect(injector, start):
    victim = start("signal.signal(15, signal.SIG_IGN)")
    record = injector.inject(order("process.kill", pid=victim.pid, signal="TERM"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.INEFFECTIVE
    assert "ignores SIGTERM" in reading.reason


def test_a_blocked_signal_is_told_apart_from_an_effect(injector, start):
    victim = start("signal.pthread_sigmask(signal.SIG_BLOCK, [15])")
    record = injector.inject(order("process.kill", pid=victim.pid, signal="15"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.INEFFECTIVE
    assert "pending" in reading.reason


def test_a_handled_signal_is_not_claimed_as_an_effect(injector, start):
    victim = start("signal.signal(1, lambda *a: None)")
    record = injector.inject(order("process.kill", pid=victim.pid, signal="HUP"))
    assert injector.observe(record.uid).effect is Effect.UNMEASURED


def test_killing_again_hits_what_was_started_anew(injector, start, tmp_path):
    first = start(word=f"{tmp_path}-again")
    record = injector.inject(order("process.kill", pattern=f"{tmp_path}-again", interval="100ms"))
    assert first.wait(5) == -9
    second = start(word=f"{tmp_path}-again")
    assert second.wait(5) == -9
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    third = start(word=f"{tmp_path}-again")
    time.sleep(0.5)
    assert third.poll() is None


def test_a_killed_process_is_brought_back_at_recovery(injector, start, tmp_path):
    victim = start()
    code = f"open({str(tmp_path / 'back')!r}, 'w').write('here'); print('started')"
    record = injector.inject(
        order("process.kill", pid=victim.pid, restart=[sys.executable, "-c", code])
    )
    victim.wait(5)
    assert not (tmp_path / "back").exists()
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED, ended.steps
    assert (tmp_path / "back").read_text() == "here"
    assert any("started" in step.outcome.detail for step in ended.steps if step.outcome)


def test_a_stopped_process_uses_no_time_and_goes_on(injector, start):
    victim = start("pass;;\nwhile True: pass")
    record = injector.inject(order("process.stop", pid=victim.pid))
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert procfs.process(victim.pid).state == "T"
    assert injector.recover(record.uid).end is End.RECOVERED
    assert procfs.process(victim.pid).state in "RS"
    assert injector.residue(record.uid) == []


def test_the_keepers_alone_continue_it_at_the_deadline(injector, start):
    victim = start()
    injector.inject(order("process.stop", "1s", pid=victim.pid))
    until(lambda: procfs.process(victim.pid).state == "T")
    until(lambda: procfs.process(victim.pid).state != "T")


def test_a_stopped_process_that_ended_is_gone(injector, start):
    victim = start()
    record = injector.inject(order("process.stop", pid=victim.pid))
    victim.kill()
    victim.wait()
    assert injector.observe(record.uid).effect is Effect.UNMEASURED
    assert injector.recover(record.uid).end is End.GONE


def test_what_keeps_the_machine_running_is_refused_unless_allowed(injector, start):
    with pytest.raises(Protected, match="process 1"):
        injector.plan(order("process.kill", pid=1))
    with pytest.raises(Protected, match="session"):
        injector.plan(order("process.kill", pid=os.getpid()))
    victim = start()
    injector.inject(order("process.stop", pid=victim.pid))
    mark = f"keeper:{injector.store.state}"  # others may keep stores of their own here
    keeper = next(each for each in procfs.processes() if mark in each.cmdline)
    with pytest.raises(Protected, match="Faultline"):
        injector.plan(order("process.kill", pid=keeper.pid))


def test_nobody_who_merely_quotes_the_pattern_is_hit(injector, tmp_path):
    with pytest.raises(TargetGone):
        injector.plan(order("process.kill", pattern=f"{tmp_path}-nobody"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"inner_pid": 5}, "inner_pid"),
        ({"pid": 0}, "pid"),
        ({"pid": 1, "signal": "NOPE"}, "signal"),
        ({"pid": 1, "expected": "5-2"}, "expected"),
        ({"pattern": "("}, "pattern"),
        ({"port": 70000}, "port"),
        ({"user": "no-such-user"}, "user"),
        ({"pid": 1, "count": 3}, "document"),
        ({"pid": 1, "interval": "5"}, "interval"),
    ],
)
def test_bad_values_are_refused_with_the_name_of_the_field(injector, wrong, field):
    with pytest.raises(InvalidParameter) as refused:
        injector.plan(order("process.kill", **wrong))
    assert refused.value.field == field
