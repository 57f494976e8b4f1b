"""Starts workers as they are started for real: forked by a bare interpreter, with an order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import spawning
from faultline.kernel import cgroup, clock, procfs
from faultline.kernel.cgroup import Group
from faultline.workers import figures

SOURCE = str(Path(figures.__file__).parents[2])


class Running:
    """A worker with its children."""

    def __init__(
        self,
        module: str,
        spec: dict[str, Any],
        seconds: float,
        folder: Path,
        target: dict[str, int] | None = None,
    ) -> None:
        self.mark = f"faultline:t{uuid.uuid4().hex[:12]}:0"
        self.stats = str(folder / f"stats-{self.mark.split(':')[1]}")
        self.deadline = clock.now() + int(seconds * 1e9)
        extra = {"mark": self.mark, "deadline": self.deadline, "stats": self.stats}
        order = {"module": module, "deadline": self.deadline, "spec": {**spec, **extra}}
        order["target"] = target
        spawning.ready(SOURCE, module)
        with contextlib.closing(spawning.spawn(SOURCE, module, self.mark)) as waiting:
            self.answer: dict[str, Any] = waiting.obey(json.dumps(order).encode(), 60)

    @property
    def ready(self) -> dict[str, Any]:
        assert "ready" in self.answer, self.answer
        return self.answer["ready"]

    def processes(self) -> list[procfs.Process]:
        return procfs.find_marked(self.mark)

    def parent(self) -> procfs.Process:
        """The one whose parent is none of the others."""
        found = self.processes()
        return next(each for each in found if each.ppid not in [other.pid for other in found])

    def children(self) -> list[procfs.Process]:
        parent = self.parent().pid
        return [each for each in self.processes() if each.pid != parent]

    def figures(self) -> dict[str, Any]:
        found = figures.read(self.stats)
        assert found is not None
        return found

    def wait_gone(self, seconds: float = 10) -> bool:
        until = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 15) -> Any:
        """The first figures that meet the condition."""
        until = time.monotonic() + seconds
        while not condition(now := self.figures()):
            assert time.monotonic() < until, now
            time.sleep(0.05)
        return now

    def end(self, signum: int = signal.SIGTERM) -> None:
        for each in self.processes():
            each.id.send(signum)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a worker: module, spec, seconds until its deadline, the process that it ends with."""
    started: list[Running] = []

    def start(
        module: str,
        spec: dict[str, Any],
        seconds: float = 30,
        target: dict[str, int] | None = None,
    ) -> Running:
        started.append(Running(module, spec, seconds, tmp_path, target))
        return started[-1]

    yield start
    for each in started:
        each.end(signal.SIGKILL)
        assert each.wait_gone()


@pytest.fixture
def scratch_group() -> Iterator[Callable[[str], Group]]:
    """Makes a control group with our mark below the root, for a controller."""
    made: list[Group] = []
    enabled: list[tuple[Group, str]] = []

    def make(controller: str) -> Group:
        name = cgroup.group_name(f"t{os.getpid()}", len(made))
        group = cgroup.layout().root(controller).child(name)
        group.create()
        made.append(group)
        parent = group.enable(controller)
        if parent:
            enabled.append((parent, controller))
        return group

    yield make
    for group in reversed(made):
        for _ in range(100):
            try:
                group.remove()
                break
            except OSError:
                for pid in group.pids():
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
    for parent, controller in enabled:
        parent.disable(controller)
