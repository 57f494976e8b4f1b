"""A file of ours that takes the free space of a file system.

It stands in the folder under a name that carries our mark, so that anybody who looks for what
filled the disk finds it, and whose it is. Undo is one unlink(2) through a descriptor from before:
it needs no space, and the kernel frees the blocks even where writing a byte fails.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import Refused, TargetGone
from faultline.kernel import clock, filesystem
from faultline.kernel.netlink import Netlink

_ROUNDS = 8


class DiskFill(Kind):
    """spec: {folder, percent or bytes, leave: bytes, reserve: also take what is kept for root}."""

    name: ClassVar[str] = "disk_fill"
    survives_reboot: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        # Two fills of one file system would each count the other's file as used by somebody else.
        return frozenset({f"space:{prior['folder']['dev']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        with Folder.open(spec["folder"], ctx) as folder:
            sidecar.changeable(folder, ctx)
            now = filesystem.space(folder.fd)
            if wanted(spec, now) <= 0:
                raise Refused(
                    f"{folder.path} is {now.percent:.1f}% full with {now.available} bytes free:"
                    " that is already as much as was asked for",
                )
            if spec["bytes"] > _room(spec, now):
                raise Refused(f"{folder.path} has only {_room(spec, now)} bytes to take")
            return {"folder": folder.identity(), "available": now.available, "free": now.free}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["folder"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with Folder.reopen(prior["folder"], ctx) as folder:
            fd = folder.open_file(own_name(ctx, "fill"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                os.fchmod(fd, 0o600)  # whatever the umask
                size = wanted(spec, filesystem.space(folder.fd))
                method = self._fill(fd, folder, spec, size, ctx)
                os.fsync(fd)
            finally:
                os.close(fd)
        return {"size": size, "method": method}

    def _fill(self, fd: int, folder: Folder, spec: Data, size: int, ctx: Context) -> str:
        """Take space until it is as asked; the file system's own records take some of it along."""
        method = ""
        for _ in range(_ROUNDS):
            if size <= 0 or clock.now() >= ctx.deadline:
                break
            taken = filesystem.take(fd, size, lambda: clock.now() < ctx.deadline)
            method = method or str(taken.method)
            now = filesystem.space(folder.fd)
            if spec["bytes"] or (taken.full and not taken.size):
                break
            size = wanted(spec, now)
        excess = int(spec["leave"]) - _available(spec, filesystem.space(folder.fd))
        if excess > 0 and spec["leave"]:
            os.ftruncate(fd, max(0, os.fstat(fd).st_size - excess))
        return method

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                info = folder.stat(own_name(ctx, "fill"))
        except TargetGone:
            return Presence.GONE
        if info is None:
            return Presence.ABSENT
        return Presence.OURS if _is_ours(info) else Presence.FOREIGN

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        name = own_name(ctx, "fill")
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                info = folder.stat(name)
                if info is None:
                    return Outcome(Undone.ABSENT, "the file is gone")
                if not _is_ours(info):
                    detail = f"{folder.join(name)} is not the plain file of ours; it stays"
                    return Outcome(Undone.LEFT, detail, self.commands(spec, prior, ctx))
                _remove(folder, name)
                return Outcome(Undone.UNDONE, f"{info.st_blocks * 512} bytes are free again")
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def describe(self, spec: Data) -> tuple[str, str]:
        if spec["bytes"]:
            how = f"by {spec['bytes']} bytes"
        else:
            how = f"until {spec['percent']:g}% is used, {spec['leave']} bytes left"
        kept = ", root's reserve included" if spec["reserve"] else ""
        return (
            f"fill the file system of {spec['folder']} {how}{kept}",
            "remove the file that fills it",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        path = os.path.join(sidecar.typed(prior["folder"], ctx), own_name(ctx, "fill"))
        return (("rm", "--", path),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        for folder, uid, index in sidecar.named(folders, "fill"):
            asked = {"bytes": 1, "percent": 0.0, "leave": 0, "reserve": False}
            change = Change(self.name, {"folder": folder.path, **asked})
            yield Found(uid, index, change, {"folder": folder.identity()}, folder.path)


def _available(spec: Data, now: filesystem.Space) -> int:
    return now.free if spec["reserve"] else now.available


def _room(spec: Data, now: filesystem.Space) -> int:
    return max(0, _available(spec, now) - spec["leave"])


def wanted(spec: Data, now: filesystem.Space) -> int:
    """How many bytes to take. A percentage is of what users can reach, as `df` counts it."""
    if spec["bytes"]:
        return int(spec["bytes"])
    if spec["percent"] >= 100:
        return _room(spec, now)
    return min(now.bytes_to_reach(spec["percent"]), _room(spec, now))


def _is_ours(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) and info.st_uid in (0, os.geteuid())


def _remove(folder: Folder, name: str) -> None:
    try:
        folder.remove(name)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A copying file system may have no room to note the removal: empty the file first.
        fd = folder.open_file(name, os.O_WRONLY)
        try:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
        folder.remove(name)
