"""The change that limits what a control group may read from and write to one disk.

On a group of ours nothing else can have set a limit; on a target's own group what was set there is
never loosened, and each value is put back only while it is still ours. A value cannot carry a mark,
so a note of it lies in the store's run folder.
Source: the kernel's admin-guide/cgroup-v2 (`io.max`) and cgroup-v1/blkio-controller.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.cgroup_tasks import own_group
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import TargetGone, Unsupported
from faultline.kernel import blockio
from faultline.kernel.blockio import Device, IoLimits
from faultline.kernel.cgroup import Group
from faultline.kernel.netlink import Netlink
from faultline.units import ByteRate
from faultline.workers.join import group_from

_NAMES = tuple(each.name for each in fields(IoLimits))
_WORDS = {"read_bytes": "reads", "write_bytes": "writes"}


def group_of(spec: Data, uid: str) -> Group:
    """The group that is limited: the target's own, or the one that step `step` of ours made."""
    if spec["step"] is None:
        return group_from(spec["group"])
    return own_group(spec["group"], uid, spec["step"])


def _tightened(prior: IoLimits, wanted: IoLimits) -> IoLimits:
    """What is set: ours, but never looser than what somebody set before."""
    values: dict[str, int | None] = {}
    for name in _NAMES:
        both = [v for v in (getattr(prior, name), getattr(wanted, name)) if v is not None]
        values[name] = min(both, default=None)
    return IoLimits(**values)


class IoLimit(Kind):
    """spec: {group: {version, folder}, step, device, limits}.

    `step` is the step of the same fault that makes the group, and `group` then the one it is made
    in; null for a group that was there.
    """

    name: ClassVar[str] = "io_limit"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        if spec["step"] is not None:
            return frozenset()
        return frozenset({f"I/O limit of {spec['group']['folder']} on {spec['device']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        device = Device.parse(spec["device"])
        if not device.exists():
            raise TargetGone(f"there is no block device {device}")
        if spec["step"] is not None:
            return {"limits": {}}
        group = group_from(spec["group"])
        if not group.exists():
            raise TargetGone(f"the control group {group.folder} is gone")
        return {"limits": asdict(blockio.read_limits(group, device))}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        group, device = group_of(spec, ctx.uid), Device.parse(spec["device"])
        if spec["step"] is None:
            with marks.folder(ctx) as folder:
                sidecar.write(folder, ctx, self.name, spec, prior)
        ours = _tightened(IoLimits(**prior["limits"]), IoLimits(**spec["limits"]))
        try:
            blockio.write_limits(group, device, ours)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise Unsupported(
                    f"the kernel limits no I/O on {device.name} ({device})",
                    hint="name a disk that holds data itself, such as the one below",
                ) from error
            raise
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        group, device = group_of(spec, ctx.uid), Device.parse(spec["device"])
        if not group.exists():
            return Presence.ABSENT if spec["step"] is not None else Presence.GONE
        if not device.exists():
            return Presence.GONE
        before, ours, now = self._three(spec, prior, group, device)
        if now == before:
            return Presence.ABSENT
        foreign = any(_value(now, n) not in (_value(before, n), _value(ours, n)) for n in _NAMES)
        return Presence.FOREIGN if foreign and spec["step"] is None else Presence.OURS

    def _three(
        self, spec: Data, prior: Data, group: Group, device: Device
    ) -> tuple[IoLimits, IoLimits, IoLimits]:
        """What was set before, what we set, what is set now."""
        before = IoLimits(**prior.get("limits", {}))
        ours = _tightened(before, IoLimits(**spec["limits"]))
        return before, ours, blockio.read_limits(group, device)

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior, ctx)
        if outcome.settled and spec["step"] is None and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data, ctx: Context) -> Outcome:
        group, device = group_of(spec, ctx.uid), Device.parse(spec["device"])
        here = self.presence(spec, prior, {}, ctx)
        if here is Presence.GONE:
            return Outcome(Undone.GONE, f"{group.folder} or the device {device} is gone")
        if here is Presence.ABSENT:
            return Outcome(Undone.ABSENT, "the limits are as they were")
        before, ours, now = self._three(spec, prior, group, device)
        if spec["step"] is not None:
            blockio.write_limits(group, device, before)
            return Outcome(Undone.UNDONE, f"lifted on {device.name}")
        changes = {
            name: _value(before, name)
            for name in _NAMES
            if _value(now, name) == _value(ours, name) != _value(before, name)
        }
        blockio.write_limits(group, device, replace(now, **changes))
        if here is Presence.FOREIGN:
            detail = f"somebody else limits {device.name} in {group.folder} now: that is left"
            return Outcome(Undone.KEPT, detail)
        return Outcome(Undone.UNDONE, f"put back on {device.name} in {group.folder}")

    def describe(self, spec: Data) -> tuple[str, str]:
        limits = [_words(name, value) for name, value in spec["limits"].items() if value]
        where = spec["group"]["folder"] if spec["step"] is None else "that group"
        return (
            f"limit {where} on {_device(spec['device'])} to {', '.join(limits)}",
            "put back the values from before, each if it is still ours",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        group = group_of(spec, ctx.uid)
        if not group.exists():
            return ()
        before = IoLimits(**prior.get("limits", {}))
        lines = blockio.limit_lines(group, Device.parse(spec["device"]), before)
        return tuple(("sh", "-c", f"echo '{text}' > {group.folder}/{file}") for file, text in lines)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


def _value(limits: IoLimits, name: str) -> int | None:
    return getattr(limits, name)


def _words(name: str, value: int) -> str:
    if name in _WORDS:
        return f"{ByteRate(value)} of {_WORDS[name]}"
    return f"{value} {name}/s"


def _device(text: str) -> str:
    device = Device.parse(text)
    return f"{device.name} ({device})" if device.exists() else text
