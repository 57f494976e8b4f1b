"""Two keepers hold every fault, watch each other, and outlive whatever is done to one of them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lifeground import SECOND, SOURCE, Ground, keepers_of, kill, record, until

import faultline
from faultline.changes import keepers, leaving, undo, wire
from faultline.changes.journal import Journal
from faultline.changes.model import Change, End, State, Step
from faultline.changes.store import open_store
from faultline.errors import NotRecorded
from faultline.injection import registry
from faultline.kernel import clock, procfs
from faultline.places.model import host

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]


def _ask(ground: Ground, role: str, message: dict[str, Any]) -> dict[str, Any]:
    connection = keepers.connect(ground.store, role)
    assert connection
    with connection:
        return keepers.ask(connection, message)


def _held(ground: Ground) -> dict[str, set[str]]:
    return keepers.armed(ground.store)


def test_both_hold_a_fault_and_its_deadline_is_met_with_nobody_there(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.inject(ground.order(1.0, uid="short"))
        assert _held(ground) == {"a": {"short"}, "b": {"short"}}
    assert ground.target.exists()
    assert until(lambda: not ground.target.exists())
    assert clock.now() - made.deadline < 3 * SECOND
    assert ground.ended("short") is End.RECOVERED
    assert ground.names() == ["kept"]


def test_the_deadline_is_not_met_early(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.inject(ground.order(1.0))
        while clock.now() < made.deadline - 100_000_000:
            assert ground.target.exists()
            time.sleep(0.02)


def test_a_killed_keeper_is_started_again_by_its_twin_and_takes_over(ground: Ground) -> None:
    with ground.injector() as injector:
        injector.inject(ground.order(60.0, uid="long"))
    for role in ("a", "b"):
        before = keepers_of(ground.store)[role]
        kill(before)
        assert until(lambda: _held(ground).get(role) == {"long"}), role  # noqa: B023
        assert keepers_of(ground.store)[role].pid != before.pid
    with ground.injector() as injector:
        assert injector.recover("long").end is End.RECOVERED
    assert until(lambda: _held(ground) == {"a": set(), "b": set()})


def test_one_keeper_alone_meets_the_deadline(ground: Ground) -> None:
    """Its twin is stopped, so that it is neither there nor started again."""
    for role in ("a", "b"):
        with ground.injector() as injector:
            injector.inject(ground.order(1.2, uid=f"without-{role}"))
        stopped = keepers_of(ground.store)[role]
        stopped.id.send(signal.SIGSTOP)
        try:
            assert ground.ended(f"without-{role}") is End.RECOVERED
            assert ground.names() == ["kept"]
        finally:
            stopped.id.send(signal.SIGCONT)
        assert until(lambda: not any(_held(ground).values()))


def test_with_a_keeper_stopped_a_recovery_is_done_by_the_other(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.inject(ground.order())
        stopped = keepers_of(ground.store)["a"]
        stopped.id.send(signal.SIGSTOP)
        try:
            assert injector.recover(made.uid).end is End.RECOVERED
            assert ground.names() == ["kept"]
        finally:
            stopped.id.send(signal.SIGCONT)


def test_a_stopped_twin_does_not_hold_up_many_deadlines(ground: Ground) -> None:
    """It stops reading; what it is told piles up and must not make the other one wait."""
    with ground.injector() as injector:
        for number in range(14):
            injector.inject(ground.order(2.5, uid=f"n{number}", name=f"file{number}"))
        stopped = keepers_of(ground.store)["b"]
        stopped.id.send(signal.SIGSTOP)
        try:
            last = max(each.deadline for each in injector.query())
            assert until(lambda: ground.names() == ["kept"], 30.0)
            assert clock.now() - last < 5 * SECOND
        finally:
            stopped.id.send(signal.SIGCONT)
        assert until(lambda: all(each.state is State.ENDED for each in injector.query()))


def test_with_both_killed_the_next_start_of_anything_takes_over(ground: Ground) -> None:
    with ground.injector() as injector:
        injector.inject(ground.order(1.0, uid="orphan"))
        injector.inject(ground.order(60.0, uid="longer", name="other"))
    # Both at once, or the one left would start the other again.
    found = list(keepers_of(ground.store).values())
    for process in found:
        process.id.send(signal.SIGSTOP)
    for process in found:
        kill(process)
    time.sleep(1.2)
    other = ground.folder / "other"
    assert ground.target.exists()
    assert other.exists()
    with ground.injector() as injector:
        injector.adopt()
        assert ground.ended("orphan") is End.RECOVERED
        assert not ground.target.exists()
        assert other.exists()
        assert until(lambda: _held(ground) == {"a": {"longer"}, "b": {"longer"}})
        assert injector.recover("longer").end is End.RECOVERED


def test_a_recovery_needs_no_keeper(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.inject(ground.order())
        for process in keepers_of(ground.store).values():
            process.id.send(signal.SIGSTOP)
        for process in keepers_of(ground.store).values():
            kill(process)
        assert injector.recover(made.uid).end is End.RECOVERED
    assert ground.names() == ["kept"]


def test_idle_keepers_end_and_leave_no_socket(ground: Ground) -> None:
    keepers.wake(ground.store)
    assert sorted(keepers_of(ground.store)) == ["a", "b"]
    assert until(lambda: not keepers_of(ground.store), 20.0)
    assert not ground.store.socket("a").exists()


def test_with_a_store_that_was_thrown_away_its_folder_in_memory_goes_too(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state")
    keepers.wake(store)
    assert keepers_of(store)
    (store.run / "marks").mkdir()
    note = store.run / "marks" / "one"
    note.touch()
    shutil.rmtree(store.state)
    leaving.forget_thrown_away(store)
    assert store.run.exists(), "it holds a note about a change"
    note.unlink()
    leaving.forget_thrown_away(store)
    assert store.run.exists(), "keepers hold their locks in it"
    keepers.dismiss(store)
    assert until(lambda: not list(store.run.parent.glob(f"{store.run.name}*")))


def test_a_tied_fault_ends_with_the_process_that_made_it(ground: Ground) -> None:
    program = (
        "import os, time, faultline\n"
        f"path = {str(ground.target)!r}\n"
        "with faultline.fault('file.add', path=path, content='x', fault_uid='tied'):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "FAULTLINE_STATE": str(ground.state)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == b"in\n"
        assert ground.target.exists()
        process.kill()
        process.wait()
    assert until(lambda: ground.names() == ["kept"])
    assert ground.ended("tied") is End.RECOVERED


def test_a_session_is_undone_when_its_block_is_left_and_again_when_it_is_entered_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTLINE_STATE", str(ground.state))
    session = faultline.fault("file.add", path=str(ground.target), content="x")
    for _ in range(2):
        with session:
            assert ground.target.exists()
        assert ground.names() == ["kept"]


# ------------------------------------------------------------------------------ what they are told


def test_a_connection_that_closes_before_the_commit_is_an_injector_that_died(
    ground: Ground,
) -> None:
    fault = registry.get("file.add")
    params = fault.params_type().read({"path": str(ground.target), "content": "ours"})
    made = record("half", *(Step(change) for change in fault.plan(host(), params)))
    undo.capture(made, undo.contexts(made, None, str(ground.store.run), ""))
    with Journal(ground.store) as journal:
        journal.add(made)
    watch = keepers.Keepers(ground.store)
    try:
        watch.start()
        watch.arm(made, None)
        assert _held(ground) == {"a": {"half"}, "b": {"half"}}
    finally:
        watch.close()
    assert ground.ended("half") is End.RECOVERED
    assert until(lambda: not any(_held(ground).values()))
    again = keepers.Keepers(ground.store)
    try:
        again.start()
        with pytest.raises(NotRecorded, match="undone before it was committed"):
            again.commit("half", [{}])
    finally:
        again.close()


def test_a_fault_that_was_undone_cannot_be_committed(ground: Ground) -> None:
    keepers.wake(ground.store)
    assert "error" in _ask(ground, "a", {"op": "commit", "uid": "no", "made": [], "tied": False})
    assert "error" in _ask(ground, "a", {"op": "undo", "uid": "no"})
    assert _ask(ground, "a", {"op": "forget", "uid": "no"}) == {"ok": True}


HOSTILE = [
    b"", b"{", b"[]", b"17", b"null", b'"op"', b"\xff\xfe", b'{"op": "arm"}', b'{"op": ["arm"]}',
    b'{"op": "arm", "record": 5}', b'{"op": "arm", "record": {"schema": 99, "uid": "x"}}',
    b'{"op": "arm", "record": {"uid": "x", "steps": [{}], "state": "?"}}',
    b'{"op": "commit"}', b'{"op": "commit", "uid": {}, "made": 3, "tied": 0}',
    b'{"op": "undo", "uid": []}', b'{"op": "forget", "uid": {}}', b'{"op": "_replay"}',
    b'{"ok": true}', b"x" * 100_000, b"{" * 100_000,
]  # fmt: skip


def test_hostile_messages_cost_a_keeper_nothing(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.inject(ground.order(uid="safe"))
        process = keepers_of(ground.store)["a"]
        before = _descriptors(process)
        for message in HOSTILE * 3:
            connection = keepers.connect(ground.store, "a")
            assert connection
            with connection:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _two(connection))]
                connection.sendmsg([message or b" "], rights)
        assert _ask(ground, "a", {"op": "status"})["armed"] == ["safe"]
        assert until(lambda: _descriptors(process) <= before), "descriptors were kept"
        assert keepers_of(ground.store)["a"].pid == process.pid
        assert injector.recover(made.uid).end is End.RECOVERED


def _two(connection: socket.socket) -> bytes:
    return connection.fileno().to_bytes(4, sys.byteorder) * 2


def _descriptors(process: procfs.Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def test_a_record_that_no_keeper_can_take_refuses_the_injection(ground: Ground) -> None:
    keepers.wake(ground.store)
    watch = keepers.Keepers(ground.store)
    watch.start()
    try:
        with pytest.raises(NotRecorded, match="of-the-future"):
            watch.arm(record("u1", Step(Change("of-the-future", {}))), None)
    finally:
        watch.close()
    assert _held(ground) == {"a": set(), "b": set()}


def test_a_record_that_cannot_be_kept_does_not_keep_the_keepers_from_the_others(
    ground: Ground,
) -> None:
    with ground.injector() as injector:
        injector.inject(ground.order(60.0, uid="good"))
    for process in keepers_of(ground.store).values():
        process.id.send(signal.SIGSTOP)
    for process in keepers_of(ground.store).values():
        kill(process)
    strange = record("strange", Step(Change("of-the-future", {})))
    strange.created = 0.0  # the first that they meet
    with Journal(ground.store) as journal:
        journal.add(strange)
    keepers.wake(ground.store)
    assert _held(ground) == {"a": {"good"}, "b": {"good"}}
    log = (ground.store.run / "keeper.a.log").read_text()
    assert "strange cannot be kept" in log
    with Journal(ground.store) as journal:
        journal.end("strange", End.NOTHING)


def test_a_message_and_its_descriptors_arrive_together() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        wire.channel(one)
        big = {"op": "x", "data": "y" * 200_000}
        wire.send(one, big, [one.fileno()])
        got = wire.receive(two)
        assert got
        assert got[0] == big
        assert len(got[1]) == 1
        wire.close(got[1])
        assert wire.check_peer(one) == os.getpid()
        one.close()
        assert wire.receive(two) is None


def test_a_keeper_needs_little_memory(ground: Ground) -> None:
    keepers.wake(ground.store)
    process = keepers_of(ground.store)["a"]
    status = (procfs.PROC / str(process.pid) / "status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    assert resident < 24 * 1024  # kB; the figure itself is published by the benchmarks
