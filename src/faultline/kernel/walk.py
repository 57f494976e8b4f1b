"""Paths inside another root directory, walked from a descriptor of it and never by name from ours.

A link that is followed through /proc/PID/root leads out of that root, so every step is an
openat2(2) with RESOLVE_IN_ROOT, and the steps through links are taken one by one.
"""

from __future__ import annotations

import errno
import os

from faultline.kernel import mounts, syscalls
from faultline.kernel.syscalls import Resolve

_AT_FDCWD = -100
_NO_LINKS = Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_MAX_LINKS = 40


def open_exactly(path: str, root: int | None = None, flags: int = os.O_RDONLY) -> int:
    """Open a folder by a path that holds no link, below `root` where one is given.

    Raises OSError: ELOOP if there is a link in it now.
    """
    flags |= os.O_DIRECTORY
    if root is None:
        return syscalls.openat2(_AT_FDCWD, path, flags, _NO_LINKS)
    return syscalls.openat2(root, path or "/", flags, _NO_LINKS | Resolve.IN_ROOT)


def resolve(path: str, root: int | None = None) -> str:
    """The same path without links and '..', as it is seen from `root`; like `os.path.realpath`.

    What does not exist stays as it is written. Raises OSError: ELOOP for links that go in circles.
    """
    if root is None:
        return os.path.realpath(path)
    left = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        target = _link(root, done, part)
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done.clear()
        left += target.split("/")[::-1]
    return "/" + "/".join(done)


def _link(root: int, done: list[str], part: str) -> str | None:
    """What a link says; None if it is none, or not there."""
    try:
        folder = open_exactly("/" + "/".join(done), root, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.readlink(part, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
    finally:
        os.close(folder)


def from_here(fd: int, path: str, pid: int) -> str:
    """A path from our own root to an open folder that is `path` for process `pid`; '' if none leads
    there.

    It is how the folder is found again when that process has ended: a volume of a container lies on
    a file system of the host. Each guess is opened and compared, so a wrong one does no harm.
    """
    wanted = os.fstat(fd)
    for guess in (os.readlink(f"/proc/self/fd/{fd}"), *through_mounts(fd, path, pid)):
        try:
            found = open_exactly(guess, flags=os.O_PATH)
        except OSError:  # no such folder here, or a link is on the way
            continue
        try:
            if os.path.samestat(os.fstat(found), wanted):
                return guess
        finally:
            os.close(found)
    return ""


def through_mounts(fd: int, path: str, pid: int) -> list[str]:
    """Where the same file system is mounted here, with the folder's path in it."""
    theirs = mounts.mount_of_fd(fd, pid)
    if theirs is None or not f"{path}/".startswith(f"{theirs.point}/".replace("//", "/")):
        return []
    inside = os.path.normpath(os.path.join(theirs.root, os.path.relpath(path, theirs.point)))
    return [
        os.path.normpath(os.path.join(ours.point, os.path.relpath(inside, ours.root)))
        for ours in mounts.mounts()
        if ours.device == theirs.device
        and f"{inside}/".startswith(f"{ours.root}/".replace("//", "/"))
    ]
