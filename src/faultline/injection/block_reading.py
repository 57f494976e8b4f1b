"""How limits on block I/O are measured: by the group's own counters, else by requests of our own.

What the target itself transfers tells most, but often it transfers nothing, and a task that hangs
is counted nowhere. Then a process of ours joins the group and reads the disk past the page cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faultline
from faultline.changes import worker
from faultline.changes.io_limit import group_of
from faultline.changes.model import Record, mark
from faultline.errors import FaultlineError
from faultline.injection.reading import Effect, Reading
from faultline.kernel import blockio, clock
from faultline.kernel.blockio import Device, Transfers
from faultline.kernel.cgroup import Group
from faultline.kernel.mounts import mounts
from faultline.units import ByteRate

WATCH = 1.0  # seconds that the group's own counters are watched
PROBE = 2.0  # seconds of requests of our own
METHOD = (
    "The group's own transfers (io.stat, blkio) over 1 s; where it makes none, direct requests of "
    "a process of ours that joins it, against the same before it joined."
)
_OVER = 1.1  # what a limit may be exceeded by: the kernel counts in slices of 100 ms
_SMALLEST, _LARGEST = 4096, 256 << 10
_READY = 30.0


@dataclass(frozen=True, slots=True)
class _Bound:
    """One direction of one limited group: what is allowed a second."""

    group: Group
    device: Device
    mode: str  # read, write
    size: int | None  # bytes a second
    number: int | None  # requests a second

    @property
    def words(self) -> str:
        parts = [str(ByteRate(self.size))] if self.size is not None else []
        parts += [f"{self.number} requests/s"] if self.number is not None else []
        return f"{self.mode} {self.device.name} at {' and '.join(parts)}"

    @property
    def block(self) -> int:
        """A request of which some ten fit into a second, where that is possible."""
        if self.size is None:
            return _SMALLEST
        wanted = self.size // 10 // _SMALLEST * _SMALLEST
        return max(_SMALLEST, min(_LARGEST, wanted))

    def allowed(self, block: int) -> float:
        """Bytes a second for requests of `block` bytes."""
        rates = [float(self.size)] if self.size is not None else []
        rates += [float(self.number * block)] if self.number is not None else []
        return min(rates)


def bounds(record: Record) -> list[_Bound]:
    """Every direction that the record's steps limit."""
    found: list[_Bound] = []
    for step in record.steps:
        spec = step.change.spec
        if step.change.kind != "io_limit":
            continue
        limits: dict[str, int | None] = spec["limits"]
        group, device = group_of(spec, record.uid), Device.parse(spec["device"])
        for mode, size, number in (
            ("read", limits.get("read_bytes"), limits.get("reads")),
            ("write", limits.get("write_bytes"), limits.get("writes")),
        ):
            if size is not None or number is not None:
                found.append(_Bound(group, device, mode, size, number))
    return found


def limits(record: Record, asked: str, folder: str | None) -> Reading:
    """Whether every limit of the fault holds; the first that does not tells.

    `folder` is of the place that the record acts in.
    """
    found = bounds(record)
    gone = [bound.group.folder for bound in found if not bound.group.exists()]
    if gone:
        reason = f"the control group {gone[0]} is gone"
        return Reading(Effect.INEFFECTIVE, asked, "no group", METHOD, reason)
    before = [blockio.group_transfers(bound.group, bound.device) for bound in found]
    begin = time.monotonic()
    time.sleep(WATCH)
    passed = time.monotonic() - begin
    after = [blockio.group_transfers(bound.group, bound.device) for bound in found]
    readings = [
        _watched(bound, now - then, passed) or _probed(record, bound, folder)
        for bound, then, now in zip(found, before, after, strict=True)
    ]
    worst = [each for each in readings if each.effect is not Effect.EFFECTIVE]
    chosen = (worst or readings)[0]
    measured = "; ".join(each.measured for each in readings if each.measured)
    return Reading(chosen.effect, asked, measured, METHOD, chosen.reason, chosen.values)


def _watched(bound: _Bound, moved: Transfers, passed: float) -> Reading | None:
    """By what the target transferred itself; None where that is too little to tell."""
    read = bound.mode == "read"
    size = (moved.read_bytes if read else moved.written_bytes) / passed
    number = (moved.reads if read else moved.writes) / passed
    near = (bound.size is not None and size > 0.5 * bound.size) or (
        bound.number is not None and number > 0.5 * bound.number
    )
    if not near:
        return None
    # Whole requests pass, so the edges of the window may hold one too many each.
    each = size / number if number else 0.0
    over = (bound.size is not None and size > _OVER * bound.size + 2 * each / passed) or (
        bound.number is not None and number > _OVER * bound.number + 2 / passed
    )
    values = {"measured": size, "requests": number}
    if bound.size is not None:
        values["asked"] = float(bound.size)
    text = f"{bound.mode} {ByteRate(round(size)).short}, {number:.0f} requests/s by the target"
    effect = Effect.INEFFECTIVE if over else Effect.EFFECTIVE
    reason = "more passes than was asked" if over else ""
    return Reading(effect, bound.words, text, METHOD, reason, values)


def _probed(record: Record, bound: _Bound, folder: str | None) -> Reading:
    """By requests of our own inside the group."""
    node = node_of(bound.device)
    where = folder or mounted(bound.device)
    if bound.mode == "read" and node is None:
        why = f"there is no node of {bound.device.name} in /dev to read from"
        return Reading.unmeasured(bound.words, METHOD, why)
    if bound.mode == "write" and where is None:
        why = f"nothing writes, and no file system of {bound.device.name} is mounted to write to"
        return Reading.unmeasured(bound.words, METHOD, why)
    order: dict[str, Any] = {
        "join": [str(bound.group.folder)],
        "mode": bound.mode,
        "node": node,
        "folder": where,
        "root": worker.root_of_place(record.place) if folder else None,
        "block": bound.block,
        "seconds": PROBE,
        "deadline": clock.now() + round((_READY + PROBE) * 1e9),
    }
    source = str(Path(faultline.__file__).parents[1])
    whole = {"module": "io_probe", "deadline": order["deadline"], "spec": order}
    try:
        told = worker.start(source, mark(record.uid, 0), whole, _READY)
    except FaultlineError as error:
        return Reading.unmeasured(bound.words, METHOD, str(error))
    return _judge(bound, told)


def _judge(bound: _Bound, told: dict[str, Any]) -> Reading:
    allowed = bound.allowed(bound.block)
    rate = told["bytes"] / told["seconds"]
    values = {"asked": allowed, "measured": rate, "free": told["free"], "waiting": told["waiting"]}
    free = ByteRate(round(told["free"])).short
    text = f"{bound.mode} {ByteRate(round(rate)).short}, {free} outside the group"
    if not told["requests"]:
        text = f"a {bound.mode} waits since {told['waiting']:.1f} s, {free} outside the group"
    if told["free"] < 1.3 * allowed:
        why = f"the disk is no faster than the limit: {free}"
        return Reading.unmeasured(bound.words, METHOD, why)
    # One request more than is due may have passed: whole requests are let through.
    over = rate > _OVER * allowed + bound.block / told["seconds"]
    effect = Effect.INEFFECTIVE if over else Effect.EFFECTIVE
    reason = "more passes than was asked" if over else ""
    return Reading(effect, bound.words, text, METHOD, reason, values)


def node_of(device: Device) -> str | None:
    """The node in /dev of a block device, if it is really this one."""
    path = f"/dev/{device.name.replace('!', '/')}"
    try:
        number = Path(path).stat().st_rdev
    except FileNotFoundError:
        return None
    return path if Device(os.major(number), os.minor(number)) == device else None


def mounted(device: Device) -> str | None:
    """Where a file system of this disk, or of a partition of it, is mounted for writing."""
    fits: Callable[[Device], bool] = lambda each: each.exists() and each.disk() == device  # noqa: E731
    for mount in mounts():
        if "rw" in mount.options & mount.super_options and fits(Device(*mount.device)):
            return mount.point
    return None
