"""Everything about a file that a fault may disturb, recorded and put back by descriptor.

Paths are walked once, to a descriptor of the folder; all else goes through that, so nobody can swap
a folder for a link in between. Inside a container the walk is held to the container's root by
openat2(2).
"""

from __future__ import annotations

import binascii
import errno
import fcntl
import os
import re
import stat
import struct
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from faultline.errors import Refused, Unsupported
from faultline.kernel import syscalls
from faultline.kernel.digest import blake2b
from faultline.kernel.syscalls import Resolve

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS (ioctl_iflags(2))
_SET_FLAGS = 0x40086602
_CLONE = 0x40049409  # FICLONE (ioctl_ficlone(2))
_IMMUTABLE_OR_APPEND = 0x30
_CHANGEABLE_FLAGS = _IMMUTABLE_OR_APPEND | 0x40 | 0x80  # and: no dump, no access time
_MAX_LINKS = 40
_CHUNK = 1 << 20
_NOT_SUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EXDEV)
MARK = ".faultline-"


def open_folder(path: str, root: int | None = None) -> int:
    """Open a folder, to be closed by the caller; below the descriptor `root` when one is given.

    With a root, links and '..' stay inside it and links into /proc are refused.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if root is None:
        return os.open(path, flags)
    return syscalls.openat2(root, path or "/", flags, Resolve.IN_ROOT | Resolve.NO_MAGICLINKS)


def locate(path: str, root: int | None = None) -> tuple[int, str]:
    """The folder (a descriptor, to be closed) and the name of the file that `path` means.

    A link as last part is followed, within the root. The file itself need not exist.
    """
    for _ in range(_MAX_LINKS):
        head, name = os.path.split(path)
        if name in ("", ".", ".."):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        folder = open_folder(head or ".", root)
        try:
            target = os.readlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # no link; not there
                return folder, name
            os.close(folder)
            raise
        os.close(folder)
        path = target if target.startswith("/") else os.path.join(head, target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def open_regular(folder: int, name: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file that is no link; Refused for anything else, which is never opened.

    Reading it does not move its access time where we are allowed to say so.
    """
    # O_PATH touches nothing: opening a device or a pipe for real can have effects or block.
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused(f"{name} is not a regular file")
        path = f"/proc/self/fd/{handle}"
        try:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOATIME)
        except PermissionError:  # only the owner and root may leave the access time alone
            return os.open(path, flags | os.O_CLOEXEC)
    finally:
        os.close(handle)


def reserve(fd: int, size: int) -> None:
    """Reserve blocks for the first `size` bytes of a file, durably, its size as it is.

    Nothing where the file system cannot. Raises OSError (ENOSPC) when there is no room.
    """
    try:
        syscalls.fallocate(fd, syscalls.Fallocate.KEEP_SIZE, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
    os.fsync(fd)


def digest(fd: int) -> str:
    """SHA-256 of the content, read by offset: the descriptor's position stays."""
    found = blake2b(digest_size=32)
    offset = 0
    while chunk := os.pread(fd, _CHUNK, offset):
        found.update(chunk)
        offset += len(chunk)
    return found.hexdigest()


def _flags(fd: int) -> int | None:
    try:
        reply = fcntl.ioctl(fd, _GET_FLAGS, struct.pack("q", 0))
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return None
        raise
    return int(struct.unpack("i", reply[:4])[0])


def set_flags(fd: int, wanted: int) -> None:
    """Set the flags that chattr(1) can set and that we record, leaving the others as they are."""
    current = _flags(fd)
    if current is None:
        raise Unsupported("this file system has no file flags")
    value = current & ~_CHANGEABLE_FLAGS | wanted & _CHANGEABLE_FLAGS
    if value != current:
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("q", value))


def _xattrs(fd: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return {}
        raise
    return {name: os.getxattr(fd, name) for name in names}


class Aspect(StrEnum):
    """What can differ between two snapshots of a file."""

    INODE = "inode"
    OWNER = "owner"
    MODE = "mode"
    XATTRS = "xattrs"  # POSIX access lists and file capabilities are extended attributes
    FLAGS = "flags"
    TIMES = "times"
    SIZE = "size"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class FileState:
    """A regular file at one instant. Nobody can set the time of the last status change."""

    device: int
    inode: int
    links: int
    birth: int  # nanoseconds of the wall clock; 0: the file system does not know
    uid: int
    gid: int
    mode: int
    size: int
    accessed: int  # nanoseconds of the wall clock
    modified: int
    xattrs: dict[str, bytes]
    flags: int | None  # None: the file system has none
    digest: str  # '' when it was not asked for

    def to_json(self) -> dict[str, Any]:
        xattrs = {
            name: binascii.b2a_base64(value, newline=False).decode()
            for name, value in self.xattrs.items()
        }
        return {**asdict(self), "xattrs": xattrs}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        xattrs = {name: binascii.a2b_base64(value) for name, value in data["xattrs"].items()}
        rest: dict[str, Any] = {name: value for name, value in data.items() if name != "xattrs"}
        return cls(xattrs=xattrs, **rest)

    def same_file(self, other: FileState) -> bool:
        """Whether both are one inode; the birth time tells a number that was used again."""
        return (self.device, self.inode, self.birth) == (other.device, other.inode, other.birth)

    def differences(self, other: FileState) -> frozenset[Aspect]:
        """In what two states differ; content only when both have a digest."""
        pairs = {
            Aspect.INODE: self.same_file(other),
            Aspect.OWNER: (self.uid, self.gid) == (other.uid, other.gid),
            Aspect.MODE: self.mode == other.mode,
            Aspect.XATTRS: self.xattrs == other.xattrs,
            Aspect.FLAGS: self.flags == other.flags,
            Aspect.TIMES: self.modified == other.modified,
            Aspect.SIZE: self.size == other.size,
            Aspect.CONTENT: not (self.digest and other.digest) or self.digest == other.digest,
        }
        return frozenset(aspect for aspect, same in pairs.items() if not same)


def state_of(fd: int, content: bool = True) -> FileState:
    """Record an open regular file. With `content` all of it is read."""
    status = os.fstat(fd)
    return FileState(
        device=status.st_dev,
        inode=status.st_ino,
        links=status.st_nlink,
        birth=syscalls.statx(fd).birth,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        size=status.st_size,
        accessed=status.st_atime_ns,
        modified=status.st_mtime_ns,
        xattrs=_xattrs(fd),
        flags=_flags(fd),
        digest=digest(fd) if content else "",
    )


def snapshot(folder: int, name: str, content: bool = True) -> FileState:
    """Record a file by folder and name; Refused unless regular, FileNotFoundError if absent."""
    fd = open_regular(folder, name)
    try:
        return state_of(fd, content)
    finally:
        os.close(fd)


def restore_attributes(fd: int, wanted: FileState) -> dict[Aspect, str]:
    """Set owner, mode, extended attributes, flags and times as recorded.

    Returns what could not be set and why; all the rest is set nevertheless.
    """
    failed: dict[Aspect, str] = {}
    current = state_of(fd, content=False)
    steps = (
        # Changing the owner clears set-user-id, and changing the mode edits the access list's mask.
        (Aspect.OWNER, lambda: os.chown(fd, wanted.uid, wanted.gid)),
        (Aspect.MODE, lambda: os.chmod(fd, wanted.mode)),
        (Aspect.XATTRS, lambda: _restore_xattrs(fd, current.xattrs, wanted.xattrs)),
        (Aspect.TIMES, lambda: os.utime(fd, ns=(wanted.accessed, wanted.modified))),
        (Aspect.FLAGS, lambda: set_flags(fd, wanted.flags or 0)),
    )
    locked = (current.flags or 0) & _IMMUTABLE_OR_APPEND
    if locked:  # an immutable or append-only file takes no other change
        set_flags(fd, (current.flags or 0) & ~_IMMUTABLE_OR_APPEND)
    for aspect, step in steps:
        if aspect is Aspect.FLAGS and wanted.flags is None:
            continue
        try:
            step()
        except OSError as error:
            failed[aspect] = error.strerror or str(error)
    return failed


def _restore_xattrs(fd: int, current: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    for name in current.keys() - wanted.keys():
        os.removexattr(fd, name)
    for name, value in wanted.items():
        if current.get(name) != value or name.startswith("system.posix_acl"):
            os.setxattr(fd, name, value)


def hidden_name(uid: str, step: int) -> str:
    """The name of a file of ours beside a user's; a scan knows it again."""
    if "/" in uid or len(os.fsencode(uid)) > 200:
        raise ValueError(f"not usable in a file name: {uid!r}")
    return f"{MARK}{uid}-{step}"


def read_hidden_name(name: str) -> tuple[str, int] | None:
    """The (uid, step) in such a name, or None."""
    found = re.fullmatch(rf"{re.escape(MARK)}(.+)-(\d+)", name)
    return (found[1], int(found[2])) if found else None


def copy_content(source: int, target: int) -> int:
    """Copy an open file into another, empty one; shares blocks where the file system can."""
    try:
        fcntl.ioctl(target, _CLONE, source)
        return os.fstat(target).st_size
    except OSError as error:
        if error.errno not in (*_NOT_SUPPORTED, errno.EPERM, errno.EBADF, errno.ETXTBSY):
            raise
    offset = 0
    while True:
        # Read and written by hand: copy_file_range(2) copies nothing of files that report size 0.
        chunk = os.pread(source, _CHUNK, offset)
        if not chunk:
            return offset
        view = memoryview(chunk)
        while view:
            written = os.pwrite(target, view, offset)
            offset += written
            view = view[written:]


def backup(folder: int, name: str, copy_name: str) -> FileState:
    """Copy a regular file beside itself: 0600, never over an existing file, on disk when it
    returns.

    The state returned is that of the original at the time of the copy, digest included. Raises
    FileExistsError; on any failure the copy is removed.
    """
    source = open_regular(folder, name)
    try:
        before = state_of(source)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(copy_name, flags, 0o600, dir_fd=folder)
        try:
            os.fchmod(target, 0o600)  # whatever the umask
            copy_content(source, target)
            if digest(target) != before.digest:
                raise Refused(
                    f"{name} was written to while it was copied", hint="try again when it is quiet"
                )
            os.fsync(target)
            os.fsync(folder)
        except (OSError, Refused):
            os.unlink(copy_name, dir_fd=folder)
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)
    return before
