"""The device mapper by its ioctls (dm-ioctl.h): which table a device has, and giving it another.

A device changes its table while it is in use: the new one is loaded beside the old, the device
stands still for a moment, and goes on with the new one. No program (dmsetup) is needed.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from faultline.errors import Unsupported
from faultline.kernel.blockio import Device

CONTROL: Final = "/dev/mapper/control"
_VERSION: Final = (4, 0, 0)
_HEAD: Final = struct.Struct("=3I2IIiIIIQ128s129s7x")
_SPEC: Final = struct.Struct("=QQiI16s")
_ROOM: Final = 1 << 16
_CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _CLEAR, _TABLE, _VERSIONS = 3, 4, 6, 7, 9, 10, 12, 13
_SUSPENDED: Final = 1 << 1
_ASK_TABLE: Final = 1 << 4
_INACTIVE: Final = 1 << 6
_BUFFER_FULL: Final = 1 << 8
_SKIP_LOCKFS: Final = 1 << 10  # the file system is not frozen for it: it may not be able to


@dataclass(frozen=True, slots=True)
class Target:
    """One range of a device, in sectors of 512 bytes, and what it leads to."""

    start: int
    length: int
    type: str
    params: str

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Self:
        return cls(*data)

    def to_json(self) -> list[Any]:
        return [self.start, self.length, self.type, self.params]

    def is_like(self, other: Target) -> bool:
        """Whether the other, as the kernel shows it, is this one; it may add what was left out."""
        mine, theirs = self.params.split(), other.params.split()
        same = (self.start, self.length, self.type) == (other.start, other.length, other.type)
        return same and theirs[: len(mine)] == mine


@dataclass(frozen=True, slots=True)
class Status:
    """A mapped device at one instant."""

    name: str
    uuid: str
    suspended: bool
    inactive: bool  # another table is loaded and waits


def open_control() -> int:
    """The descriptor that the ioctls go to; Unsupported where there is none."""
    try:
        return os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unsupported(
            "this kernel has no device mapper", hint="load its module: modprobe dm-mod"
        ) from error
    except PermissionError as error:
        raise Unsupported("the device mapper is root's alone", hint="run as root") from error


def is_mapped(device: Device) -> bool:
    """Whether a block device is one of the device mapper."""
    return (device.folder / "dm").exists()


class Mapper:
    """The ioctls on an open control descriptor, which stays the caller's."""

    def __init__(self, control: int) -> None:
        self._control = control

    def _ask(
        self, command: int, device: Device | str, flags: int = 0, body: bytes = b"", count: int = 0
    ) -> tuple[tuple[Any, ...], bytes]:
        """One ioctl on a device, by number or name: the head of the answer and what follows it."""
        size = _ROOM if command in (_TABLE, _VERSIONS) else _HEAD.size + len(body)
        number = os.makedev(device.major, device.minor) if isinstance(device, Device) else 0
        name = device.encode() if isinstance(device, str) else b""
        head = _HEAD.pack(*_VERSION, size, _HEAD.size, count, 0, flags, 0, 0, number, name, b"")
        buffer = bytearray(size)
        buffer[: len(head) + len(body)] = head + body
        fcntl.ioctl(self._control, (3 << 30) | (_HEAD.size << 16) | (0xFD << 8) | command, buffer)
        answer = _HEAD.unpack_from(buffer)
        if answer[7] & _BUFFER_FULL:
            raise Unsupported(f"the table of {device} is too long")
        return answer, bytes(buffer[answer[4] :])

    def status(self, device: Device) -> Status:
        """Raises OSError (ENXIO) if it is no mapped device."""
        head, _ = self._ask(_STATUS, device)
        name, uuid = (text.split(b"\0")[0].decode() for text in head[11:13])
        return Status(name, uuid, bool(head[7] & _SUSPENDED), bool(head[7] & _INACTIVE))

    def table(self, device: Device) -> list[Target]:
        """The table that is in force."""
        head, data = self._ask(_TABLE, device, _ASK_TABLE)
        found: list[Target] = []
        at = 0
        for _ in range(head[5]):
            start, length, _status, following, kind = _SPEC.unpack_from(data, at)
            params = data[at + _SPEC.size :].split(b"\0", 1)[0].decode()
            found.append(Target(start, length, kind.split(b"\0")[0].decode(), params.strip()))
            at = following
        return found

    def load(self, device: Device | str, table: Sequence[Target]) -> None:
        """Load a table beside the one in force; in the place of one that was loaded before."""
        body = b""
        for target in table:
            text = target.params.encode() + b"\0"
            text += bytes(-(_SPEC.size + len(text)) % 8)
            body += _SPEC.pack(
                target.start, target.length, 0, _SPEC.size + len(text), target.type.encode()
            )
            body += text
        self._ask(_LOAD, device, body=body, count=len(table))

    def clear(self, device: Device) -> None:
        """Forget a table that was loaded and is not in force."""
        self._ask(_CLEAR, device)

    def suspend(self, device: Device) -> None:
        """Let what is under way end and hold what comes; the file system is not asked."""
        self._ask(_SUSPEND, device, _SUSPENDED | _SKIP_LOCKFS)

    def resume(self, device: Device | str) -> None:
        """Go on, with the table that was loaded last."""
        self._ask(_SUSPEND, device)

    def exchange(self, device: Device, table: Sequence[Target]) -> None:
        """Give the device another table."""
        self.load(device, table)
        self.suspend(device)
        self.resume(device)

    def types(self) -> set[str]:
        """The types of target that the kernel has loaded."""
        _, data = self._ask(_VERSIONS, "")
        found: set[str] = set()
        at = 0
        while at + 16 < len(data):
            (following,) = struct.unpack_from("=I", data, at)
            found.add(data[at + 16 :].split(b"\0", 1)[0].decode())
            if not following:
                break
            at += following
        return found - {""}

    def create(self, name: str, table: Sequence[Target]) -> Device:
        """Make a device."""
        head, _ = self._ask(_CREATE, name)
        try:
            self.load(name, table)
            self.resume(name)
        except OSError:
            self.remove(name)
            raise
        return Device(os.major(head[10]), os.minor(head[10]))

    def remove(self, name: str) -> None:
        """Remove a device; EBUSY while it is in use."""
        self._ask(_REMOVE, name)
