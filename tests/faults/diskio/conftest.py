"""A scratch disk, a process that uses it without pause, and control groups to put it in."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.kernel import blockio, cgroup, procfs
from faultline.kernel.blockio import Device
from faultline.kernel.cgroup import Group

READ = """
import mmap, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
out = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
buffer, total = mmap.mmap(-1, 65536), 0
while True:
    total += os.preadv(fd, [buffer], total % (32 << 20))
    os.pwrite(out, struct.pack("q", total), 0)
"""
WRITE = """
import os, struct, sys
fd = os.open(sys.argv[1] + "/victim", os.O_RDWR | os.O_CREAT)
out = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
total = 0
while True:
    total += os.pwrite(fd, os.urandom(65536), total % (8 << 20))
    os.fsync(fd)
    os.pwrite(out, struct.pack("q", total), 0)
"""


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


class Victim:
    """A process that uses the disk, and how far it has come."""

    def __init__(self, program: str, where: str, told: Path) -> None:
        self._told = told
        told.write_bytes(bytes(8))
        self.process = subprocess.Popen([sys.executable, "-I", "-c", program, where, str(told)])
        self.id = procfs.ProcessId.of(self.process.pid)
        until(lambda: self.bytes)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def bytes(self) -> int:
        return struct.unpack("q", self._told.read_bytes())[0]

    @property
    def state(self) -> str:
        return procfs.process(self.pid).state

    def rate(self, seconds: float) -> float:
        before, begin = self.bytes, time.monotonic()
        time.sleep(seconds)
        return (self.bytes - before) / (time.monotonic() - begin)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Device]]:
    """An ext4 of 64 MiB behind a loop device: where it is mounted, and its numbers."""
    image, point = tmp_path / "image", tmp_path / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=False).returncode:
        pytest.skip("no loop devices here")
    yield point, Device.of_path(point)
    until(lambda: not subprocess.run(["umount", str(point)], check=False).returncode)


@pytest.fixture
def node(disk: tuple[Path, Device]) -> str:
    return f"/dev/{disk[1].name}"


@pytest.fixture
def victim(disk: tuple[Path, Device], tmp_path: Path) -> Iterator[Callable[[str], Victim]]:
    """Starts a process that reads the node, or writes below the folder, that it is given."""
    started: list[Victim] = []

    def start(where: str) -> Victim:
        program = READ if where.startswith("/dev/") else WRITE
        started.append(Victim(program, where, tmp_path / f"told-{len(started)}"))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def injector(tmp_path: Path, victim: object) -> Iterator[Injector]:
    """Recovers before the victims are waited for: what hangs cannot be killed."""
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


_numbers = itertools.count()


@pytest.fixture
def group() -> Iterator[Callable[..., Group]]:
    """Makes a control group with limits on block I/O; below `parent`, else below the root."""
    layout = cgroup.layout()
    made: list[Group] = []

    def make(parent: Group | None = None, enable: bool = True) -> Group:
        above = parent or layout.root("io" if "io" in layout.controllers() else "blkio")
        found = above.child(f"diskio-test-{os.getpid()}-{next(_numbers)}")
        found.create()
        made.append(found)
        if enable:
            found.enable("io")
        return found

    yield make
    for each in reversed(made):
        for pid in each.pids():
            os.kill(pid, signal.SIGKILL)
        blockio.lift_limits(each)
        until(lambda each=each: _removed(each))


def _removed(group: Group) -> bool:
    try:
        group.remove()
    except OSError:
        return False
    return True
