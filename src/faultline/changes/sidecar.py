"""Files of ours beside the files that we change: named by our mark, found without any journal.

Before a file is touched, a note of what is about to be done is written into the same folder and
made durable. Whoever can write that folder could plant one, so a note is believed only if it is a
plain file that belongs to us or root, that nobody else can write, that has one name, and that
names the very folder it lies in. Folders are opened without following a link on the way and
checked by inode number; a file in them is reached by its name below that descriptor, never by
following a link at its end.

Paths of a place that has a root directory of its own are walked inside that. Whoever rules there
can put anything under any name, also a device that does harm by being opened.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

from faultline.changes.kind import Context, Data, Found
from faultline.changes.model import Change
from faultline.errors import Conflict, Refused, TargetGone, Unsupported
from faultline.kernel import clock, filesystem, syscalls, walk

_NAME: Final = re.compile(r"\.faultline-(?P<uid>.+)-(?P<step>\d+)\.(?P<role>[a-z]+)")
_LIMIT: Final = 1 << 20
SCHEMA: Final = 1

# A second host can change what lies on these, and their renames and inode numbers promise less.
NETWORKED: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"ocfs2", "smb3", "smbfs", "virtiofs"}
)


def own_name(ctx: Context, role: str) -> str:
    """The name of our file for this step in the role 'json', 'backup', 'kept' and so on."""
    return f".faultline-{ctx.uid}-{ctx.index}.{role}"


@dataclass(slots=True)
class Folder:
    """An open folder, reached without following links; `path` is what people type."""

    path: str
    fd: int
    host: str = ""  # the path from our own root, where `path` is that of another and this is known

    @classmethod
    def open(cls, path: str, ctx: Context | None = None) -> Self:
        """Open the folder `path` of the place of `ctx`, links on the way resolved now.

        Raises TargetGone if there is none.
        """
        root = ctx.root if ctx else None
        try:
            real = walk.resolve(path, root)
            fd = walk.open_exactly(real, root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TargetGone(f"{path} is not a folder", hint="name an existing one") from error
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise Refused(f"the links in {path} lead nowhere") from error
        return cls(real, fd, "" if root is None else walk.from_here(fd, real, _pid(ctx)))

    @classmethod
    def reopen(cls, known: Data, ctx: Context, nth: int = 0) -> Self:
        """The folder that `identity` described, by the `nth` descriptor from before or by its path.

        Raises TargetGone if another one lies there now: it is not the one that was changed.
        """
        held = ctx.handed[nth:]
        fd = os.dup(held[0]) if held else cls.open_exactly(known, ctx)
        info = os.fstat(fd)
        # Device numbers are given out anew at each boot; inode numbers of a disk are not.
        same_boot = known["boot"] == clock.boot_id()
        if info.st_ino != known["ino"] or (same_boot and info.st_dev != known["dev"]):
            os.close(fd)
            raise TargetGone(f"{known['path']} is another folder than the one that was changed")
        return cls(known["path"], fd, known.get("host", ""))

    @staticmethod
    def open_exactly(known: Data, ctx: Context) -> int:
        """A descriptor of the folder that `identity` described, by its path.

        When the place's own root is not there any more, the path from ours leads to what is left.
        """
        path, root = known["path"], None
        try:
            root = ctx.root
        except TargetGone:
            path = known.get("host")
            if not path:
                raise
        try:
            return walk.open_exactly(path, root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TargetGone(f"the folder {path} is gone") from error

    def identity(self) -> Data:
        """What is remembered of this folder."""
        info = os.fstat(self.fd)
        known = {"path": self.path, "dev": info.st_dev, "ino": info.st_ino}
        return {**known, "boot": clock.boot_id(), **({"host": self.host} if self.host else {})}

    def join(self, name: str) -> str:
        return os.path.join(self.path, name)

    def stat(self, name: str) -> os.stat_result | None:
        """Status of an entry, links not followed; None if there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_file(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Open an entry; for a link or a device OSError (ELOOP) is raised, and it is untouched."""
        safe = flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        if flags & (os.O_PATH | os.O_DIRECTORY | os.O_CREAT):
            return os.open(name, safe, mode, dir_fd=self.fd)
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.ELOOP, "not a plain file", self.join(name))
            return os.open(f"/proc/self/fd/{handle}", safe & ~os.O_NOFOLLOW)
        finally:
            os.close(handle)

    def remove(self, name: str) -> bool:
        """Remove an entry; False if there was none."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True

    def rename(self, old: str, new: str) -> None:
        """Rename within the folder; FileExistsError instead of replacing anything."""
        syscalls.renameat2(self.fd, old, self.fd, new, syscalls.Rename.NOREPLACE)

    def holds(self, name: str, known: Data) -> bool:
        """Whether this entry is the remembered file."""
        try:
            handle = self.open_file(name, os.O_PATH)
        except FileNotFoundError:
            return False
        try:
            return is_same(handle, known)
        finally:
            os.close(handle)

    def find(self, known: Data) -> str | None:
        """The name that the remembered file has in this folder."""
        with os.scandir(self.fd) as entries:
            names = [each.name for each in entries if each.inode() == known["ino"]]
        return next((name for name in names if self.holds(name, known)), None)

    def sync(self) -> None:
        """Make names durable."""
        os.fsync(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        os.close(self.fd)


def _is_same(info: os.stat_result, birth: int, known: Data) -> bool:
    """An inode number is given out anew at once, so the birth tells; device numbers hold for one
    boot.
    """
    if (info.st_ino, birth) != (known["ino"], known["birth"]):
        return False
    return known["boot"] != clock.boot_id() or info.st_dev == known["dev"]


def is_same(fd: int, known: Data) -> bool:
    """Whether an open file is the remembered one."""
    return _is_same(os.fstat(fd), syscalls.statx(fd).birth, known)


def identify(fd: int) -> Data:
    """What is remembered of an open file to know it again."""
    info, birth = os.fstat(fd), syscalls.statx(fd).birth
    return {"dev": info.st_dev, "ino": info.st_ino, "birth": birth, "boot": clock.boot_id()}


def _pid(ctx: Context | None) -> int:
    """The process whose mounts tell of a folder; 0 for our own."""
    return int(ctx.inside.get("pid", 0)) if ctx and ctx.inside.get("rooted") else 0


def typed(known: Data, ctx: Context) -> str:
    """The path of a remembered folder that a person of this host can type."""
    path = str(known["path"])
    if not ctx.inside.get("rooted"):
        return path
    return str(known.get("host") or f"/proc/{_pid(ctx)}/root{path}")


def split(path: str) -> tuple[str, str]:
    """Folder and name of an absolute path; Refused where there is no name to act on."""
    folder, name = os.path.split(path)
    if not os.path.isabs(path) or name in ("", ".", ".."):
        raise Refused(f"{path!r} does not name a file by an absolute path")
    if _NAME.fullmatch(name):
        raise Refused(f"{path} is a file of ours: it belongs to another fault")
    return folder, name


def _lift(folder: Folder, name: str, ctx: Context) -> None:
    """Have a file of a lower layer copied into the upper one, as its first change would.

    Its inode is another one from then on, so it must not be remembered before. Times set to what
    they are do it without a write, also for a program that is running.
    """
    if filesystem.type_of_fd(folder.fd, _pid(ctx)) != "overlay":
        return
    handle = folder.open_file(name, os.O_PATH)
    try:
        info = os.fstat(handle)
        if stat.S_ISREG(info.st_mode):
            times = (info.st_atime_ns, info.st_mtime_ns)
            os.utime(f"/proc/self/fd/{handle}", ns=times)
    finally:
        os.close(handle)


def regular(folder: Folder, name: str, ctx: Context) -> tuple[os.stat_result, Data]:
    """Status and identity of a plain file that may be changed; TargetGone, Refused, Unsupported."""
    path = folder.join(name)
    with contextlib.suppress(FileNotFoundError, PermissionError):  # told below, where it counts
        _lift(folder, name, ctx)
    try:
        handle = folder.open_file(name, os.O_PATH)
    except FileNotFoundError as error:
        raise TargetGone(f"{path} does not exist") from error
    try:
        info, known = os.fstat(handle), identify(handle)
        attributes = syscalls.statx(handle).attributes
    finally:
        os.close(handle)
    if not stat.S_ISREG(info.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "not a plain file"
        raise Refused(f"{path} is {what}", hint="name the file itself; links are never followed")
    for bit, word in ((0x10, "immutable (chattr +i)"), (0x20, "append-only (chattr +a)")):
        if attributes & bit:
            raise Unsupported(f"{path} is {word}", hint="take the attribute away first")
    return info, known


def changeable(folder: Folder, ctx: Context) -> None:
    """Refuse a folder on a read-only file system, or on one that another host can change."""
    if os.statvfs(folder.fd).f_flag & os.ST_RDONLY:
        raise Unsupported(f"{folder.path} is on a read-only file system")
    kind = filesystem.type_of_fd(folder.fd, _pid(ctx))
    if not kind:
        raise Unsupported(f"the kernel does not tell on which file system {folder.path} is")
    if kind in NETWORKED or kind.startswith("fuse."):
        raise Unsupported(
            f"{folder.path} is on {kind}: undo could not be made safe there",
            hint="act on the host that holds the files",
        )


def write(folder: Folder, ctx: Context, kind: str, spec: Data, prior: Data) -> None:
    """Write the note of this step, durably, before anything is changed."""
    name, scratch = own_name(ctx, "json"), own_name(ctx, "part")
    holder = {"uid": ctx.uid, "index": ctx.index, "folder": folder.identity()}
    note = {"schema": SCHEMA, **holder, "kind": kind, "spec": spec, "prior": prior}
    folder.remove(scratch)
    fd = folder.open_file(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.fchmod(fd, 0o600)
        data = json.dumps(note).encode()
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(scratch, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    folder.sync()


def exists(folder: Folder, ctx: Context) -> bool:
    """Whether the note of this step is there, or the beginning of one."""
    return any(folder.stat(own_name(ctx, role)) for role in ("json", "part"))


def remove(folder: Folder, ctx: Context, *roles: str) -> None:
    """Remove our files of this step, the note last: it is what a scan finds them by."""
    for role in (*roles, "part", "json"):
        folder.remove(own_name(ctx, role))
    folder.sync()


def read(folder: Folder, name: str) -> Data | None:
    """A note, or None if it is not one or not to be believed."""
    try:
        fd = folder.open_file(name, os.O_RDONLY)
    except OSError:  # a link, or gone meanwhile
        return None
    try:
        info = os.fstat(fd)
        trusted = info.st_uid in (0, os.geteuid()) and not info.st_mode & 0o022
        if not (stat.S_ISREG(info.st_mode) and trusted and info.st_nlink == 1):
            return None
        note: object = json.loads(os.read(fd, _LIMIT))
    except ValueError:
        return None
    finally:
        os.close(fd)
    here = os.fstat(folder.fd)
    if not isinstance(note, dict):
        return None
    known = cast("Data", note)
    right = known.get("schema") == SCHEMA and known["folder"]["ino"] == here.st_ino
    return known if right else None


def notes(folder: Folder) -> Iterator[Data]:
    """Every believable note in a folder."""
    with os.scandir(folder.fd) as entries:
        names = sorted(each.name for each in entries)
    for name in names:
        found = _NAME.fullmatch(name)
        if found and found["role"] == "json":
            note = read(folder, name)
            if note and (note["uid"], note["index"]) == (found["uid"], int(found["step"])):
                yield note


def refuse_claimed(folder: Folder, name: str, ctx: Context) -> None:
    """Raise Conflict if another fault of ours has changed this file."""
    for note in notes(folder):
        if note["uid"] != ctx.uid and name in note["prior"].get("names", ()):
            raise Conflict(
                f"{folder.join(name)} is already changed by {note['uid']}", holder=note["uid"]
            )


def scan(kind: str, folders: tuple[str, ...]) -> Iterator[Found]:
    """What the notes of one kind in these folders tell."""
    for path in folders:
        try:
            folder = Folder.open(path)
        except (TargetGone, PermissionError):
            continue
        with folder:
            for note in notes(folder):
                if note["kind"] == kind:
                    change = Change(kind, note["spec"])
                    # The paths in it are of the place that the fault acted in: this one is ours.
                    prior = _as_seen(note["prior"], folder)
                    yield Found(note["uid"], note["index"], change, prior, folder.path)


def _as_seen(prior: Data, folder: Folder) -> Data:
    """A prior state whose folders have the paths that they have for whoever scans."""
    seen = {**prior, "folder": folder.identity()}
    target = prior.get("target")
    if target:
        same = target["ino"] == seen["folder"]["ino"]
        seen["target"] = (
            seen["folder"] if same else {**target, "path": target.get("host") or target["path"]}
        )
    return seen


def named(folders: tuple[str, ...], role: str) -> Iterator[tuple[Folder, str, int]]:
    """Entries of ours in a role that needs no note: the open folder, the uid and the step."""
    for path in folders:
        try:
            folder = Folder.open(path)
        except (TargetGone, PermissionError):
            continue
        with folder:
            with os.scandir(folder.fd) as entries:
                names = sorted(each.name for each in entries)
            for name in names:
                found = _NAME.fullmatch(name)
                if found and found["role"] == role:
                    yield folder, found["uid"], int(found["step"])
