"""A folder of ours full of empty files, which takes the inodes of a file system.

Undo removes file by file and can be cut off and continued anywhere. It renames the folder first,
so that whoever still fills it can be told from one who begins anew.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import Refused, TargetGone, Unsupported
from faultline.kernel import clock, filesystem
from faultline.kernel.netlink import Netlink

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHELF = 10_000  # files per folder: larger ones are slow to walk
_PASSES = 100


class DiskInodes(Kind):
    """spec: {folder, percent or count}."""

    name: ClassVar[str] = "disk_inodes"
    survives_reboot: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"inodes:{prior['folder']['dev']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        with Folder.open(spec["folder"], ctx) as folder:
            sidecar.changeable(folder, ctx)
            now = filesystem.space(folder.fd)
            if not now.inodes:
                raise Unsupported(
                    f"{folder.path} is on a file system that makes inodes as they are needed",
                    hint="fill its space instead: disk.fill",
                )
            if wanted(spec, now) <= 0:
                raise Refused(f"{folder.path} uses {now.inode_percent:.1f}% of its inodes already")
            if spec["count"] > now.inodes_available:
                raise Refused(f"{folder.path} has only {now.inodes_available} inodes to take")
            return {"folder": folder.identity(), "available": now.inodes_available}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["folder"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with Folder.reopen(prior["folder"], ctx) as folder:
            name = own_name(ctx, "inodes")
            os.mkdir(name, 0o700, dir_fd=folder.fd)
            left = wanted(spec, filesystem.space(folder.fd)) - (1 if spec["count"] else 0)
            made, shelf = 1, 0
            with _below(folder, name) as ours:
                while left > 0 and clock.now() < ctx.deadline:
                    done = _fill_shelf(ours, str(shelf), min(left, _SHELF))
                    made, shelf = made + done, shelf + 1
                    if not done:
                        break
                    # Others make and remove files meanwhile: count what is really left.
                    left = left - done if spec["count"] else wanted(spec, filesystem.space(ours.fd))
        return {"count": made}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                found = [folder.stat(own_name(ctx, role)) for role in ("inodes", "going")]
        except TargetGone:
            return Presence.GONE
        if not any(found):
            return Presence.ABSENT
        return Presence.OURS if any(info and _is_ours(info) for info in found) else Presence.FOREIGN

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        name, going = own_name(ctx, "inodes"), own_name(ctx, "going")
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                info = folder.stat(name)
                if info is not None and not _is_ours(info):
                    detail = f"{folder.join(name)} is not the folder of ours; it stays"
                    return Outcome(Undone.LEFT, detail, self.commands(spec, prior, ctx))
                removed = 0
                if folder.stat(going) is not None:
                    removed += _clear(folder, going)
                if info is not None:
                    folder.rename(name, going)
                    removed += _clear(folder, going)
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)
        if not removed:
            return Outcome(Undone.ABSENT, "the folder is gone")
        return Outcome(Undone.UNDONE, f"{removed} inodes are free again")

    def describe(self, spec: Data) -> tuple[str, str]:
        how = f"{spec['count']} of" if spec["count"] else f"{spec['percent']:g}% of"
        return (
            f"take {how} the inodes of the file system of {spec['folder']} by empty files",
            "remove the folder of empty files",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        path = sidecar.typed(prior["folder"], ctx)
        ours = [os.path.join(path, own_name(ctx, role)) for role in ("inodes", "going")]
        return (("rm", "-rf", "--", *ours),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        for role in ("inodes", "going"):
            for folder, uid, index in sidecar.named(folders, role):
                spec = {"folder": folder.path, "count": 0, "percent": 100.0}
                known = {"folder": folder.identity()}
                yield Found(uid, index, Change(self.name, spec), known, folder.path)


def wanted(spec: Data, now: filesystem.Space) -> int:
    """How many inodes to take. A percentage is of what users can reach, as `df -i` counts it."""
    if spec["count"]:
        return int(spec["count"])
    used = now.inodes - now.inodes_free
    reach = math.ceil((used + now.inodes_available) * spec["percent"] / 100) - used
    return min(reach, now.inodes_available)


def _is_ours(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode) and info.st_uid in (0, os.geteuid())


def _below(folder: Folder, name: str) -> Folder:
    flags = os.O_RDONLY | os.O_DIRECTORY
    return Folder(folder.join(name), folder.open_file(name, flags))


def _fill_shelf(ours: Folder, name: str, count: int) -> int:
    """Make a folder with count - 1 empty files; how many inodes that took, fewer when none is
    left.
    """
    made = 0
    try:
        os.mkdir(name, 0o700, dir_fd=ours.fd)
        with _below(ours, name) as shelf:
            for made in range(1, count):
                os.mknod(str(made), stat.S_IFREG | 0o600, dir_fd=shelf.fd)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return made
    return count


def _clear(folder: Folder, name: str) -> int:
    """Remove a folder of ours with all in it, also while somebody still fills it."""
    removed = 0
    for _ in range(_PASSES):
        with _below(folder, name) as ours:
            for shelf in os.listdir(ours.fd):
                removed += _clear_shelf(ours, shelf)
        try:
            os.rmdir(name, dir_fd=folder.fd)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # ENOTEMPTY: another shelf was made meanwhile
                raise
        else:
            return removed + 1
    raise OSError(
        errno.ENOTEMPTY, "it is being filled faster than it can be emptied", folder.join(name)
    )


def _clear_shelf(ours: Folder, name: str) -> int:
    with _below(ours, name) as shelf:
        files = os.listdir(shelf.fd)
        for file in files:
            shelf.remove(file)
    try:
        os.rmdir(name, dir_fd=ours.fd)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return len(files)
    return len(files) + 1
