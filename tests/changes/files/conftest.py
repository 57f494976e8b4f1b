"""Applying and undoing single changes, and killing a process at every system call on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.kind import Context, Data, Kind
from faultline.changes.model import Outcome, Presence
from faultline.kernel import clock, syscalls

# What a change does to the world goes through these; a kill before any of them is a crash point.
STEPS = (
    (os, "open"), (os, "pwrite"), (os, "write"), (os, "ftruncate"), (os, "fsync"), (os, "unlink"),
    (os, "rename"), (os, "mkdir"), (os, "rmdir"), (os, "mknod"), (os, "chmod"), (os, "fchmod"),
    (os, "utime"), (syscalls, "renameat2"), (syscalls, "fallocate"),
)  # fmt: skip


@dataclass
class Case:
    """One change on the way through its life."""

    kind: Kind
    spec: Data
    uid: str = "u1"
    prior: Data = field(default_factory=dict[str, Any])
    made: Data = field(default_factory=dict[str, Any])
    index: int = 0

    @property
    def ctx(self) -> Context:
        return Context(self.uid, self.index, clock.now() + 60 * 10**9)

    def capture(self) -> Data:
        self.prior = self.kind.capture(self.spec, self.ctx)
        return self.prior

    def apply(self) -> Data:
        if not self.prior:
            self.capture()
        self.made = self.kind.apply(self.spec, self.prior, self.ctx)
        return self.made

    def undo(self) -> Outcome:
        return self.kind.undo(self.spec, self.prior, {}, self.ctx)

    def presence(self) -> Presence:
        return self.kind.presence(self.spec, self.prior, {}, self.ctx)


def _killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run `action` in a child that is killed before its system call number `step`."""
    pid = os.fork()
    if pid == 0:
        left = [step]

        def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **kwargs: Any) -> Any:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*args, **kwargs)

            return counted

        try:
            for module, name in STEPS:
                setattr(module, name, wrap(getattr(module, name)))
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture
def crash_points() -> Callable[[Callable[[], object], Callable[[], object]], Iterator[int]]:
    """Yields after each kill of `action`; `prepare` makes the world anew before each."""

    def run(prepare: Callable[[], object], action: Callable[[], object]) -> Iterator[int]:
        for step in range(200):
            prepare()
            if not _killed_at(step, action):
                assert step, "nothing was done"
                return
            yield step
        pytest.fail("the action never came to its end")

    return run


@pytest.fixture
def case() -> type[Case]:
    return Case


@pytest.fixture
def small_ext4(tmp_path: Path) -> Iterator[Path]:
    """A loop-mounted file system of 16 MiB with 512 inodes or so, root's reserve included."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    image, point = tmp_path / "image", tmp_path / "mount"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "5", "-N", "512", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=False)
    if mounted.returncode:
        pytest.skip("no loop devices here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB with 300 inodes."""
    point = tmp_path / "tmpfs"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=300", "none", str(point)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def ours(folder: Path) -> list[str]:
    """What of ours lies in a folder."""
    return sorted(each.name for each in folder.iterdir() if each.name.startswith(".faultline"))


@pytest.fixture(name="ours")
def ours_fixture() -> Callable[[Path], list[str]]:
    return ours
