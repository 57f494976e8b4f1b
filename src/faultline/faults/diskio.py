"""Faults of block I/O: a busy disk, a slow one, one that does not answer."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from faultline import units
from faultline.api.params import Params
from faultline.api.quantities import Between, ByteRate, Flag, Size, text
from faultline.changes.model import Change, Record, mark
from faultline.errors import Refused, Unsupported
from faultline.injection import block_reading, guards
from faultline.injection.file_target import folder, note_root, opened
from faultline.injection.group_target import handed_down
from faultline.injection.model import Ending, Fault
from faultline.injection.process_target import ProcessParams, selection, targets
from faultline.injection.reading import Effect, Reading
from faultline.kernel import blockio, cgroup, procfs
from faultline.kernel.blockio import Device, IoLimits
from faultline.kernel.cgroup import Group
from faultline.places.model import Place
from faultline.workers.io_burn import ALIGNMENT
from faultline.workers.join import group_to

_WATCH = 1.0  # seconds that the disk's counters are watched
_NEAR = 0.8  # the share of an asked rate that must be reached
_SLOWEST = 1  # byte a second: the smallest rate that the kernel takes

P = TypeVar("P", bound="_TargetParams")


def _aligned(value: units.Size) -> units.Size:
    if value % ALIGNMENT:
        raise ValueError(f"expected a multiple of {ALIGNMENT}B")
    return value


class BurnParams(Params):
    """Parameters of `diskio burn`."""

    mode: Annotated[Literal["read", "write"], Flag("m")] = "read"
    """Whether to read or to write."""
    folder: Annotated[str, Field(max_length=4095, pattern="^/"), Flag("d", ("dir",))] = "/tmp"  # noqa: S108 - what peers default to
    """An absolute path of a folder on the disk that is meant."""
    block: Annotated[Size, Between("4KiB", "1GiB"), AfterValidator(_aligned), Flag("b")] = text(
        "1MiB"
    )
    """How much one request transfers; a multiple of 4 KiB."""
    bytes: Annotated[Size, Between("4KiB", "1TiB")] = text("1GiB")
    """The size of the file that is worked on; never more than half of what is free."""
    count: Annotated[int, Between(1, 64), Flag("c")] = 1
    """How many requests there are at once."""
    rate: Annotated[ByteRate | None, Between("4KiB/s", "1TiB/s"), Flag("r")] = None
    """How much to transfer in a second; without it as fast as it goes."""
    amount: Annotated[Size | None, Between("4KiB", "1024TiB"), Flag("a")] = None
    """How much to transfer altogether and then rest; without it until the end."""

    @property
    def words(self) -> str:
        """What is asked, in a few words."""
        amount = f"{self.mode} {self.amount}" if self.amount is not None else self.mode
        return f"{amount} at {self.rate}" if self.rate is not None else f"{amount} without pause"


class DiskioBurn(Fault[BurnParams]):
    """Keep a disk busy by reading or writing past the page cache: without pause, at a rate, or a
    certain amount.

    On a place the requests count as the place's own: they are made in its control groups.
    """

    id = "diskio.burn"
    ending = Ending.SELF
    does = (
        "Processes of ours read or write one file without a name, with direct I/O, block after "
        "block; to be read it is written first."
    )
    cannot = (
        "Burn file systems in memory or those that do no direct I/O. A quota or a limit on block "
        "I/O of the target's control group applies to it too. Writing wears flash storage."
    )
    measures = (
        "The disk's counters in /proc/diskstats over 1 s, against what the kernel charged our "
        "processes in that time (/proc/PID/io)."
    )
    restores = "Ends the processes; the file has no name and goes with them."
    example: ClassVar[dict[str, str]] = {"folder": "{disk}", "bytes": "8MiB", "block": "64KiB"}
    scratch = "disk"

    def plan(self, place: Place, params: BurnParams) -> list[Change]:
        where = folder(place, params.folder)
        join = place.groups("io", "blkio", "memory", "cpu", "cpuacct")
        order = {
            "mode": params.mode,
            "folder": where,
            "block": int(params.block),
            "size": max(int(params.bytes), int(params.block)),
            "jobs": params.count,
            "rate": int(params.rate or 0),
            "amount": int(params.amount or 0),
            "join": [str(group.folder) for group in join],
        }
        what = f"{params.words} in {where}, {params.count} times {params.block} at once"
        spec = {"module": "io_burn", "spec": order, "what": what, "ready": 120.0}
        return [Change("worker", spec)]

    def observe(self, place: Place, params: BurnParams, record: Record) -> Reading:
        asked = params.words
        disk = _disk_of(place, params.folder)
        pids = [each.pid for each in procfs.find_marked(mark(record.uid, 0))]
        if not pids:
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, asked, "nothing burns", self.measures, why)
        before, ours = blockio.disk_use(disk), _charged(pids, params.mode)
        begin = time.monotonic()
        time.sleep(_WATCH)
        after, later = blockio.disk_use(disk), _charged(pids, params.mode)
        passed = time.monotonic() - begin
        moved = after.transfers - before.transfers
        size = moved.read_bytes if params.mode == "read" else moved.written_bytes
        busy = min(100.0, 100 * (after.busy - before.busy) / (passed * 1e9))
        rate, own = size / passed, (later - ours) / passed
        measured = (
            f"{units.ByteRate(round(rate)).short} on {disk.name}, {busy:.0f}% of the time busy, "
            f"{units.ByteRate(round(own)).short} of it ours"
        )
        values = {"measured": rate, "own": own, "busy": busy, "bytes": float(later)}
        if params.amount is not None and later >= int(params.amount):
            measured = f"{units.Size(later).short} by our processes, all of it"
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, values=values)
        # The disk must have moved at least what we are charged for, but for what is on its way.
        reason = "" if own > 0 and rate >= 0.5 * own else "the requests do not reach the disk"
        if params.rate is not None:
            values["asked"] = float(params.rate)
            if own < _NEAR * float(params.rate):
                reason = reason or "the disk does no more"
        effect = Effect.INEFFECTIVE if reason else Effect.EFFECTIVE
        return Reading(effect, asked, measured, self.measures, reason, values)


def _charged(pids: list[int], mode: str) -> int:
    """Bytes that the kernel says these processes had read from or written to disks."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        values = dict(line.split(": ") for line in lines)
        total += int(values[f"{mode}_bytes"])
    return total


# ------------------------------------------------------------------------------- limit and hang


class _TargetParams(ProcessParams):
    """Which processes, which disk, and by which control group. On a place that is not the host all
    of its processes are meant unless these say which.
    """

    device: Annotated[str | None, Field(min_length=1, max_length=255), Flag("d", ("dev-list",))] = (
        None
    )
    """The disks, by number, node or name, separated by commas: `8:0`, `/dev/sda`, `sda,sdb`. A
    partition stands for its disk."""
    folder: Annotated[str | None, Field(max_length=4095, pattern="^/")] = None
    """Instead of a device: a folder on the disk that is meant."""
    engine: Literal["auto", "target", "ours"] = "auto"
    """target: the limit is set on the target's own control group, with everybody in it; ours: the
    target is moved into a group of ours; auto: its own, if nobody else is in it."""

    @model_validator(mode="after")
    def _where(self) -> _TargetParams:
        if (self.device is None) == (self.folder is None):
            raise ValueError("expected either device or folder")
        return self


class LimitParams(_TargetParams):
    """Parameters of `diskio limit`: at least one limit."""

    read_rate: Annotated[ByteRate | None, Between("1B/s", "1TiB/s")] = None
    """How much may be read in a second."""
    write_rate: Annotated[ByteRate | None, Between("1B/s", "1TiB/s")] = None
    """How much may be written in a second."""
    reads: Annotated[int | None, Between(1, 10**9)] = None
    """How many reads may be done in a second."""
    writes: Annotated[int | None, Between(1, 10**9)] = None
    """How many writes may be done in a second."""

    @model_validator(mode="after")
    def _any_limit(self) -> LimitParams:
        if not any((self.read_rate, self.write_rate, self.reads, self.writes)):
            raise ValueError("expected one of read_rate, write_rate, reads or writes")
        return self


class HangParams(_TargetParams):
    """Parameters of `diskio hang`."""

    mode: Annotated[Literal["all", "read", "write"], Flag("m")] = "all"
    """Whether reads hang, writes, or both."""


class _Throttled(Fault[P]):
    """What the faults share that set a limit on block I/O."""

    ending = Ending.KEEPER
    does = (
        "Sets a limit on a control group: `io.max` of version 2, `blkio.throttle` of version 1; on "
        "the target's own, or on one of ours, its name the mark, that the target is moved into."
    )
    cannot = (
        "With version 1 only what a task submits itself is held: direct and synchronous I/O, not "
        "what the kernel writes back later. Reads from the page cache need no disk. A task moved "
        "into a group of ours leaves the other limits of its group (version 2), and a service "
        "manager may take a unit whose group is empty for ended: its own group is better there."
    )
    measures = block_reading.METHOD
    restores = (
        "Lifts the limit first, since a task that hangs in a request is freed by nothing else; "
        "then moves what is in the group of ours back and removes it."
    )
    needs = frozenset({"root"})
    scratch = "disk"

    def limits(self, params: P) -> IoLimits:
        """What is asked, as the kernel takes it."""
        raise NotImplementedError

    def words(self, params: P) -> str:
        """What is asked, in a few words."""
        raise NotImplementedError

    def plan(self, place: Place, params: P) -> list[Change]:
        if os.geteuid() != 0:
            raise Unsupported("limits on block I/O are set by root alone", hint="run as root")
        disks = _disks(place, params)
        wanted = asdict(self.limits(params))
        changes: list[Change] = []
        for group, members in _groups(place, params, targets(params, place)):
            own = _own(group, members, params.engine)
            base = group if own else group.beside("ours").parent()
            assert base is not None
            changes += handed_down(group if own else group.beside("ours"), "io")
            step = None if own else len(changes)
            if not own:
                tasks = [{"pid": p.pid, "start": p.id.start, "name": p.name} for p in members]
                spec = {"parent": group_to(base), "home": group_to(group), "tasks": tasks}
                changes.append(Change("cgroup_tasks", spec))
            changes += [
                Change(
                    "io_limit",
                    {
                        "group": group_to(base),
                        "step": step,
                        "device": str(disk),
                        "limits": wanted,
                    },
                )
                for disk in disks
            ]
        return changes

    def observe(self, place: Place, params: P, record: Record) -> Reading:
        return block_reading.limits(record, self.words(params), params.folder)


class DiskioLimit(_Throttled[LimitParams]):
    """Make a disk slow for some processes."""

    id = "diskio.limit"
    example: ClassVar[dict[str, str]] = {
        "pid": "{pid}",
        "device": "{device}",
        "read_rate": "1MiB/s",
    }

    def limits(self, params: LimitParams) -> IoLimits:
        read = None if params.read_rate is None else int(params.read_rate)
        write = None if params.write_rate is None else int(params.write_rate)
        return IoLimits(read, write, params.reads, params.writes)

    def words(self, params: LimitParams) -> str:
        parts = {
            "read at most": params.read_rate,
            "write at most": params.write_rate,
            "reads/s at most": params.reads,
            "writes/s at most": params.writes,
        }
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)


class DiskioHang(_Throttled[HangParams]):
    """Let the disk requests of some processes hang: they wait and cannot be killed.

    The limit is the smallest that the kernel takes, one byte a second: a request of 4 KiB would be
    let through after more than an hour.
    """

    id = "diskio.hang"
    example: ClassVar[dict[str, str]] = {"pid": "{pid}", "device": "{device}", "mode": "read"}

    def limits(self, params: HangParams) -> IoLimits:
        read = _SLOWEST if params.mode != "write" else None
        write = _SLOWEST if params.mode != "read" else None
        return IoLimits(read, write)

    def words(self, params: HangParams) -> str:
        return "reads and writes hang" if params.mode == "all" else f"{params.mode}s hang"

    def observe(self, place: Place, params: HangParams, record: Record) -> Reading:
        found = super().observe(place, params, record)
        found.values.pop("asked", None)  # a rate that is as good as none is no value to be met
        return found


def _disk_of(place: Place, path: str) -> Device:
    """The disk below a folder of a place."""
    with opened(place, path) as fd:
        return Device.of_fd(fd, path, place.pid).disk()


def _disks(place: Place, params: _TargetParams) -> list[Device]:
    if params.folder is not None:
        note_root(place, params.folder)
        return [_disk_of(place, params.folder)]
    names = [name.strip() for name in (params.device or "").split(",")]
    return sorted({Device.find(name).disk() for name in names if name})


def _groups(
    place: Place, params: _TargetParams, found: list[procfs.Process]
) -> list[tuple[Group, list[procfs.Process]]]:
    """The targets by the control group that counts for their block I/O.

    A whole place that has a group is that one, with all below it; version 1 throttles each alone.
    """
    layout = cgroup.layout()
    if place.group and not selection(params, place).narrows:
        whole = place.own_group("io" if "io" in layout.controllers() else "blkio")
        if whole.version == 2 and whole.parent() is not None:
            return [(whole, found)]
    groups: dict[str, tuple[Group, list[procfs.Process]]] = {}
    for process in found:
        group = blockio.io_group(layout, process.pid)
        groups.setdefault(group.path, (group, []))[1].append(process)
    return list(groups.values())


def _own(group: Group, members: list[procfs.Process], engine: str) -> bool:
    """Whether the limit is set on the target's own group; forced, everybody in it is a target."""
    limitable = group.parent() is not None
    if engine == "ours" or (engine == "auto" and not limitable):
        return False
    if not limitable:
        raise Refused("the target is in the root control group, which takes no limit")
    # Version 1 throttles the very group, version 2 everything below it too.
    inside = group.walk() if group.version == 2 else [group]
    pids = {pid for each in inside for pid in each.pids()} - {each.pid for each in members}
    hidden = 0 in pids  # in a pid namespace that ours does not show
    others = [each for each in procfs.processes() if each.pid in pids]
    strangers = [each for each in others if not guards.is_ours(each)]
    if engine == "auto":
        return not strangers and not hidden
    guards.protect(strangers)
    if strangers:
        guards.current().note(f"{len(strangers)} more processes share {group.folder}")
    return True
