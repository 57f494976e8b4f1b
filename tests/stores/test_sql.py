from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stores import histories

from faultline.api.fault import Fault
from faultline.api.model import Metadata
from faultline.api.run import Run
from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidDocument, UntrustedStore
from faultline.stores.model import Stale
from faultline.stores.opening import open_store
from faultline.stores.sql import SqlStore

WRITERS, ROUNDS = 4, 15


def _fault(name: str, count: int = 0) -> Fault:
    spec = AimedFaultSpec(fault="network.delay", params={"count": count})
    return Fault(metadata=Metadata(name=name), spec=spec)


def _count_up(path: Path) -> None:
    """Add one ROUNDS times, reading again whenever somebody else was faster."""
    with SqlStore(path) as store:
        for _ in range(ROUNDS):
            while True:
                read = store.get(Fault, "shared")
                more = _fault("shared", read.spec.params["count"] + 1).spec
                try:
                    store.update(read.model_copy(update={"spec": more}))
                except Stale:
                    continue
                break


def _forked(work: Callable[[], None]) -> int:
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


def test_writers_in_several_processes_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "resources.db"
    with SqlStore(path) as store:
        store.create(_fault("shared"))
    writers = [_forked(lambda: _count_up(path)) for _ in range(WRITERS)]
    assert [os.waitpid(writer, 0)[1] for writer in writers] == [0] * WRITERS
    with SqlStore(path) as store:
        shared = store.get(Fault, "shared")
    assert shared.spec.params == {"count": WRITERS * ROUNDS}
    assert shared.metadata.generation == 1 + WRITERS * ROUNDS


def _write_until_killed(path: Path, pipe: int) -> None:
    with SqlStore(path) as store:
        for index in range(10**6):
            store.create(_fault(f"f{index}"))
            os.write(pipe, b"%d\n" % index)


def test_what_was_acknowledged_survives_the_kill_of_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "resources.db"
    SqlStore(path).close()
    reader, writer = os.pipe()
    pid = _forked(lambda: _write_until_killed(path, writer))
    os.close(writer)
    with os.fdopen(reader) as lines:
        for _ in range(20):
            lines.readline()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        acknowledged = 20 + sum(1 for line in lines if line.endswith("\n"))
    with SqlStore(path) as store:
        names = {one.metadata.name for one in store.list(Fault)}
    assert {f"f{index}" for index in range(acknowledged)} <= names
    assert len(names) <= acknowledged + 1


def test_a_series_that_somebody_altered_is_refused_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "resources.db"
    with SqlStore(path) as store:
        store.create(histories.run("one", seconds=70))
    db = sqlite3.connect(path)
    altered = "REPLACE(entries, '\"ok\":true', '\"ok\":7')"
    db.execute(
        f"UPDATE series SET entries = {altered} WHERE path = 'probes/1/samples' AND part = 1"
    )
    db.commit()
    db.close()
    with SqlStore(path) as store, pytest.raises(InvalidDocument) as refused:
        store.get(Run, "one")
    assert "status.probes.1.samples.64.ok" in str(refused.value)


def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resources.db"
    SqlStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(InvalidDocument, match="schema 99"):
        SqlStore(path)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resources.db"
    SqlStore(path).close()
    path.chmod(0o666)
    with pytest.raises(UntrustedStore):
        SqlStore(path)


def test_the_store_of_this_host_lies_in_the_state_folder_for_us_alone(tmp_path: Path) -> None:
    with open_store(state=tmp_path / "state") as store:
        store.create(_fault("one"))
    file = tmp_path / "state" / "resources.db"
    assert file.stat().st_mode & 0o077 == 0
