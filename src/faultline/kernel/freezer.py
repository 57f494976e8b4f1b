"""Standing still of all processes of a control group and of every group below it.

Version 1 has a controller for it, version 2 can do it in every group. Both tell apart what a group
was told by itself and what it suffers because a group above it is frozen.
Source: the kernel's admin-guide/cgroup-v1/freezer-subsystem and admin-guide/cgroup-v2
(`cgroup.freeze`, `cgroup.events`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from faultline.errors import Unsupported
from faultline.kernel import cgroup
from faultline.kernel.cgroup import Group

_V1 = ("freezer.state", "freezer.self_freezing", "freezer.state")
_V2 = ("cgroup.freeze", "cgroup.freeze", "cgroup.events")


def group_for(path: str) -> Group:
    """The group at `path` in the hierarchy that can freeze it; raises Unsupported."""
    layout = cgroup.layout()
    wanted = [each for each in layout.hierarchies if "freezer" in each.controllers]
    wanted += [each for each in layout.hierarchies if each.version == 2]
    for hierarchy in wanted:
        group = Group(hierarchy, path)
        if group.has(_files(group.version)[0]):
            return group
    raise Unsupported(
        f"no hierarchy of control groups here can freeze {path}",
        hint="needs the freezer of version 1 or Linux 5.2 with version 2",
    )


def _files(version: int) -> tuple[str, str, str]:
    return _V1 if version == 1 else _V2


@dataclass(frozen=True, slots=True)
class Freezer:
    """Open files of one group, usable when nothing can be opened any more."""

    version: int
    switch: int
    asked: int
    actual: int

    @classmethod
    def open(cls, folder: str, version: int) -> Self:
        """The group whose folder this is; raises FileNotFoundError."""
        held: list[int] = []
        modes = (os.O_RDWR, os.O_RDONLY, os.O_RDONLY)
        try:
            for name, mode in zip(_files(version), modes, strict=True):
                held.append(os.open(f"{folder}/{name}", mode | os.O_CLOEXEC))
        except OSError:
            for fd in held:
                os.close(fd)
            raise
        return cls(version, *held)

    @property
    def descriptors(self) -> list[int]:
        return [self.switch, self.asked, self.actual]

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)

    def told(self) -> bool:
        """Whether this very group was told to freeze; OSError (ENODEV) when it is gone."""
        return os.pread(self.asked, 64, 0).strip() == b"1"

    def still(self) -> bool:
        """Whether everything in it stands still, for whatever reason."""
        text = os.pread(self.actual, 256, 0)
        return text.strip() == b"FROZEN" if self.version == 1 else b"frozen 1" in text

    def freeze(self) -> None:
        os.pwrite(self.switch, b"FROZEN" if self.version == 1 else b"1", 0)

    def thaw(self) -> None:
        os.pwrite(self.switch, b"THAWED" if self.version == 1 else b"0", 0)
