"""The change that lets a control group hand a controller to the groups below it (version 2).

Service managers hand down only what a unit asks for, so the group of a target often has no `io.max`
at first. Taken back at the end, unless somebody below has come to use it meanwhile.
Source: the kernel's admin-guide/cgroup-v2, "Enabling and Disabling".
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import TargetGone
from faultline.kernel.cgroup import Group
from faultline.kernel.netlink import Netlink
from faultline.workers.join import group_from

_FILE = "cgroup.subtree_control"


def _handed(group: Group) -> list[str]:
    return group.read(_FILE).split()


def _in_use(group: Group, controller: str) -> bool:
    """Whether a group below hands it on, or has set a limit by it."""
    for below in group.walk():
        if below == group:
            continue
        try:
            limited = below.read(f"{controller}.max").split()[:1] not in ([], ["max"])
            if limited or controller in _handed(below):
                return True
        except FileNotFoundError:  # it went meanwhile, or has no such limit
            continue
    return False


class CgroupController(Kind):
    """spec: {group: {version, folder}, controller}."""

    name: ClassVar[str] = "cgroup_controller"

    def capture(self, spec: Data, ctx: Context) -> Data:
        group = group_from(spec["group"])
        if not group.exists():
            raise TargetGone(f"the control group {group.folder} is gone")
        return {"handed": spec["controller"] in _handed(group)}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        group = group_from(spec["group"])
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        if not prior["handed"]:
            group.write(_FILE, f"+{spec['controller']}")
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        group = group_from(spec["group"])
        if not group.exists():
            return Presence.GONE
        if prior["handed"] or spec["controller"] not in _handed(group):
            return Presence.ABSENT
        used = _in_use(group, spec["controller"])
        return Presence.FOREIGN if used else Presence.OURS

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        here = self.presence(spec, prior, made, ctx)
        where = f"{spec['controller']} below {spec['group']['folder']}"
        outcome = Outcome(Undone.ABSENT, f"{where} is as it was")
        if here is Presence.GONE:
            outcome = Outcome(Undone.GONE, f"the control group {spec['group']['folder']} is gone")
        elif here is Presence.FOREIGN:
            outcome = Outcome(Undone.KEPT, f"{where} is in use by others now: left enabled")
        elif here is Presence.OURS:
            outcome = self._take_back(spec, where)
        if ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _take_back(self, spec: Data, where: str) -> Outcome:
        try:
            group_from(spec["group"]).write(_FILE, f"-{spec['controller']}")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return Outcome(Undone.KEPT, f"{where} came into use just now: left enabled")
        return Outcome(Undone.UNDONE, f"{where} is taken back")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"let {spec['group']['folder']} hand the {spec['controller']} controller down",
            "take it back, unless others use it by then",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        if self.presence(spec, prior, {}, ctx) is not Presence.OURS:
            return ()
        text = f"echo -{spec['controller']} > {spec['group']['folder']}/{_FILE}"
        return (("sh", "-c", text),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))
