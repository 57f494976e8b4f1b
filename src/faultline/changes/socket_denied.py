"""The change that denies connections where they are asked for: `connect` and `sendto` fail.

The deadline is inside the programs. A network namespace is named by its cookie and a control group
by its folder, so that nobody outside both is asked. See `kernel.denial`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from faultline.changes.classifier import group_of, guard_from, match_from
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone
from faultline.errors import TargetGone, Unsupported
from faultline.kernel import cgroup, denial
from faultline.kernel.mark import Mark
from faultline.kernel.netlink import Netlink
from faultline.workers.join import group_to


class SocketDenied(Kind):
    """spec: {group: {version, folder, step}, match, cookie, what}; with a step it is ours."""

    name: ClassVar[str] = "socket_denied"

    def capture(self, spec: Data, ctx: Context) -> Data:
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        group = group_of(spec, ctx)
        if not group.exists():
            raise TargetGone(f"the control group {group.folder} is gone")
        deadline = guard_from(spec, ctx).deadline
        match = match_from(spec["match"])
        denial.attach(group.folder, _mark(ctx), match, spec["cookie"], deadline)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        group = group_of(spec, ctx)
        if not group.exists():
            return Presence.ABSENT  # the programs have gone with it
        return Presence.OURS if denial.find(group.folder, _mark(ctx)) else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        group = group_of(spec, ctx)
        if denial.detach(group.folder, _mark(ctx)):
            return Outcome(Undone.UNDONE, f"programs removed from {group.folder}")
        return Outcome(Undone.ABSENT, "no program carries the mark")

    def describe(self, spec: Data) -> tuple[str, str]:
        where = spec["group"]["folder"]
        return (
            f"put eBPF programs on the control group {where}: {spec['what']}",
            f"remove the programs from {where}",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        group = group_of(spec, ctx)
        names = {denial.CONNECT4: "connect4", denial.CONNECT6: "connect6",
                 denial.SENDMSG4: "sendmsg4", denial.SENDMSG6: "sendmsg6"}  # fmt: skip
        return tuple(
            ("bpftool", "cgroup", "detach", str(group.folder), names[one.hook], "id",
             str(one.program))
            for one in denial.find(group.folder, _mark(ctx))
        )  # fmt: skip

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        try:
            tree = cgroup.layout().unified()
            groups = list(cgroup.Group(tree.hierarchy, tree.hierarchy.root).walk())
            found = {
                (one.mark.uid, one.mark.step): group
                for group in groups
                for one in denial.on_group(group.folder)
            }
        except (Unsupported, OSError):  # no such tree, or no right to ask
            return
        for (uid, step), group in found.items():
            spec: Data = {"group": {**group_to(group), "step": None}, "what": "found by its mark"}
            yield Found(uid, int(step), Change(self.name, spec), {}, str(group.folder))


def _mark(ctx: Context) -> Mark:
    return Mark(ctx.uid, str(ctx.index))
