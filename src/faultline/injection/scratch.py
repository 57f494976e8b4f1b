"""Scratch ground that takes root: a disk behind a loop device, a control group with little memory.

Faults of disks and memory are tried on these, never on the machine's own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

from faultline.errors import FaultlineError
from faultline.kernel import cgroup
from faultline.kernel.blockio import Device
from faultline.kernel.cgroup import Group
from faultline.kernel.memory import process_memory

DISK = 64 << 20  # bytes
MEMORY = 256 << 20  # bytes, at least
_numbers = itertools.count()
_PATIENCE = 10.0  # seconds until what still uses it has gone


@contextlib.contextmanager
def disk(folder: Path) -> Generator[tuple[Path, str]]:
    """An ext4 in a file beside `folder`: where it is mounted, and its device as major:minor.

    Where that cannot be had (no root, no loop device, no mkfs.ext4) it is `folder` itself, and
    whichever device that lies on.
    """
    image, point = folder.with_suffix(".img"), folder.with_suffix(".disk")
    tools = all(map(shutil.which, ("mkfs.ext4", "mount", "umount")))
    if os.geteuid() != 0 or not tools:
        yield folder, _device(folder)
        return
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK)
    try:
        made = _done("mkfs.ext4", "-q", "-F", str(image)) and _done(
            "mount", "-o", "loop", str(image), str(point)
        )
        if not made:
            yield folder, _device(folder)
            return
        try:
            yield point, _device(point)
        finally:
            _unmount(point)
    finally:
        image.unlink()
        point.rmdir()


def _done(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _device(folder: Path) -> str:
    try:
        return str(Device.of_path(folder))
    except FaultlineError:
        return "0:0"  # there is none; whoever needs one says so


def _unmount(point: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while not _done("umount", str(point)):
        if time.monotonic() > until:
            _done("umount", "--lazy", str(point))
            return
        time.sleep(0.05)


@contextlib.contextmanager
def little_memory() -> Generator[None]:
    """Put this process into a control group that may use little, where that is possible.

    More than twice what this process itself has, or the out-of-memory killer, which takes the
    largest, would end it instead of the process that fills the group.
    """
    layout = cgroup.layout()
    if os.geteuid() != 0 or "memory" not in layout.controllers():
        yield
        return
    home = layout.group_of(os.getpid(), "memory")
    group = home.beside(f"trial-{os.getpid()}-{next(_numbers)}")
    group.create()
    size = max(MEMORY, 2 * process_memory(os.getpid()).resident + (64 << 20))
    try:
        parent = group.enable("memory")
        group.write("memory.max" if group.version == 2 else "memory.limit_in_bytes", str(size))
        group.add(os.getpid())
        try:
            yield
        finally:
            home.add(os.getpid())
            _remove(group, home)
            if parent is not None:
                parent.disable("memory")
    finally:
        group.remove()


def _remove(group: Group, home: Group) -> None:
    """Idle keepers that were started inside go on outside."""
    until = time.monotonic() + _PATIENCE
    while True:
        group.evacuate(home)
        try:
            group.remove()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
