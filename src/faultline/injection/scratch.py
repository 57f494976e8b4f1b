"""Scratch ground that takes root: a disk behind a loop device, a control group with little memory.

Faults of disks and memory are tried on these, never on the machine's own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from faultline.errors import FaultlineError
from faultline.kernel import cgroup, devmapper, link, procfs, syscalls
from faultline.kernel.blockio import Device
from faultline.kernel.cgroup import Group
from faultline.kernel.memory import process_memory
from faultline.kernel.netlink import Netlink

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


@contextlib.contextmanager
def mapped(folder: Path) -> Generator[Path]:
    """An ext4 on a mapped device of its own, over a file; where that cannot be had, `folder`."""
    image, point = folder.with_suffix(".dm"), folder.with_suffix(".mapped")
    tools = all(map(shutil.which, ("losetup", "mkfs.ext4", "mount", "umount")))
    if os.geteuid() != 0 or not tools or not Path(devmapper.CONTROL).exists():
        yield folder
        return
    name = f"trial-{os.getpid()}-{next(_numbers)}"
    with contextlib.ExitStack() as stack:
        point.mkdir()
        stack.callback(point.rmdir)
        with image.open("wb") as file:
            file.truncate(DISK)
        stack.callback(image.unlink)
        command = ("losetup", "--find", "--show", str(image))
        made = subprocess.run(command, capture_output=True, check=True, text=True)
        loop = made.stdout.strip()
        stack.callback(_done, "losetup", "--detach", loop)
        control = devmapper.open_control()
        stack.callback(os.close, control)
        mapper = devmapper.Mapper(control)
        device = mapper.create(name, [devmapper.Target(0, DISK // 512, "linear", f"{loop} 0")])
        stack.callback(mapper.remove, name)
        node = f"/dev/{device.name}"
        if _done("mkfs.ext4", "-q", "-F", node) and _done("mount", node, str(point)):
            stack.callback(_unmount, point)
            yield point
        else:
            yield folder


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


def _little() -> int:
    """Bytes that a group may use for a trial of memory faults.

    More than twice what this process itself has, or the out-of-memory killer, which takes the
    largest, would end it instead of the process that fills the group.
    """
    return max(MEMORY, 2 * process_memory(os.getpid()).resident + (64 << 20))


@contextlib.contextmanager
def group(
    controllers: tuple[str, ...], members: list[int], limits: dict[str, str]
) -> Generator[None]:
    """A control group of their own for these processes, in each hierarchy of the controllers.

    `limits` are files of the groups and what is written into them. Where there is no such
    controller, or no right to, nothing is done.
    """
    layout = cgroup.layout()
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            name = f"trial-{members[0]}-{next(_numbers)}"
            for controller in sorted(layout.controllers() & set(controllers)):
                home = layout.group_of(members[0], controller)
                made = home if home.path.endswith(name) else home.beside(name)
                stack.enter_context(_in_group(made, home, controller, members))
                for file in (each for each in limits if made.has(each)):
                    made.write(file, limits[file])
        yield


@contextlib.contextmanager
def _in_group(made: Group, home: Group, controller: str, members: list[int]) -> Generator[None]:
    """The members in a group that is made, or is given one more controller, for the block."""
    if made == home:  # version 2: another controller of the same group
        parent = made.enable(controller)
        yield
        if parent is not None:
            parent.disable(controller)
        return
    made.create()
    try:
        parent = made.enable(controller)
        for pid in members:
            made.add(pid)
        try:
            yield
        finally:
            _remove(made, home)
            if parent is not None:
                parent.disable(controller)
    finally:
        made.remove()


@contextlib.contextmanager
def little_memory() -> Generator[None]:
    """Put this process into a control group that may use little, where that is possible."""
    size = str(_little())
    limits = {"memory.max": size, "memory.limit_in_bytes": size}
    with group(("memory",), [os.getpid()], limits):
        yield


@dataclass(frozen=True, slots=True)
class Capsule:
    """A process with namespaces, a root directory and control groups of its own."""

    pid: int
    sleeper: int  # another one in it, asleep


@contextlib.contextmanager
def capsule(root: Path) -> Generator[Capsule]:
    """What a container is to the kernel, without any runtime: for trials of places. Needs root.

    Nothing is in its root directory but what the caller has put there.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            _enclose(root, write)
        finally:
            os._exit(1)
    os.close(write)
    try:
        with os.fdopen(read) as told:
            pids = [int(told.readline() or 0) for _ in range(2)]
        if not all(pids):
            raise FaultlineError("a process with namespaces of its own could not be made")
        little = str(_little())
        limits = {
            "memory.max": little,
            "memory.limit_in_bytes": little,
            "cpu.max": "50000 100000",
            "cpu.cfs_quota_us": "50000",
        }
        with group(("cpu", "cpuacct", "memory", "pids", "blkio", "io", "freezer"), pids, limits):
            yield Capsule(*pids)
            os.kill(pids[0], signal.SIGKILL)  # with it goes everything in its pid namespace
            procfs.ProcessId.of(pids[0]).wait(5.0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _enclose(root: Path, tell: int) -> None:
    """In a forked child: be the parent of a process with everything of its own; never returns."""
    kind = syscalls.Namespace
    syscalls.set_parent_death_signal(signal.SIGKILL)
    syscalls.unshare(kind.NET | kind.MOUNT | kind.PID | kind.IPC | kind.UTS)
    if os.fork():
        while True:
            signal.pause()
    syscalls.set_parent_death_signal(signal.SIGKILL)
    with Netlink.open() as netlink:
        link.set_up(netlink, "lo")
    faulthandler.disable()  # a crash of it is a fault's effect, and nobody's to be told of
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    # /proc is that of the pid namespace outside, so this is the pid that others see.
    os.write(tell, f"{Path('/proc/self').readlink()}\n".encode())
    if os.fork() == 0:
        os.write(tell, f"{Path('/proc/self').readlink()}\n".encode())
    os.close(tell)
    os.chroot(root)
    os.chdir("/")
    while True:
        signal.pause()


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
