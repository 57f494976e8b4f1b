"""A place with control groups of its own, one below the other, as a container with groups has."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from faultline.kernel import cgroup
from faultline.kernel.cgroup import Group
from faultline.places.find import Target

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "io")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Grouped:
    """A process in `PATH/inner` of each hierarchy."""

    process: subprocess.Popen[bytes]
    path: str
    layout: cgroup.Layout

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def target(self) -> Target:
        return Target(cgroup=self.path)

    def top(self, controller: str) -> Group:
        return self.layout.root(controller).child(self.path.strip("/"))

    def inner(self, controller: str) -> Group:
        return self.top(controller).child("inner")


Make = Callable[..., Grouped]


@pytest.fixture
def grouped() -> Iterator[Make]:
    """Starts Python code in nested groups of its own; `end` removes both when it has ended."""
    layout = cgroup.layout()
    with ExitStack() as stack:

        def make(code: str = "", **limits: str) -> Grouped:
            path = f"/place-test-{os.getpid()}-{next(_numbers)}"
            body = f"import time, sys\nsys.stdin.readline()\n{code}\ntime.sleep(60)\n"
            command = [sys.executable, "-I", "-S", "-c", body]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            made = Grouped(process, path, layout)
            tops: dict[str, Group] = {}
            for controller in sorted(layout.controllers() & set(_CONTROLLERS)):
                top = made.top(controller)
                if str(top.folder) not in tops:
                    top.create()
                    stack.callback(_remove, top)
                    top.child("inner").create()
                    stack.callback(_remove, top.child("inner"))
                tops[str(top.folder)] = top
                for group in (top, top.child("inner")):
                    parent = group.enable(controller)
                    if parent is not None and parent != top:
                        stack.callback(_disable, parent, controller)
            for top in tops.values():
                top.child("inner").add(process.pid)
                for name, text in limits.items():
                    if top.has(file := name.replace("__", ".")):
                        top.write(file, text)
            stack.callback(_end, process)
            assert process.stdin
            process.stdin.write(b"\n")
            process.stdin.close()
            return made

        yield make


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _disable(group: Group, controller: str) -> None:
    with suppress(OSError):  # somebody else has come to use it
        group.disable(controller)


def _remove(group: Group) -> None:
    """Whoever else was put into it goes on outside."""
    until = time.monotonic() + 10
    while group.exists():
        with suppress(OSError):
            group.evacuate(Group(group.hierarchy, group.hierarchy.root))
            group.remove()
            return
        assert time.monotonic() < until, f"{group.folder} stays busy: {group.pids()}"
        time.sleep(0.02)
