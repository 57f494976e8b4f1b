"""The change of a file's mode, put back by inode if nobody else set it meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder
from faultline.errors import Refused, TargetGone
from faultline.kernel.netlink import Netlink


class FileAttributes(Kind):
    """spec: {path, mode}."""

    name: ClassVar[str] = "file_attributes"
    survives_reboot: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"mode:{prior['dev']}:{prior['ino']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        where, name = sidecar.split(spec["path"])
        with Folder.open(where, ctx) as folder:
            sidecar.changeable(folder, ctx)
            info, same = sidecar.regular(folder, name, ctx)
            sidecar.refuse_claimed(folder, name, ctx)
            mode = stat.S_IMODE(info.st_mode)
            if mode == spec["mode"]:
                raise Refused(f"{spec['path']} has mode {mode:04o} already")
            if os.geteuid() not in (0, info.st_uid):
                raise Refused(
                    f"{spec['path']} belongs to user {info.st_uid}: only they may change its mode"
                )
            return {**same, "folder": folder.identity(), "mode": mode, "names": [name]}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["folder"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with Folder.reopen(prior["folder"], ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
            handle = _handle(folder, prior)
            if handle is None:
                raise TargetGone(
                    f"{spec['path']} was replaced by another file since the plan was made"
                )
            try:
                os.chmod(f"/proc/self/fd/{handle}", spec["mode"])
            finally:
                os.close(handle)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Presence.ABSENT
                handle = _handle(folder, prior)
                if handle is None:
                    return Presence.OURS  # the note of a file that is gone
                mode = stat.S_IMODE(os.fstat(handle).st_mode)
                os.close(handle)
                return Presence.OURS if mode in (spec["mode"], prior["mode"]) else Presence.FOREIGN
        except TargetGone:
            return Presence.GONE

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Outcome(Undone.ABSENT, "nothing of ours lies in the folder")
                outcome = self._undo(spec, prior, folder, ctx)
                if outcome.settled:
                    sidecar.remove(folder, ctx)
                return outcome
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def _undo(self, spec: Data, prior: Data, folder: Folder, ctx: Context) -> Outcome:
        handle = _handle(folder, prior)
        if handle is None:
            return Outcome(Undone.GONE, f"{spec['path']} was removed or replaced by another file")
        try:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            if mode == prior["mode"]:
                return Outcome(Undone.ABSENT, f"the mode is {mode:04o} as before")
            if mode != spec["mode"]:
                detail = f"somebody set the mode to {mode:04o} meanwhile; it stays"
                return Outcome(Undone.LEFT, detail, self.commands(spec, prior, ctx))
            os.chmod(f"/proc/self/fd/{handle}", prior["mode"])
            now = stat.S_IMODE(os.fstat(handle).st_mode)
        finally:
            os.close(handle)
        if now != prior["mode"]:
            return Outcome(Undone.FAILED, f"the mode is {now:04o}", self.commands(spec, prior, ctx))
        return Outcome(Undone.UNDONE, f"the mode is {now:04o} again")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"set the mode of {spec['path']} to {spec['mode']:04o}",
            "set the former mode, unless somebody else has changed it meanwhile",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        folder = sidecar.typed(prior["folder"], ctx)
        path = os.path.join(folder, str(prior["names"][0]))
        note = os.path.join(folder, sidecar.own_name(ctx, "json"))
        return ("chmod", f"{prior['mode']:04o}", "--", path), ("rm", "-f", "--", note)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, folders)


def _handle(folder: Folder, prior: Data) -> int | None:
    """A handle of the remembered inode that needs no right to read it; None if it is not in the
    folder.

    The kernel's only way from such a handle to chmod(2) before Linux 6.6 is its entry in /proc.
    """
    name = prior["names"][0]
    if not folder.holds(name, prior):
        found = folder.find(prior)
        if found is None:
            return None
        name = found
    handle = folder.open_file(name, os.O_PATH)
    if not sidecar.is_same(handle, prior):
        os.close(handle)
        return None
    return handle
