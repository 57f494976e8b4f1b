"""The change that moves processes into a control group of ours, where limits hit nobody else.

The group's name is the mark, and the group they came from is kept as an extended attribute of it,
so that a scan needs no journal. Undo lifts every limit on block I/O first: a task that hangs in a
throttled request is not freed by being moved (measured on both versions), only by lifting.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone
from faultline.errors import TargetGone
from faultline.kernel import blockio, cgroup, procfs
from faultline.kernel.cgroup import Group
from faultline.kernel.netlink import Netlink
from faultline.workers.join import group_from, group_to

HOME = "trusted.faultline.home"  # xattr(7); both versions of control groups keep them
_PATIENCE = 3.0  # seconds until the kernel has let go of a group that was left
_UNFIT = (errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV)


def own_group(parent: Data, uid: str, step: int) -> Group:
    """The group that a step of a fault makes below `parent`."""
    return group_from(parent).child(cgroup.group_name(uid, step))


class CgroupTasks(Kind):
    """spec: {parent: {version, folder}, home: {version, folder}, tasks: [{pid, start, name}]}."""

    name: ClassVar[str] = "cgroup_tasks"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        version = spec["parent"]["version"]
        each = (f"{task['pid']}:{task['start']}" for task in spec["tasks"])
        return frozenset(f"control group (version {version}) of process {who}" for who in each)

    def capture(self, spec: Data, ctx: Context) -> Data:
        living = [task for task in spec["tasks"] if _identity(task).alive()]
        if not living:
            raise TargetGone("the processes that were meant have ended")
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        group = own_group(spec["parent"], ctx.uid, ctx.index)
        group.create()
        os.setxattr(group.folder, HOME, os.fsencode(spec["home"]["folder"]))
        moved = [task["pid"] for task in spec["tasks"] if _move(task, group)]
        if not moved:
            raise TargetGone("the processes that were meant have ended")
        return {"moved": moved}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        group = own_group(spec["parent"], ctx.uid, ctx.index)
        return Presence.OURS if group.exists() else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        group = own_group(spec["parent"], ctx.uid, ctx.index)
        if not group.exists():
            return Outcome(Undone.ABSENT, "there is no control group of ours")
        blockio.lift_limits(group)
        until = time.monotonic() + _PATIENCE
        count, where = 0, ""
        while True:
            moved, to = _leave(group, group_from(spec["home"]))
            count, where = count + moved, where or to
            try:
                group.remove()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return _left(count, where, spec["home"]["folder"])

    def describe(self, spec: Data) -> tuple[str, str]:
        names = ", ".join(f"{task['name']} (pid {task['pid']})" for task in spec["tasks"])
        home = spec["home"]["folder"]
        return (
            f"move {names} from {home} into a control group of ours in {spec['parent']['folder']}",
            f"lift every limit, move what is in it to {home}, remove the group",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        group = own_group(spec["parent"], ctx.uid, ctx.index)
        if not group.exists():
            return ()
        home, folder = spec["home"]["folder"], group.folder
        moves = [f"echo {pid} > {home}/cgroup.procs" for pid in group.pids() if pid]
        lifts = [f"echo '{text}' > {folder}/{file}" for file, text in blockio.lifting(group)]
        typed = [("sh", "-c", text) for text in (*lifts, *moves)]
        return (*typed, ("rmdir", str(folder)))

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        for group in cgroup.layout().find_marked():
            marked = cgroup.read_group_name(os.path.basename(group.path))
            parent = group.parent()
            if marked is None or parent is None:
                continue
            try:
                home = os.fsdecode(os.getxattr(group.folder, HOME))
            except OSError:  # killed before it was written: nothing was moved yet
                home = str(parent.folder)
            spec: Data = {
                "parent": group_to(parent),
                "home": {"version": group.version, "folder": home},
                "tasks": [],
            }
            yield Found(*marked, Change(self.name, spec), {}, str(group.folder))


def _identity(task: Data) -> procfs.ProcessId:
    return procfs.ProcessId(task["pid"], task["start"])


def _move(task: Data, group: Group) -> bool:
    """Whether this very process was there to be moved."""
    if not _identity(task).alive():
        return False
    try:
        group.add(task["pid"])
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
        return False
    return True


def _leave(group: Group, home: Group) -> tuple[int, str]:
    """Move everything home or, where that is gone or takes no processes, as near as it goes."""
    folder = home.folder
    while True:
        place = Group(home.hierarchy, "/") if folder == home.folder else _at(home, str(folder))
        try:
            return len(group.evacuate(place)), str(folder)
        except OSError as error:
            if error.errno not in _UNFIT or not (folder.parent / "cgroup.procs").exists():
                raise
            folder = folder.parent


def _at(like: Group, folder: str) -> Group:
    return group_from({"version": like.version, "folder": folder})


def _left(count: int, where: str, home: str) -> Outcome:
    if where == home:
        return Outcome(Undone.UNDONE, f"{count} process(es) moved back, the group removed")
    detail = f"{home} takes no processes any more: {count} process(es) moved to {where}"
    return Outcome(Undone.KEPT, detail)
