"""Faults below a file system: a disk that answers late, or with errors, to everybody.

The file system has to lie on a device of the device mapper, as a logical volume does: its table is
exchanged while it is in use.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, model_validator

from faultline import units
from faultline.api.quantities import Between, Duration, Flag, Percent, text
from faultline.changes.model import Change, Record
from faultline.errors import Refused, Unsupported
from faultline.faults.disk.space import FolderParams, protect_host
from faultline.injection.block_reading import node_of
from faultline.injection.file_target import folder, opened
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import devmapper
from faultline.kernel.blockio import Device
from faultline.kernel.devmapper import Mapper, Target
from faultline.places.model import Place

_TRIES = 5  # requests that are timed
_LONG = 0.5  # seconds of delay above which one is enough
_BLOCK = 4096
_SECOND = 10**9


class _MappedParams(FolderParams):
    mode: Annotated[Literal["all", "read", "write"], Flag("m")] = "all"
    """Whether reads are hit, writes, or both."""


P = TypeVar("P", bound=_MappedParams)


class _Mapped(Fault[P]):
    """What the faults below a file system share."""

    ending = Ending.KEEPER
    needs = frozenset({"root"})
    scratch = "disk"
    cannot = (
        "Only devices of the device mapper with plain ranges (linear) can be hit, such as logical "
        "volumes: nothing can be put below another file system while it is mounted. What is in the "
        "page cache needs no disk. "
    )
    restores = "The table from before, while ours is still the one in force."

    def target(self, params: P, old: Target) -> Target:
        """What takes the place of one range."""
        raise NotImplementedError

    def plan(self, place: Place, params: P) -> list[Change]:
        if os.geteuid() != 0:
            raise Unsupported("the device mapper is root's alone", hint="run as root")
        where = folder(place, params.folder)
        with opened(place, params.folder) as fd:
            device = Device.of_fd(fd, where, place.pid)
            if not devmapper.is_mapped(device):
                raise Unsupported(
                    f"{where} lies on {device.name}, which is no device of the device mapper: "
                    "nothing can be put below it while it is mounted",
                    hint="use a logical volume; or slow some processes: diskio.limit, diskio.hang",
                )
            protect_host(fd, where)
        control = devmapper.open_control()
        try:
            mapper = Mapper(control)
            status, old = mapper.status(device), mapper.table(device)
        finally:
            os.close(control)
        other = sorted({each.type for each in old} - {"linear"})
        if other:
            raise Unsupported(
                f"the table of {status.name} has {', '.join(other)}",
                hint="only plain ranges (linear) can be replaced and put back safely",
            )
        spec = {
            "device": str(device),
            "name": status.name,
            "uuid": status.uuid,
            "old": [each.to_json() for each in old],
            "new": [self.target(params, each).to_json() for each in old],
        }
        return [Change("dm_table", spec)]


class DelayParams(_MappedParams):
    """Parameters of `disk delay`."""

    latency: Annotated[Duration, Between("1ms", "60s"), Flag("l")]
    """How long every request waits; whole milliseconds."""


class DiskDelay(_Mapped[DelayParams]):
    """Let every request of a file system to its disk wait."""

    id = "disk.delay"
    does = "Replaces the table of the mapped device by `delay` over the same ranges."
    measures = "Direct requests of our own: reads of the device, or writes to a file without name."
    example: ClassVar[dict[str, str]] = {"folder": "{mapped}", "latency": "50ms"}

    def target(self, params: DelayParams, old: Target) -> Target:
        wait = int(params.latency) // 10**6
        read, write = (wait if params.mode in ("all", way) else 0 for way in ("read", "write"))
        return Target(old.start, old.length, "delay", f"{old.params} {read} {old.params} {write}")

    def observe(self, place: Place, params: DelayParams, record: Record) -> Reading:
        asked = f"{params.latency} for each request ({params.mode})"
        seconds = int(params.latency) / 1e9
        tries = _TRIES if seconds <= _LONG else 1
        if params.mode == "write":
            with opened(place, params.folder) as fd:
                times = _writes(fd, tries)
        else:
            times = _reads(_device(record), tries)
        middle = sorted(times)[len(times) // 2]
        shown = units.Duration(round(middle * 1e9)).short
        values = {"asked": seconds, "measured": middle, "n": float(len(times))}
        measured = f"p50 {shown}, n={len(times)}"
        # The kernel's timer may be early by one of its ticks, and is not more exact.
        right = middle >= seconds - 0.01
        effect = Effect.EFFECTIVE if right else Effect.INEFFECTIVE
        reason = "" if right else "the requests do not wait: somebody has changed the table"
        return Reading(effect, asked, measured, self.measures, reason, values)


def _whole(value: units.Duration) -> units.Duration:
    if value % _SECOND:
        raise ValueError("expected whole seconds")
    return value


class ErrorParams(_MappedParams):
    """Parameters of `disk error`."""

    percent: Annotated[Percent, Between("1%", "100%"), Flag("p")] = text("100%")
    """For which share of the time the disk fails, in turns with working."""
    interval: Annotated[Duration, Between("2s", "1h"), AfterValidator(_whole), Flag("i")] = text(
        "10s"
    )
    """How long one turn of working and failing is; whole seconds, of which each gets at least
    one."""

    @model_validator(mode="after")
    def _turns(self) -> ErrorParams:
        if float(self.percent) < 100 and not 0 < self.failing < int(self.interval) // _SECOND:
            raise ValueError("percent: expected a share that leaves whole seconds for both turns")
        return self

    @property
    def failing(self) -> int:
        """Seconds of each turn in which it fails."""
        return round(float(self.percent) / 100 * (int(self.interval) // _SECOND))


class DiskError(_Mapped[ErrorParams]):
    """Let the requests of a file system to its disk fail (EIO), always or for some of the time."""

    id = "disk.error"
    does = "Replaces the table of the mapped device by `error` or `flakey` over the same ranges."
    cannot = _Mapped.cannot + (
        "A file system whose own records could not be written becomes read-only or shuts down; "
        "undo gives it its disk back, but it stays so until it is mounted anew, and what programs "
        "wrote meanwhile is lost."
    )
    measures = (
        "Direct reads of the device; failing writes by the table that the kernel has in force, "
        "since a write of our own would harm the file system."
    )
    example: ClassVar[dict[str, str]] = {"folder": "{mapped}", "mode": "read"}

    def target(self, params: ErrorParams, old: Target) -> Target:
        whole = float(params.percent) >= 100
        if whole and params.mode == "all":
            return Target(old.start, old.length, "error", "")
        seconds = int(params.interval) // _SECOND
        turns = "0 1" if whole else f"{seconds - params.failing} {params.failing}"
        only = "" if params.mode == "all" else f" 1 error_{params.mode}s"
        return Target(old.start, old.length, "flakey", f"{old.params} {turns}{only}")

    def observe(self, place: Place, params: ErrorParams, record: Record) -> Reading:
        asked = f"{params.percent} of the time {params.mode} requests fail"
        device = _device(record)
        if params.mode == "write":
            return self._by_table(device, asked, record)
        until = time.monotonic() + (
            0 if float(params.percent) >= 100 else int(params.interval) / 1e9
        )
        tried = failed = 0
        while not failed and (not tried or time.monotonic() < until):
            tried += 1
            try:
                _reads(device, 1)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                failed += 1
            if not failed:
                time.sleep(0.2)
        measured = f"{failed} of {tried} reads failed"
        reason = "" if failed else "reads do not fail: somebody has changed the table"
        effect = Effect.EFFECTIVE if failed else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, reason, {"n": float(tried)})

    def _by_table(self, device: Device, asked: str, record: Record) -> Reading:
        control = devmapper.open_control()
        try:
            now = Mapper(control).table(device)
        finally:
            os.close(control)
        right = all("error_writes" in each.params for each in now)
        measured = "; ".join(f"{each.type} {each.params}" for each in now)
        reason = "" if right else "somebody has changed the table"
        effect = Effect.EFFECTIVE if right else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, reason)


def _device(record: Record) -> Device:
    return Device.parse(record.steps[0].change.spec["device"])


def _reads(device: Device, tries: int) -> list[float]:
    """Seconds that direct reads of a device take, one after the other; raises OSError."""
    node = node_of(device)
    if node is None:
        raise Refused(f"there is no node of {device.name} in /dev to read from")
    fd = os.open(node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    buffer = mmap.mmap(-1, _BLOCK)
    try:
        return [_timed(lambda n=n: os.preadv(fd, [buffer], n * _BLOCK)) for n in range(tries)]
    finally:
        os.close(fd)


def _writes(folder: int, tries: int) -> list[float]:
    """The same for direct writes to a file without a name."""
    flags = os.O_RDWR | os.O_DIRECT | os.O_TMPFILE | os.O_CLOEXEC
    fd = os.open(".", flags, 0o600, dir_fd=folder)
    buffer = mmap.mmap(-1, _BLOCK)
    try:
        return [_timed(lambda: os.pwrite(fd, buffer, 0)) for _ in range(tries)]
    finally:
        os.close(fd)


def _timed(act: object) -> float:
    begin = time.monotonic()
    assert callable(act)
    act()
    return time.monotonic() - begin
