"""The change of a mapped device's table: what lies below a file system answers late or not at all.

Nothing can be put below a file system that is mounted, but a device of the device mapper (a logical
volume) takes another table while it is in use. A table carries no mark, so a note of it lies in the
store's run folder; it is put back only while it is still the one that we loaded.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterator
from typing import Any, ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import ApplyFailed, PlanStale, Refused, TargetGone, Unsupported
from faultline.kernel import devmapper
from faultline.kernel.blockio import Device
from faultline.kernel.devmapper import Mapper, Target
from faultline.kernel.netlink import Netlink

Table = list[Target]


class DmTable(Kind):
    """spec: {device: 'major:minor', name, uuid, old, new}.

    `old` and `new` are tables: lists of [start, length, type, params], as the kernel shows them.
    """

    name: ClassVar[str] = "dm_table"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"table of {spec['device']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        device = Device.parse(spec["device"])
        with _mapper(ctx) as mapper:
            _check_same(mapper, device, spec)
            status = mapper.status(device)
            if status.suspended or status.inactive:
                raise Refused(f"somebody else is changing the table of {spec['name']}")
            if mapper.table(device) != _tables(spec)[0]:
                raise PlanStale(f"the table of {spec['name']} was changed since the plan was made")
        return {}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [devmapper.open_control()]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        device = Device.parse(spec["device"])
        with _mapper(ctx) as mapper:
            _check_same(mapper, device, spec)
            with marks.folder(ctx) as notes:
                sidecar.write(notes, ctx, self.name, spec, prior)
            try:
                mapper.exchange(device, _tables(spec)[1])
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise Unsupported(
                        f"the kernel does not take this table for {spec['name']}",
                        hint="load the modules: modprobe dm-delay dm-flakey",
                    ) from error
                raise ApplyFailed(f"{spec['name']}: {error.strerror}") from error
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if not marks.noted(ctx):
            return Presence.ABSENT
        device = Device.parse(spec["device"])
        old, new = _tables(spec)
        with _mapper(ctx) as mapper:
            try:
                _check_same(mapper, device, spec)
                now, status = mapper.table(device), mapper.status(device)
            except TargetGone:
                return Presence.GONE
        if now == old:  # unless we were killed in the middle
            return Presence.OURS if status.suspended or status.inactive else Presence.ABSENT
        return Presence.OURS if _alike(new, now) else Presence.FOREIGN

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        if not marks.noted(ctx):
            return Outcome(Undone.ABSENT, "there is no note of it")
        try:
            with _mapper(ctx) as mapper:
                outcome = self._undo(spec, mapper, ctx)
        except TargetGone as gone:
            outcome = Outcome(Undone.GONE, gone.message)
        if outcome.settled:
            marks.forget(ctx)
        return outcome

    def _undo(self, spec: Data, mapper: Mapper, ctx: Context) -> Outcome:
        device = Device.parse(spec["device"])
        _check_same(mapper, device, spec)
        old, new = _tables(spec)
        now, status = mapper.table(device), mapper.status(device)
        if now == old:
            if status.inactive:
                mapper.clear(device)
            if status.suspended:
                mapper.resume(device)
            how = Undone.UNDONE if status.suspended or status.inactive else Undone.ABSENT
            return Outcome(how, f"{spec['name']} has its table")
        if not _alike(new, now):
            detail = f"somebody else has given {spec['name']} another table; it stays"
            return Outcome(Undone.LEFT, detail, self.commands(spec, {}, ctx))
        mapper.load(device, old)
        if not status.suspended:
            mapper.suspend(device)
        mapper.resume(device)
        if mapper.table(device) != old:
            return Outcome(Undone.FAILED, f"{spec['name']} has not taken its table back")
        return Outcome(Undone.UNDONE, f"{spec['name']} has its table again")

    def describe(self, spec: Data) -> tuple[str, str]:
        types = ", ".join(sorted({each.type for each in _tables(spec)[1]}))
        return (
            f"give the mapped device {spec['name']} ({spec['device']}) a table of {types}",
            "give it its table from before, unless somebody else has changed it",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        name = str(spec["name"])
        lines = [f"{t.start} {t.length} {t.type} {t.params}" for t in _tables(spec)[0]]
        return (
            # Several ranges are one --table, a line each.
            ("dmsetup", "load", name, "--table", "\n".join(lines)),
            ("dmsetup", "resume", name),
        )

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


@contextlib.contextmanager
def _mapper(ctx: Context) -> Generator[Mapper]:
    """The device mapper, by a descriptor from before where there is one."""
    if ctx.handed:
        yield Mapper(ctx.handed[0])
        return
    control = devmapper.open_control()
    try:
        yield Mapper(control)
    finally:
        os.close(control)


def _tables(spec: Data) -> tuple[Table, Table]:
    """The table from before and ours."""
    both: list[list[list[Any]]] = [spec["old"], spec["new"]]
    old, new = ([Target.from_json(each) for each in table] for table in both)
    return old, new


def _alike(ours: Table, now: Table) -> bool:
    return len(ours) == len(now) and all(map(Target.is_like, ours, now))


def _check_same(mapper: Mapper, device: Device, spec: Data) -> None:
    """Raise TargetGone if the number belongs to another device now."""
    try:
        status = mapper.status(device)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise TargetGone(f"the mapped device {spec['name']} ({device}) is gone") from error
    if (status.name, status.uuid) != (spec["name"], spec["uuid"]):
        raise TargetGone(f"{device} is another device now: {status.name}")
