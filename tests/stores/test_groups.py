"""Writes of several threads that go to disk together: each is acknowledged when it is there, and
one that fails fails alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from tests.stores import histories
from tests.stores.server import Server

from faultline.api.fault import Fault
from faultline.api.model import Metadata
from faultline.api.run import Point, Run
from faultline.api.targets import AimedFaultSpec
from faultline.stores.grouping import Groups
from faultline.stores.model import Exists, Stale, Store, StoreFailed
from faultline.stores.opening import open_store
from faultline.stores.postgres import PostgresDatabase
from faultline.stores.sql import SqlStore
from faultline.stores.sqlite import SqliteDatabase

THREADS = 12


def fault(name: str) -> Fault:
    return Fault(metadata=Metadata(name=name), spec=AimedFaultSpec(fault="network.delay"))


def told(run: Run, number: int) -> Run:
    point = Point(at=0.0, boot_ns=number, event="step")
    changed = {"timeline": [*run.status.timeline, point]}
    return run.model_copy(update={"status": run.status.model_copy(update=changed)})


def together(work: Sequence[Callable[[], object]]) -> list[object]:
    """All at the same time; what each came to, an error included."""
    gate = threading.Barrier(len(work))

    def one(each: Callable[[], object]) -> object:
        gate.wait()
        try:
            return each()
        except (Stale, Exists, StoreFailed) as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(one, work))


def held(store: Store, many: int) -> Callable[[], None]:
    """Hold the turn until so many wait for it; what is to be called then."""
    db: SqliteDatabase | PostgresDatabase = store._db  # type: ignore[attr-defined]
    group = db.writing()
    group.__enter__()

    def go() -> None:
        while db._groups.queued < many:
            time.sleep(0.001)
        group.__exit__(None, None, None)

    return go


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many writes went to disk each time."""
    found: list[int] = []
    settle = Groups.settle

    def counted(self: Groups, group: object) -> None:
        found.append(group.writes)  # type: ignore[attr-defined]
        settle(self, group)  # type: ignore[arg-type]

    monkeypatch.setattr(Groups, "settle", counted)
    return found


def test_writes_that_wait_go_to_disk_together(store: Store, commits: list[int]) -> None:
    commits.clear()
    go = held(store, THREADS)
    threads = [
        threading.Thread(target=store.create, args=(fault(f"f{n}"),)) for n in range(THREADS)
    ]
    for each in threads:
        each.start()
    go()
    for each in threads:
        each.join()
    assert sum(commits) == THREADS + 1
    assert len(commits) < THREADS
    assert store.count(Fault) == THREADS
    versions = [each.version for each in store.summaries(Fault)]
    assert sorted(versions) == list(range(1, THREADS + 1))


def test_engines_that_write_what_others_write_wait_and_do_not_lock_each_other_out(
    opener: Callable[[], Store],
) -> None:
    """Each holds what it has written until its transaction ends; all of them want the same."""
    stores = [opener() for _ in range(3)]
    names = [f"shared-{n}" for n in range(4)]
    for name in names:
        stores[0].create(fault(name))

    def change(store: Store, order: Sequence[str]) -> None:
        done = 0
        for _ in range(8):
            for name in order:
                found = store.get(Fault, name)
                with contextlib.suppress(Stale):
                    store.update(found)
                    done += 1
        assert done

    work = [partial(change, store, order) for store in stores for order in (names, names[::-1]) * 2]
    assert together(work) == [None] * len(work)


def test_a_connection_that_is_lost_in_a_group_takes_what_was_in_it_and_no_more(
    postgres: Server,
) -> None:
    with open_store(postgres.database()) as store:
        go = held(store, 3)
        results: list[object] = []

        def cut() -> None:
            with store._db.writing():  # type: ignore[attr-defined]
                store._db.rows("SELECT pg_terminate_backend(pg_backend_pid())")  # type: ignore[attr-defined]

        def kept(act: Callable[[], object]) -> None:
            try:
                results.append(act())
            except StoreFailed as error:
                results.append(error)

        acts = [partial(store.create, fault("a")), cut, partial(store.create, fault("b"))]
        threads = [threading.Thread(target=kept, args=(each,)) for each in acts]
        for each in threads:
            each.start()
        with contextlib.suppress(StoreFailed):
            go()
        for each in threads:
            each.join(30)
        there = {each.name for each in store.summaries(Fault)}
        assert there == {each.metadata.name for each in results if isinstance(each, Fault)}
        assert any(isinstance(each, StoreFailed) for each in results)
        store.create(fault("after"))


def test_one_that_is_refused_is_refused_alone(store: Store) -> None:
    made = [store.create(histories.run(f"r{n}", n, 0, ended=False)) for n in range(THREADS)]
    first = len(made[0].status.timeline)
    for number in range(5):
        stale = made[0]
        made[0] = store.write_status(told(stale, number))
        work = [partial(store.write_status, told(each, number)) for each in made]
        late = partial(store.write_status, told(stale, 99))
        results = together([*work, late, partial(store.create, made[1])])
        assert [type(each) for each in results] == [Run] * THREADS + [Stale, Exists]
        made = [each for each in results if isinstance(each, Run)]
        assert [store.get(Run, each.metadata.name) for each in made] == made
    steps = [len(each.status.timeline) - first for each in made]
    assert steps == [10, *[5] * (THREADS - 1)]


def test_who_was_refused_sees_what_was_written_before_it(store: Store) -> None:
    def create_or_get(name: str) -> Fault:
        try:
            return store.create(fault(name))
        except Exists:
            return store.get(Fault, name)

    for number in range(10):
        results = together([partial(create_or_get, f"g{number}")] * 6)
        assert len({each.metadata.uid for each in results if isinstance(each, Fault)}) == 1


def test_nobody_sees_what_is_not_on_disk_yet(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "r.db") as store:
        db = store._db
        with db.writing():
            version = db.bump()
            assert db.rows("SELECT version FROM counter") == [(version,)]
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(store.version).result(10) == version - 1
        assert store.version() == version


def test_what_fails_on_its_way_to_disk_fails_for_everybody(tmp_path: Path) -> None:
    """A disk that is full: the whole of it was taken back, and everybody is told."""
    with SqlStore(tmp_path / "r.db") as store:
        db = store._db
        assert isinstance(db, SqliteDatabase)
        db.rows("SELECT 1")
        ((pages,),) = db.connection.execute("PRAGMA page_count").fetchall()
        db.connection.execute(f"PRAGMA max_page_count = {pages}")
        big = Fault(
            metadata=Metadata(name="big"),
            spec=AimedFaultSpec(fault="file.add", params={"x": "y" * 200_000}),
        )
        go = held(store, 3)
        results: list[object] = []

        def write(each: Fault) -> None:
            try:
                results.append(store.create(each))
            except StoreFailed as error:
                results.append(error)

        threads = [
            threading.Thread(target=write, args=(each,)) for each in (fault("a"), big, fault("b"))
        ]
        for each in threads:
            each.start()
        try:
            go()
        except StoreFailed as error:
            results.append(error)
        for each in threads:
            each.join()
        assert any(isinstance(each, StoreFailed) for each in results)
        there = {each.name for each in store.summaries(Fault)}
        acknowledged = {each.metadata.name for each in results if isinstance(each, Fault)}
        assert there == acknowledged
        db.connection.execute("PRAGMA max_page_count = 1000000")
        store.create(fault("after"))
        assert store.get(Fault, "after")


def test_an_interrupt_while_others_write_leaves_nothing_open(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "r.db") as store:
        db = store._db

        def interrupted() -> None:
            with db.writing():
                db.bump()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        store.create(fault("next"))
        assert store.version() == 1


def _write_until_killed(path: Path, pipe: int) -> None:
    with SqlStore(path) as store:

        def many(thread: int) -> None:
            for number in range(10**6):
                store.create(fault(f"f{thread}-{number}"))
                os.write(pipe, b"f%d-%d\n" % (thread, number))

        threads = [threading.Thread(target=many, args=(n,)) for n in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()


def test_nothing_acknowledged_is_lost_when_its_writer_is_killed(tmp_path: Path) -> None:
    for turn in range(2):
        path = tmp_path / f"r{turn}.db"
        SqlStore(path).close()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _write_until_killed(path, writer)
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as lines:
            told = [lines.readline() for _ in range(100)]
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            told += [line for line in lines if line.endswith("\n")]
        with SqlStore(path) as store:
            there = {each.name for each in store.summaries(Fault)}
            assert {line.strip() for line in told} <= there
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
