"""Block devices: which one holds a path, what it has done, and limits on what a group may do to it.

Version 2 groups limit by `io.max`, version 1 by `blkio.throttle.*`. Both take whole disks only, so
a partition is led to its disk. Version 1 throttles what a task submits itself: direct and
synchronous I/O, not what the kernel writes back later (admin-guide/cgroup-v1/blkio-controller).
A task that waits in a throttled request cannot be killed, and moving it does not free it: lift
first.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from faultline.errors import InvalidParameter, Unsupported
from faultline.kernel.cgroup import Group, Layout
from faultline.kernel.mounts import mount_of_fd
from faultline.kernel.procfs import PROC

_SECTOR = 512  # the unit of /proc/diskstats, whatever the device's own is
_SYS = Path("/sys")


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A block device by its numbers."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}:{self.minor}"

    @property
    def folder(self) -> Path:
        """Its folder in /sys, which exists while the device does."""
        return _SYS / "dev" / "block" / str(self)

    def exists(self) -> bool:
        return self.folder.exists()

    @property
    def name(self) -> str:
        """The kernel's name, such as sda1."""
        return os.path.basename(os.path.realpath(self.folder))

    def disk(self) -> Device:
        """The whole disk that a partition is part of; itself if it is no partition."""
        real = Path(os.path.realpath(self.folder))
        return (
            self.parse((real.parent / "dev").read_text()) if (real / "partition").exists() else self
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 'major:minor'."""
        found = re.fullmatch(r"(\d{1,7}):(\d{1,7})", text.strip())
        if not found:
            raise InvalidParameter("device", text, "numbers as 'lsblk' shows them, such as 8:0")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def find(cls, text: str) -> Self:
        """A device that exists, by 'major:minor', '/dev/sda' or 'sda'; raises InvalidParameter."""
        if ":" in text:
            device = cls.parse(text)
            if not device.exists():
                raise InvalidParameter("device", text, "a block device that exists")
            return device
        path = text if text.startswith("/") else f"/dev/{text}"
        try:
            status = os.stat(path)
        except OSError as error:
            raise InvalidParameter("device", text, f"a block device ({error.strerror})") from error
        if not stat.S_ISBLK(status.st_mode):
            raise InvalidParameter("device", text, "a block device, not a file of another type")
        return cls(os.major(status.st_rdev), os.minor(status.st_rdev))

    @classmethod
    def of_path(cls, path: str | os.PathLike[str]) -> Self:
        """The device below the file system that holds `path`; Unsupported where there is none.

        Some file systems (btrfs) invent device numbers; their mount then names the real device.
        """
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return cls.of_fd(fd, os.fspath(path))
        finally:
            os.close(fd)

    @classmethod
    def of_fd(cls, fd: int, name: str, pid: int = 0) -> Self:
        """The same of an open file, perhaps in the mounts of process `pid`; `name` is for people.

        What is written to an overlay goes to the disk of its upper folder.
        """
        number = os.fstat(fd).st_dev
        device = cls(os.major(number), os.minor(number))
        if device.exists():
            return device
        mount = mount_of_fd(fd, pid)
        if mount and mount.source.startswith("/") and os.path.exists(mount.source):
            status = os.stat(mount.source)
            if stat.S_ISBLK(status.st_mode):
                return cls(os.major(status.st_rdev), os.minor(status.st_rdev))
        upper = [
            option.removeprefix("upperdir=")
            for option in (mount.super_options if mount else ())
            if option.startswith("upperdir=/")
        ]
        if upper and os.path.isdir(upper[0]):
            return cls.of_path(upper[0])
        kind = mount.type if mount else "unknown"
        raise Unsupported(f"{name} lies on a {kind} file system without a block device")


def devices() -> list[Device]:
    """All block devices, partitions included."""
    return sorted(Device.parse(name) for name in os.listdir(_SYS / "dev" / "block"))


@dataclass(frozen=True, slots=True)
class Transfers:
    """What was read and written: bytes and completed requests."""

    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0

    def __sub__(self, other: Transfers) -> Transfers:
        return Transfers(
            self.read_bytes - other.read_bytes,
            self.written_bytes - other.written_bytes,
            self.reads - other.reads,
            self.writes - other.writes,
        )


@dataclass(frozen=True, slots=True)
class DiskUse:
    """A device's counters: transfers since boot, requests in flight now, nanoseconds with any in
    flight.
    """

    transfers: Transfers
    in_flight: int
    busy: int


def parse_diskstats(text: str) -> dict[Device, DiskUse]:
    """Read /proc/diskstats (admin-guide/iostats)."""
    found: dict[Device, DiskUse] = {}
    for line in text.splitlines():
        words = line.split()
        values = [int(word) for word in words[3:14]]
        transfers = Transfers(values[2] * _SECTOR, values[6] * _SECTOR, values[0], values[4])
        device = Device(int(words[0]), int(words[1]))
        found[device] = DiskUse(transfers, values[8], values[9] * 1_000_000)
    return found


def disk_use(device: Device) -> DiskUse:
    """A device's counters now; FileNotFoundError when it is gone."""
    found = parse_diskstats((PROC / "diskstats").read_text()).get(device)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "no such block device", str(device))
    return found


@dataclass(frozen=True, slots=True)
class IoLimits:
    """Limits per second on one device; None: not limited."""

    read_bytes: int | None = None
    write_bytes: int | None = None
    reads: int | None = None
    writes: int | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) is not None for each in fields(self))


UNLIMITED = IoLimits()
# Our field, its key in io.max, its file in version 1.
_KEYS = (
    ("read_bytes", "rbps", "blkio.throttle.read_bps_device"),
    ("write_bytes", "wbps", "blkio.throttle.write_bps_device"),
    ("reads", "riops", "blkio.throttle.read_iops_device"),
    ("writes", "wiops", "blkio.throttle.write_iops_device"),
)


def io_group(layout: Layout, pid: int) -> Group:
    """The group of a process whose limits count for block I/O: controller io or blkio."""
    return layout.group_of(pid, "io" if "io" in layout.controllers() else "blkio")


def _device_line(text: str, device: Device) -> list[str]:
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == str(device):
            return words[1:]
    return []


def read_limits(group: Group, device: Device) -> IoLimits:
    """The limits that the group itself sets on a device; UNLIMITED where it has no such file
    (root).
    """
    found: dict[str, int] = {}
    if group.version == 2:
        text = group.read("io.max") if group.has("io.max") else ""
        given = dict(word.split("=", 1) for word in _device_line(text, device))
        found = {name: int(given[key]) for name, key, _ in _KEYS if given.get(key, "max") != "max"}
    else:
        for name, _, file in _KEYS:
            words = _device_line(group.read(file), device) if group.has(file) else []
            if words:
                found[name] = int(words[0])
    return IoLimits(**found)


def limit_lines(group: Group, device: Device, limits: IoLimits) -> list[tuple[str, str]]:
    """The files of a group and what is written to each to set all four limits of a whole disk."""
    if group.version == 2:
        values = {key: getattr(limits, name) for name, key, _ in _KEYS}
        words = [f"{key}={'max' if value is None else value}" for key, value in values.items()]
        return [("io.max", f"{device} {' '.join(words)}")]
    # 0 removes the rule.
    return [(file, f"{device} {getattr(limits, name) or 0}") for name, _, file in _KEYS]


def write_limits(group: Group, device: Device, limits: IoLimits) -> None:
    """Set all four limits of a whole disk; what is None is lifted, at once for requests that wait.

    Raises Unsupported when the group has no such files (a root group, or the controller is not
    handed down), and OSError (ENODEV) when the device is gone or a partition.
    """
    current = read_limits(group, device)
    for file, text in limit_lines(group, device, limits):
        names = [name for name, _, each in _KEYS if file in (each, "io.max")]
        if all(getattr(current, name) == getattr(limits, name) for name in names):
            continue
        if not group.has(file):
            raise Unsupported(f"the control group {group.path} has no {file}")
        group.write(file, text)


def lifting(group: Group) -> list[tuple[str, str]]:
    """What is to be written to which files of a group so that it limits no device any more."""
    files = ["io.max"] if group.version == 2 else [file for _, _, file in _KEYS]
    limited = [
        Device.parse(line.split()[0])
        for file in files
        if group.has(file)
        for line in group.read(file).splitlines()
        if line
    ]
    lines = [line for each in sorted(set(limited)) for line in limit_lines(group, each, UNLIMITED)]
    return [(file, text) for file, text in lines if group.has(file)]


def lift_limits(group: Group) -> None:
    """Lift every limit that the group sets on any device; a device that is gone has none."""
    for file, text in lifting(group):
        try:
            group.write(file, text)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                raise


def swap_limits(
    group: Group, device: Device, expected: IoLimits, limits: IoLimits
) -> IoLimits | None:
    """Set `limits` if the group still has `expected`; else write nothing and return what it has."""
    current = read_limits(group, device)
    if current != expected:
        return current
    write_limits(group, device, limits)
    return None


def _v1_counts(group: Group, file: str, device: Device) -> dict[str, int]:
    found: dict[str, int] = {}
    if not group.has(file):
        return found
    for line in group.read(file).splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == str(device):
            found[words[1]] = int(words[2])
    return found


def group_transfers(group: Group, device: Device) -> Transfers:
    """What the group and those below it have transferred on a device.

    A group of version 1 counts only devices that it, or one below, has a limit for.
    """
    if group.version == 2:
        text = group.read("io.stat") if group.has("io.stat") else ""
        given = dict(word.split("=", 1) for word in _device_line(text, device) if "=" in word)
        counts = [int(given.get(key, "0")) for key in ("rbytes", "wbytes", "rios", "wios")]
        return Transfers(*counts)
    size = _v1_counts(group, "blkio.throttle.io_service_bytes_recursive", device)
    number = _v1_counts(group, "blkio.throttle.io_serviced_recursive", device)
    return Transfers(
        size.get("Read", 0), size.get("Write", 0), number.get("Read", 0), number.get("Write", 0)
    )
