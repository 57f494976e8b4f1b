"""A file taken away by renaming it: hidden beside itself, or moved to where it was told to.

A rename keeps the inode, so programs that have the file open go on with it, and content, owner,
times and attributes need no copy. Undo renames it back, unless something else has taken its name
meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import Refused, TargetGone, Unsupported
from faultline.kernel import syscalls
from faultline.kernel.netlink import Netlink


class FileMoved(Kind):
    """spec: {path, to: another path, or '' to hide it}."""

    name: ClassVar[str] = "file_moved"
    survives_reboot: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"file:{prior['dev']}:{prior['ino']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        where, name = sidecar.split(spec["path"])
        with Folder.open(where, ctx) as folder:
            sidecar.changeable(folder, ctx)
            _, same = sidecar.regular(folder, name, ctx)
            sidecar.refuse_claimed(folder, name, ctx)
            prior = {**same, "folder": folder.identity(), "names": [name]}
            if not spec["to"]:
                return {**prior, "target": prior["folder"], "target_name": own_name(ctx, "kept")}
            there, new = sidecar.split(spec["to"])
            with Folder.open(there, ctx) as target:
                if target.stat(new) is not None:
                    raise Refused(
                        f"{spec['to']} exists", hint="nothing is ever replaced; name a free path"
                    )
                # Of the folders: an overlay shows files by the device that they really lie on.
                if os.fstat(target.fd).st_dev != os.fstat(folder.fd).st_dev:
                    raise Unsupported(
                        f"{spec['to']} is on another file system: a copy would be another file",
                        hint="move within one file system, or use file.delete",
                    )
                return {**prior, "target": target.identity(), "target_name": new}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior[key], ctx) for key in ("folder", "target")]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        name = prior["names"][0]
        with Folder.reopen(prior["folder"], ctx) as folder, _target(prior, ctx) as target:
            if not folder.holds(name, prior):
                raise TargetGone(
                    f"{spec['path']} was replaced by another file since the plan was made"
                )
            sidecar.write(folder, ctx, self.name, spec, prior)
            _rename(folder, name, target, prior["target_name"])
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Presence.ABSENT
                name = prior["names"][0]
                taken = folder.stat(name) is not None and not folder.holds(name, prior)
        except TargetGone:
            return Presence.GONE
        return Presence.FOREIGN if taken else Presence.OURS

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Outcome(Undone.ABSENT, "nothing of ours lies in the folder")
                with _target(prior, ctx) as target:
                    outcome = self._undo(prior, folder, target)
                if outcome.settled:
                    sidecar.remove(folder, ctx)
                    return outcome
                return Outcome(outcome.end, outcome.detail, self.commands(spec, prior, ctx))
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def _undo(self, prior: Data, folder: Folder, target: Folder) -> Outcome:
        name, there = prior["names"][0], prior["target_name"]
        if folder.holds(name, prior):
            return Outcome(Undone.ABSENT, f"{name} is in its place")
        kept = target.stat(there)
        if not target.holds(there, prior):
            what = "was removed" if kept is None else "is another file now"
            return Outcome(Undone.GONE, f"{target.join(there)} {what}")
        try:
            _rename(target, there, folder, name)
        except FileExistsError:
            detail = f"{folder.join(name)} exists again; both it and {target.join(there)} stay"
            return Outcome(Undone.LEFT, detail)
        if not folder.holds(name, prior):
            return Outcome(Undone.FAILED, f"{name} is not the file that was moved")
        return Outcome(Undone.UNDONE, f"{name} is back, the same inode")

    def describe(self, spec: Data) -> tuple[str, str]:
        if spec["to"]:
            return (
                f"rename {spec['path']} to {spec['to']}",
                "rename it back, unless its name is taken again",
            )
        return (
            f"hide {spec['path']} under a name of ours in its folder",
            "rename it back, unless its name is taken again",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        folder = sidecar.typed(prior["folder"], ctx)
        path = os.path.join(folder, str(prior["names"][0]))
        there = os.path.join(sidecar.typed(prior["target"], ctx), str(prior["target_name"]))
        note = os.path.join(folder, own_name(ctx, "json"))
        return ("mv", "-T", "--", there, path), ("rm", "-f", "--", note)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, folders)


def _target(prior: Data, ctx: Context) -> Folder:
    return Folder.reopen(prior["target"], ctx, 1)


def _rename(source: Folder, old: str, target: Folder, new: str) -> None:
    """Rename without replacing anything, durably."""
    try:
        syscalls.renameat2(source.fd, old, target.fd, new, syscalls.Rename.NOREPLACE)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise Unsupported(f"{target.path} is on another file system") from error
        raise
    source.sync()
    target.sync()
