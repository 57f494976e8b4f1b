"""The change that makes a mounted file system read-only, as the kernel does it after a disk error.

It is set for the file system, so every mount of it shows it; nobody's mount is replaced. A file
system cannot carry a mark, so a note of it lies in the store's run folder. The kernel refuses while
files are open for writing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder
from faultline.errors import ApplyFailed, Refused, TargetGone, Unsupported
from faultline.kernel import procfs, reconfigure
from faultline.kernel.netlink import Netlink

_NAMED = 5  # holders that are told by name


class MountReadonly(Kind):
    """spec: {path: where it is mounted}."""

    name: ClassVar[str] = "mount_readonly"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"read-only:{prior['point']['dev']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        with Folder.open(spec["path"], ctx) as folder:
            if reconfigure.is_read_only(folder.fd):
                raise Refused(f"{folder.path} is read-only already")
            if not reconfigure.is_mount_root(folder.fd):
                raise Unsupported(f"nothing is mounted at {folder.path}")
            sidecar.changeable(folder, ctx)
            return {"point": folder.identity()}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["point"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with Folder.reopen(prior["point"], ctx) as folder:
            with marks.folder(ctx) as notes:
                sidecar.write(notes, ctx, self.name, spec, prior)
            try:
                reconfigure.set_read_only(folder.fd, True)
            except OSError as error:
                raise _why(error, folder) from error
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if not marks.noted(ctx):
            return Presence.ABSENT
        try:
            with Folder.reopen(prior["point"], ctx) as folder:
                read_only = reconfigure.is_read_only(folder.fd)
        except TargetGone:
            return Presence.GONE
        return Presence.OURS if read_only else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior, ctx)
        if outcome.settled:
            marks.forget(ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data, ctx: Context) -> Outcome:
        if not marks.noted(ctx):
            return Outcome(Undone.ABSENT, "there is no note of it")
        try:
            with Folder.reopen(prior["point"], ctx) as folder:
                if not reconfigure.is_read_only(folder.fd):
                    return Outcome(Undone.ABSENT, f"{folder.path} is writable")
                try:
                    reconfigure.set_read_only(folder.fd, False)
                except OSError as error:  # the disk itself has become read-only, or has failed
                    why = f"{folder.path} does not become writable: {error.strerror}"
                    return Outcome(Undone.FAILED, why, self.commands(spec, prior, ctx))
                if reconfigure.is_read_only(folder.fd):
                    return Outcome(Undone.FAILED, f"{folder.path} is still read-only")
                return Outcome(Undone.UNDONE, f"{folder.path} is writable again")
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"make the file system at {spec['path']} read-only, for everybody who has it mounted",
            "make it writable again",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return (("mount", "-o", "remount,rw", sidecar.typed(prior["point"], ctx)),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        for found in sidecar.scan(self.name, (*marks.folders(), *folders)):
            point = found.prior["point"]
            seen = {**point, "path": point.get("host") or point["path"]}
            yield replace(found, prior={"point": seen})


def _why(error: OSError, folder: Folder) -> Refused | Unsupported | ApplyFailed:
    if error.errno == errno.EBUSY:
        who = ", ".join(writers(os.fstat(folder.fd).st_dev)) or "a program"
        return Refused(
            f"{folder.path} has files that are open for writing, by {who}: the kernel does not make"
            " it read-only then",
            hint="stop the program first, or let its writes fail: disk.fill, disk.error",
        )
    if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
        return Unsupported(f"this kernel does not do it for {folder.path}: {error.strerror}")
    return ApplyFailed(f"{folder.path} does not become read-only: {error.strerror}")


def writers(device: int) -> list[str]:
    """Who has files on this file system open for writing, for people."""
    found: list[str] = []
    for pid in procfs.pids():
        if len(found) < _NAMED and any(_writes(pid, fd, device) for fd in procfs.descriptors(pid)):
            try:
                found.append(f"{procfs.process(pid).name} (pid {pid})")
            except ProcessLookupError:
                continue
    return found


def _writes(pid: int, fd: int, device: int) -> bool:
    try:
        info = os.stat(f"/proc/{pid}/fd/{fd}")
        if info.st_dev != device or not stat.S_ISREG(info.st_mode):
            return False
        # What the link to an open file allows is what it was opened for (proc_pid_fd(5)).
        return bool(os.lstat(f"/proc/{pid}/fd/{fd}").st_mode & stat.S_IWUSR)
    except OSError:  # closed meanwhile, or not ours to see
        return False
