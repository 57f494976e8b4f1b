"""The mount table of a process, parsed (proc_pid_mountinfo(5))."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from faultline.kernel import syscalls
from faultline.kernel.procfs import PROC


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    id: int
    parent: int
    device: tuple[int, int]
    root: str  # which folder of the file system is mounted
    point: str
    options: frozenset[str]
    type: str
    source: str
    super_options: frozenset[str]


def _unescape(text: str) -> str:
    """Blank, tab, newline and backslash stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def parse_mountinfo(text: str) -> list[Mount]:
    """Read mountinfo lines; the optional fields in the middle are skipped."""
    found: list[Mount] = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        number, parent, device, root, point, options = left.split()[:6]
        kind, source, super_options = [*right.split(" "), "", ""][:3]
        major, minor = device.split(":")
        found.append(
            Mount(
                id=int(number),
                parent=int(parent),
                device=(int(major), int(minor)),
                root=_unescape(root),
                point=_unescape(point),
                options=frozenset(options.split(",")),
                type=kind,
                source=_unescape(source),
                super_options=frozenset(super_options.split(",")),
            )
        )
    return found


def mounts(pid: int | None = None) -> list[Mount]:
    """The mounts that a process (default: this one) sees, in the order in which they were made."""
    path = PROC / ("self" if pid is None else str(pid)) / "mountinfo"
    return parse_mountinfo(path.read_text(errors="surrogateescape"))


def mount_of(path: str | os.PathLike[str]) -> Mount:
    """The mount that holds `path`, links followed; the topmost where several lie on one point."""
    real = os.path.realpath(path)
    os.stat(real)  # raises FileNotFoundError with the path
    best: Mount | None = None
    for mount in mounts():
        inside = mount.point in ("/", real) or real.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    if best is None:  # a root that was made unreachable by chroot
        raise FileNotFoundError(2, "no mount holds it", str(path))
    return best


def mount_of_fd(fd: int, pid: int = 0) -> Mount | None:
    """The mount that an open file lies on, among ours and those of process `pid`; None if neither
    tells.

    A process that has changed its root is not shown the mount that its root lies in; another mount
    of the same file system tells as much of its kind.
    """
    number, device = syscalls.statx(fd).mount_id, os.fstat(fd).st_dev
    every = mounts()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        every += mounts(pid) if pid else []
    same = [mount for mount in every if number and mount.id == number]
    same += [mount for mount in every if os.makedev(*mount.device) == device]
    return same[0] if same else None
