"""Workers are forked by a helper; whoever dies meanwhile leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifeground import SECOND, SOURCE, until

from faultline.changes import spawning
from faultline.kernel import clock, netns, procfs


class Ground:
    """A copy of the code of the test's own, by whose path its helpers are known."""

    def __init__(self, code: Path) -> None:
        self.code = str(code)

    def helpers(self) -> list[procfs.Process]:
        """Those that are there, and workers that carry no mark yet."""
        words = f"{self.code} faultline.workers.__main__ {spawning.PLACEHOLDER}"
        return procfs.find_by_cmdline(words)

    def ready(self) -> None:
        spawning.ready(self.code, "load")

    def spawn(self, mark: str, module: str = "load") -> spawning.Waiting:
        return spawning.spawn(self.code, module, mark)

    def begin(self, mark: str, module: str = "load") -> dict[str, Any]:
        with contextlib.closing(self.spawn(mark, module)) as waiting:
            return waiting.obey(order(), 20.0)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """No helper stays."""
    (tmp_path / "code").symlink_to(SOURCE)
    made = Ground(tmp_path / "code")
    yield made
    spawning.forget()
    assert until(lambda: not made.helpers())


def order(seconds: float = 20.0) -> bytes:
    deadline = clock.now() + round(seconds * SECOND)
    held = {"count": 1, "deadline": deadline, "mark": "", "stats": ""}
    return json.dumps({"deadline": deadline, "spec": held}).encode()


def end(mark: str) -> None:
    for each in procfs.find_marked(mark):
        each.id.send(signal.SIGKILL)
    assert until(lambda: not procfs.find_marked(mark))


def test_one_helper_serves_many_workers_and_is_nobody_s_child(ground: Ground) -> None:
    ground.ready()
    try:
        assert "ready" in ground.begin("faultline:many:0")
        (helper,) = ground.helpers()
        assert "ready" in ground.begin("faultline:many:1")
        assert [each.pid for each in ground.helpers()] == [helper.pid]
        assert helper.ppid != os.getpid()
        worker = procfs.find_marked("faultline:many:1")[0]
        assert worker.cmdline[-1] == "faultline:many:1"
        assert worker.ppid != helper.pid
    finally:
        end("faultline:many")


def test_without_a_helper_a_worker_gets_one_that_ends_after_it(ground: Ground) -> None:
    try:
        assert "ready" in ground.begin("faultline:once:0")
        assert until(lambda: not ground.helpers())
        assert procfs.find_marked("faultline:once:0")
    finally:
        end("faultline:once")


def test_a_killed_helper_is_replaced(ground: Ground) -> None:
    ground.ready()
    assert until(lambda: len(ground.helpers()) == 1)
    ground.helpers()[0].id.send(signal.SIGKILL)
    try:
        assert "ready" in ground.begin("faultline:after:0")
    finally:
        end("faultline:after")


def test_a_worker_is_marked_before_it_gets_an_order_and_ends_without_one(ground: Ground) -> None:
    ground.ready()
    waiting = ground.spawn("faultline:idle:0")
    assert procfs.find_marked("faultline:idle:0")
    waiting.close()
    assert until(lambda: not procfs.find_marked("faultline:idle:0"))


def test_a_worker_whose_spawner_was_killed_before_the_order_ends(ground: Ground) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.closing(ground.spawn("faultline:orphan:0")):
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    assert procfs.find_marked("faultline:orphan:0")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert until(lambda: not procfs.find_marked("faultline:orphan:0"))


def test_a_fork_does_not_share_the_helper_of_its_parent(ground: Ground) -> None:
    ground.ready()
    assert until(lambda: len(ground.helpers()) == 1)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        spawning.forget()
        assert until(lambda: not ground.helpers()), "the child keeps its parent's helper alive"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_a_worker_complains_of_is_told(ground: Ground) -> None:
    assert "No module named" in ground.begin("faultline:no:0", "no_such")["error"]


@pytest.mark.needs_netns
def test_a_worker_is_in_the_network_of_its_spawner_and_the_helper_is_not(ground: Ground) -> None:
    ground.ready()
    namespace = netns.create()
    try:
        with netns.entered(namespace):
            assert "ready" in ground.begin("faultline:inside:0")
        there = os.fstat(namespace).st_ino
        worker = procfs.find_marked("faultline:inside:0")[0].pid
        assert Path(f"/proc/{worker}/ns/net").stat().st_ino == there
        assert Path(f"/proc/{ground.helpers()[0].pid}/ns/net").stat().st_ino != there
    finally:
        os.close(namespace)
        end("faultline:inside")
