"""Priorities and limits of running processes: what they suffer, and what they have again."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from faultline.changes.model import End
from faultline.errors import InvalidParameter, Protected, Refused
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import procfs
from faultline.kernel.attributes import ATTRIBUTES
from faultline.units import Duration

THREADS = "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(3)]"
ON_DEMAND = (  # begins a thread and a child when it is told to
    "[]\ndef act(*_):\n  threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "  os.fork() or time.sleep(60)\nsignal.signal(signal.SIGUSR1, act)\n;;\n"
    "while True: time.sleep(0.1)"
)


def order(fault: str, duration: str = "30s", allow: str = "", **params: object) -> Order:
    return Order(fault, params, Duration.parse(duration), allow=frozenset(filter(None, [allow])))


def values(attribute: str, pid: int) -> set[tuple[int, ...]]:
    return {tuple(ATTRIBUTES[attribute].read(each.pid)) for each in procfs.threads(pid)}


def soft(pid: int, which: int = resource.RLIMIT_NOFILE) -> int:
    return resource.prlimit(pid, which)[0]


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_every_thread_yields_and_has_its_own_priority_again(injector, start):
    victim = start(THREADS)
    first, *_, last = procfs.threads(victim.pid)
    os.setpriority(os.PRIO_PROCESS, last.pid, 5)
    record = injector.inject(
        order("process.priority", pid=victim.pid, nice=19, policy="batch", io="idle")
    )
    reading = injector.observe(record.uid)
    assert (reading.effect, reading.measured) == (Effect.EFFECTIVE, "12 of 12 have it")
    assert values("nice", victim.pid) == {(19,)}
    assert values("policy", victim.pid) == {(3, 0)}
    assert values("io", victim.pid) == {(3, 0)}
    assert injector.recover(record.uid).end is End.RECOVERED
    assert ATTRIBUTES["nice"].read(first.pid) == [0]
    assert ATTRIBUTES["nice"].read(last.pid) == [5]
    assert values("policy", victim.pid) == {(0, 0)}
    assert (3, 0) not in values("io", victim.pid)
    assert injector.residue(record.uid) == []


def test_a_busy_process_of_low_priority_gets_less_of_its_processor(injector, start):
    """Two that compete for one core, one of them with the least weight there is."""
    body = "os.sched_setaffinity(0, {0});;\nwhile True: pass"
    victim, other = start(body), start(body)

    def used(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return float(fields[11]) + float(fields[12])

    injector.inject(order("process.priority", pid=victim.pid, nice=19))
    before = used(victim.pid), used(other.pid)
    time.sleep(1.0)
    mine, theirs = used(victim.pid) - before[0], used(other.pid) - before[1]
    assert mine < theirs / 4


def test_what_somebody_else_has_set_meanwhile_is_left(injector, start):
    victim = start(THREADS)
    other = procfs.threads(victim.pid)[-1].pid
    record = injector.inject(order("process.priority", pid=victim.pid, nice=10))
    os.setpriority(os.PRIO_PROCESS, other, 7)
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED
    assert "somebody else" in ended.steps[0].outcome.detail
    assert ATTRIBUTES["nice"].read(victim.pid) == [0]
    assert ATTRIBUTES["nice"].read(other) == [7]


def test_threads_and_children_that_inherited_it_are_put_back_too(injector, start):
    victim = start(ON_DEMAND)
    records = [
        injector.inject(order("process.priority", pid=victim.pid, nice=10)),
        injector.inject(order("process.limit", pid=victim.pid, limit="nofile", value="77")),
    ]
    victim.send_signal(10)
    until(lambda: procfs.children(victim.pid) and len(procfs.threads(victim.pid)) > 1)
    child = procfs.children(victim.pid)[0]
    assert values("nice", victim.pid) | values("nice", child.pid) == {(10,)}
    assert soft(child.pid) == 77
    for record in records:
        assert injector.recover(record.uid).end is End.RECOVERED
        assert injector.residue(record.uid) == []
    assert values("nice", victim.pid) | values("nice", child.pid) == {(0,)}
    assert soft(child.pid) == soft(victim.pid) == soft(os.getpid())


def test_a_process_can_open_nothing_more_and_then_can_again(injector, start):
    tries = (
        "while True:\n  try: os.close(os.open('/', 0))\n  except OSError: os.write(1, b'x')\n"
        "  time.sleep(0.02)"
    )
    victim = start(f"pass;;\n{tries}")
    record = injector.inject(order("process.limit", pid=victim.pid, limit="nofile", value="used"))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE
    assert "one more fails" in reading.measured
    assert victim.stdout.read(1) == b"x"
    assert injector.recover(record.uid).end is End.RECOVERED
    os.set_blocking(victim.stdout.fileno(), False)
    time.sleep(0.1)
    victim.stdout.read()
    time.sleep(0.1)
    assert not victim.stdout.read()


def test_the_keepers_alone_put_it_back_at_the_deadline(injector, start):
    victim = start()
    injector.inject(order("process.limit", "1s", pid=victim.pid, limit="as", value="512MiB"))
    assert soft(victim.pid, resource.RLIMIT_AS) == 512 << 20
    until(lambda: soft(victim.pid, resource.RLIMIT_AS) == -1)


def test_a_process_that_has_ended_is_gone(injector, start):
    victim = start()
    record = injector.inject(order("process.priority", pid=victim.pid, nice=10))
    victim.kill()
    victim.wait()
    assert injector.observe(record.uid).effect is Effect.UNMEASURED
    assert injector.recover(record.uid).end is End.GONE


def test_what_cannot_be_is_refused(injector, start):
    victim = start("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (50, 100))")
    with pytest.raises(Refused, match="may be 100 at most"):
        injector.plan(order("process.limit", pid=victim.pid, limit="nofile", value="101"))
    with pytest.raises(Refused, match="50 already"):
        injector.inject(order("process.limit", pid=victim.pid, limit="nofile", value="50"))
    with pytest.raises(Protected, match="keeps all others"):
        injector.plan(order("process.priority", pid=victim.pid, policy="fifo"))
    for limit, value in (("nofile", "10MiB"), ("as", "5"), ("cpu", "10"), ("as", "used")):
        with pytest.raises(InvalidParameter) as wrong:
            injector.plan(order("process.limit", pid=victim.pid, limit=limit, value=value))
        assert wrong.value.field == "value"
