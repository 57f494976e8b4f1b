"""Many runs on a few threads: what hangs holds up nobody, and what is undone waits for nothing."""

from __future__ import annotations

import random
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_driver import QUICK, RealTime
from tests.engine.world import experiment

from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.api.run import Phase, Run
from faultline.engine import hands, unattended
from faultline.engine.crew import THREADS
from faultline.engine.hands import Hands
from faultline.engine.runs import Runs
from faultline.engine.unattended import Manager
from faultline.stores.model import Filter


def until(true: Callable[[], object], patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def made(name: str, **changes: Any) -> Experiment:
    spec = experiment(**{**QUICK, "traffic": [], **changes})
    return Experiment(metadata=Metadata(name=name), spec=spec)


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Manager], None]]:
    monkeypatch.setattr(unattended, "GRACE", 0.0)
    monkeypatch.setattr(unattended, "LOOK", 0.05)
    begun: list[tuple[Manager, threading.Thread]] = []

    def start(engine: Manager) -> None:
        thread = threading.Thread(target=engine.keep, daemon=True)
        thread.start()
        begun.append((engine, thread))

    yield start
    for engine, thread in begun:
        engine.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert not engine.running()


def opener(folder: Path, tools: Callable[[], Any]) -> Callable[[], Runs]:
    return lambda: Runs(folder / "state", tools, lambda *_: [])


def threads(name: str) -> int:
    return sum(each.name == name for each in threading.enumerate())


def test_a_hundred_runs_need_no_thread_each(
    tmp_path: Path, at_work: Callable[[Manager], None]
) -> None:
    opened = opener(tmp_path, lambda: RealTime().tools())
    with opened() as kept:
        for number in range(100):
            kept.create(made(f"e{number}"))
        engine = Manager(opened)
        at_work(engine)
        until(lambda: len(engine.running()) == 100)
        most = 0
        while kept.summaries(Filter(ended=False)):
            most = max(most, threading.active_count())
            time.sleep(0.05)
        assert most < 60
        assert {each.verdict for each in kept.summaries()} == {"held"}


def test_probes_that_hang_hold_up_no_other_run_and_no_undo(
    tmp_path: Path, at_work: Callable[[Manager], None]
) -> None:
    """More of them than there are threads, in runs whose faults must be undone meanwhile."""
    release, hanging = threading.Event(), made(
        "hangs", faults=[{"name": "one", "fault": "network.delay"}], cooldown="0s",
        timeouts={"recovery": "1s"},
    )  # fmt: skip
    worlds: list[RealTime] = []

    def tools() -> Any:
        world = RealTime()
        worlds.append(world)
        found = world.tools()
        measure = found.prober.measure

        def slow(*asked: object) -> object:
            if world.journal:
                release.wait(60)
            return measure(*asked)  # type: ignore[arg-type]

        found.prober.measure = slow  # type: ignore[method-assign,assignment]
        return found

    opened = opener(tmp_path, tools)
    try:
        with opened() as kept:
            names = [kept.create(hanging).metadata.name for _ in range(3 * hands.FEW)]
            at_work(Manager(opened))
            until(lambda: not kept.summaries(Filter(ended=False)))
            for name in names:
                run = kept.get(name)
                assert run.status.aborted_by == "guard"
                assert run.status.faults[0].end == "recovered"
    finally:
        release.set()
    assert not any(world.active() for world in worlds)


def test_an_abort_is_seen_by_a_run_that_sleeps_long(
    tmp_path: Path, at_work: Callable[[Manager], None]
) -> None:
    opened = opener(tmp_path, lambda: RealTime().tools())
    nodes = [{"name": "wait", "type": "wait", "duration": "10m"}]
    with opened() as kept:
        run = kept.create(made("long", faults=[], nodes=nodes, probes=[QUICK["probes"][2]],
                               hypothesis={"text": "x", "probes": ["guard"]}, steadyState=[],
                               guards=[]))  # fmt: skip
        name = run.metadata.name
        at_work(Manager(opened))
        until(lambda: kept.get(name).status.phase.rank >= Phase.INJECTION.rank)
        time.sleep(0.2)  # it sleeps until its node has waited for long enough
        began = time.monotonic()
        kept.abort(name, "enough")
        until(lambda: kept.get(name).status.ended)
        assert time.monotonic() - began < 5
        assert kept.get(name).status.aborted == "enough"


def test_what_nobody_foresaw_in_one_run_ends_no_other(
    tmp_path: Path, at_work: Callable[[Manager], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unattended, "AGAIN", 0.2)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    trouble = {f"e{number}" for number in range(2 * THREADS)}
    lock = threading.Lock()

    def listen(run: Run, point: object) -> None:
        with lock:
            if run.spec.experiment in trouble:
                trouble.discard(run.spec.experiment)
                raise RuntimeError("nobody foresaw this")

    opened = opener(tmp_path, lambda: RealTime().tools())
    with opened() as kept:
        for number in range(3 * THREADS):
            kept.create(made(f"e{number}"))
        at_work(Manager(opened, listen))
        until(lambda: not kept.summaries(Filter(ended=False)))
        assert not trouble
        assert {each.verdict for each in kept.summaries()} == {"held"}


def test_an_engine_that_is_told_to_stop_lets_go_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unattended, "GRACE", 0.0)
    world = RealTime()
    opened = opener(tmp_path, world.tools)
    with opened() as kept:
        name = kept.create(made("long", baseline="300s")).metadata.name
        engine = Manager(opened)
        thread = threading.Thread(target=engine.keep, daemon=True)
        thread.start()
        until(lambda: kept.get(name).status.phase is Phase.STEADY)
        engine.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert kept.get(name).status.ended is None
        with opened() as other:  # who takes it up finds it free
            driver = other.driver(name)
            other.abort(name, "enough")
            assert driver.drive().status.aborted == "enough"


def test_runs_leave_the_descriptors_to_others_that_select_can_take(
    tmp_path: Path, at_work: Callable[[Manager], None]
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2000:
        pytest.skip("this process may not have so many descriptors")
    opened = opener(tmp_path, lambda: RealTime().tools())
    with opened() as kept:
        kept.create(made("long", baseline="300s"))
        at_work(Manager(opened))
        numbers: list[int] = []

        def locks() -> list[int]:
            for link in Path("/proc/self/fd").iterdir():
                with suppress(FileNotFoundError):
                    target = str(link.readlink())
                    if target.startswith(str(kept._locks)) and int(link.name) >= 1024:
                        numbers.append(int(link.name))
            return numbers

        until(locks)


# ---------------------------------------------------------------------- the hands


def test_short_work_is_done_by_few_threads() -> None:
    mine, done = Hands(), threading.Semaphore(0)
    for _ in range(500):
        mine.do(done.release, at_once=False)
    for _ in range(500):
        assert done.acquire(timeout=10)
    assert len(mine._all) <= 4 * hands.FEW  # a busy machine may make it look as if some hung


@pytest.mark.parametrize("seed", range(3))
def test_what_hangs_keeps_nobody_waiting_for_long(seed: int) -> None:
    mine, release, chance = Hands(), threading.Event(), random.Random(seed)
    done: list[int] = []
    waiting = [lambda: release.wait(30)] * 60
    try:
        for each in waiting:
            mine.do(each, at_once=False)  # type: ignore[arg-type]
        for number in range(20):
            mine.do(lambda n=number: done.append(n), at_once=chance.random() < 0.5)  # type: ignore[misc]
        until(lambda: len(done) == 20, 10)
    finally:
        release.set()


def test_what_must_be_done_at_once_is_done_while_everything_hangs() -> None:
    mine, release, done = Hands(), threading.Event(), threading.Event()
    try:
        for _ in range(hands.FEW):
            mine.do(lambda: release.wait(30), at_once=False)  # type: ignore[arg-type,return-value]
        mine.do(done.set, at_once=True)
        assert done.wait(5)
        assert not mine._todo
    finally:
        release.set()


def test_work_that_fails_takes_its_thread_with_it_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    mine, done = Hands(), threading.Semaphore(0)

    def fails() -> None:
        time.sleep(0.01)
        raise RuntimeError("nobody foresaw this")

    for _ in range(3 * hands.FEW):
        mine.do(fails, at_once=False)
    for _ in range(20):
        mine.do(done.release, at_once=False)
    for _ in range(20):
        assert done.acquire(timeout=10)


def test_threads_that_have_nothing_to_do_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "IDLE", 0.1)
    mine, done = Hands(), threading.Semaphore(0)
    for _ in range(10):
        mine.do(done.release, at_once=True)
    until(lambda: not mine._all)
    mine.do(done.release, at_once=False)
    for _ in range(11):
        assert done.acquire(timeout=10)
