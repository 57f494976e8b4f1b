"""Several engines on one store, as real processes that are stopped and killed at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.stores import histories
from tests.stores.server import Server

from faultline.api.fault import Fault
from faultline.api.model import Metadata
from faultline.api.run import Phase, Point, Run
from faultline.api.targets import AimedFaultSpec
from faultline.stores import postgres as driver
from faultline.stores.model import Fenced, Stale, Store, StoreFailed
from faultline.stores.opening import open_store
from faultline.stores.renewal import holder

RUNS, STEPS, ENGINES = 12, 12, 3
TTL = 0.6  # seconds
TROUBLE = 3.0  # seconds of stopping and killing; then they may finish


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a child; its pid. No store of this process may be open."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


# ---------------------------------------------------------------------- sharing the work


def engine(where: str) -> None:
    """Carries out whatever it can claim, until everything has ended."""
    driver.FROZEN = 1.0
    me = holder()
    while True:
        try:
            with open_store(where) as store:
                while store.summaries("Run", limit=1) and _claim_and_work(store, me):
                    pass
                return
        except StoreFailed:  # its connection was ended while it stood still
            continue


def _claim_and_work(store: Store, me: str) -> bool:
    for claimed in store.claim(Run, 2, me, TTL):
        run, lease = claimed.resource, claimed.lease
        try:
            while run.status.ended is None and lease.sure:
                (lease,) = store.renew([lease], TTL) or (lease,)
                run = store.write_status(_stepped(run, f"{me} {lease.fence}"))
                time.sleep(0.03)
        except (Fenced, Stale):  # somebody has overtaken us
            continue
        store.release(lease)
    if all(each.ended is not None for each in store.summaries("Run")):
        return False
    time.sleep(0.02)
    return True


def _stepped(run: Run, who: str) -> Run:
    """One more action: the next number, and by whom it was carried out."""
    number = len(run.status.timeline)
    point = Point(at=time.time(), boot_ns=number, event="step", text=who)
    done = number + 1 == STEPS
    return run.model_copy(
        update={
            "status": run.status.model_copy(
                update={
                    "timeline": [*run.status.timeline, point],
                    "phase": Phase.ENDED if done else Phase.WAIT,
                    "ended": time.time() if done else None,
                }
            )
        }
    )


@dataclass
class Engines:
    """Processes that are stopped, woken, killed and replaced."""

    where: str
    pids: set[int] = field(default_factory=set[int])
    asleep: dict[int, float] = field(default_factory=dict[int, float])
    killed: int = 0
    stopped: int = 0

    def start(self) -> None:
        self.pids.add(forked(lambda: engine(self.where)))

    def trouble(self, seed: int) -> None:
        chance = random.Random(seed)
        until = time.monotonic() + TROUBLE
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.05, 0.25))
            self.wake(lambda due: due < time.monotonic())
            awake = sorted(self.pids - self.asleep.keys())
            if not awake:
                continue
            victim = chance.choice(awake)
            if chance.random() < 0.35:
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                self.pids.discard(victim)
                self.killed += 1
                self.start()
            elif len(awake) > 1:
                os.kill(victim, signal.SIGSTOP)
                self.asleep[victim] = time.monotonic() + chance.uniform(TTL, 3 * TTL)
                self.stopped += 1
        self.wake(lambda due: True)

    def wake(self, due: Callable[[float], bool]) -> None:
        for pid in [pid for pid, when in self.asleep.items() if due(when)]:
            os.kill(pid, signal.SIGCONT)
            del self.asleep[pid]

    def finish(self) -> list[int]:
        self.wake(lambda due: True)
        return [os.waitpid(pid, 0)[1] for pid in self.pids]


@pytest.mark.slow
def test_each_run_is_carried_out_by_one_engine_at_a_time_and_none_is_lost(where: str) -> None:
    with open_store(where) as store:
        for index in range(RUNS):
            made = histories.run(f"run-{index}", index, 0, ended=False)
            store.create(made)
    engines = Engines(where)
    for _ in range(ENGINES):
        engines.start()
    try:
        engines.trouble(seed=int(time.time()))
    finally:
        codes = engines.finish()
    assert codes == [0] * len(codes)
    assert engines.killed
    assert engines.stopped
    with open_store(where) as store:
        runs = store.list(Run)
    assert len(runs) == RUNS
    for run in runs:
        told = run.status.timeline
        assert [each.boot_ns for each in told] == list(range(STEPS)), "a step twice or lost"
        fences = [int(each.text.split()[1]) for each in told]
        assert fences == sorted(fences), "an engine went on after it was overtaken"
        who: dict[int, set[str]] = defaultdict(set)
        for fence, each in zip(fences, told, strict=True):
            who[fence].add(each.text.split()[0])
        assert all(len(names) == 1 for names in who.values()), "two had the same number"
    assert any(run.status.timeline[0].text != run.status.timeline[-1].text for run in runs)


# ---------------------------------------------------------------------- watching


WRITERS, WRITES = 4, 40


def writer(where: str, number: int) -> None:
    """Makes resources and writes them again; each name is its own, so each event must be seen."""
    chance = random.Random(number)
    with open_store(where) as store:
        for index in range(WRITES):
            spec = AimedFaultSpec(fault="file.add", params={"number": index})
            made = store.create(Fault(metadata=Metadata(name=f"w{number}-{index}"), spec=spec))
            if chance.random() < 0.3:
                store.update(made.model_copy(update={"metadata": made.metadata}))


def test_a_watcher_misses_nothing_that_several_processes_write(where: str) -> None:
    """A watcher that goes on from the last version it saw, while others commit all the time."""
    open_store(where).close()
    pids = [forked(lambda number=number: writer(where, number)) for number in range(WRITERS)]
    seen: dict[str, int] = {}
    with open_store(where) as store:
        since = 0
        while len(seen) < WRITERS * WRITES:
            events = list(store.watch(since, timeout=0))  # one look, then anew from there
            for event in events or [next(store.watch(since, "Fault", timeout=60, light=True))]:
                assert event.version > since, "a version appeared behind a later one"
                since = event.version
                seen[event.name] = event.version
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * WRITERS
        for event in store.watch(since, timeout=0):
            seen[event.name] = event.version
        assert seen == {each.name: each.version for each in store.summaries("Fault")}


# ---------------------------------------------------------------------- a server that goes


def stands_still(url: str, pipe: int) -> None:
    """In the middle of a write, with the counter locked, as a process that was stopped."""
    driver.FROZEN = 0.5
    database = driver.PostgresDatabase(url)
    with database.writing():
        database.bump()
        os.write(pipe, b"x")
        time.sleep(600)


def test_an_engine_that_stands_still_in_a_write_holds_nobody_up(postgres: Server) -> None:
    url = postgres.database()
    open_store(url).close()
    reader, pipe = os.pipe()
    pid = forked(lambda: stands_still(url, pipe))
    os.read(reader, 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        with open_store(url) as store:
            store.create(histories.run("one"))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(pipe)


@pytest.mark.slow
def test_a_server_that_is_started_anew_is_found_again() -> None:
    with Server() as server:
        url = server.database()
        with open_store(url) as store:
            made = store.create(histories.run("one"))
            events: Any = store.watch(0, "Run", timeout=30, light=True)
            assert next(events).name == "one"
            server.stop(signal.SIGINT)
            with pytest.raises(StoreFailed, match="did not do it"):
                store.get(Run, "one")
            server.start()
            assert store.get(Run, "one") == made
            store.create(histories.run("two"))
            again = store.watch(made.metadata.resource_version, "Run", timeout=30, light=True)
            assert next(again).name == "two"
