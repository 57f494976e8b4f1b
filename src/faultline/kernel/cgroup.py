"""Control groups: which version holds which controller, groups of processes, values with care.

A host has version 1 (one hierarchy for each controller), version 2 (one for all), or both at once
(hybrid), so a group is always asked for by controller. What is mounted decides, not a version
number. Groups that we make are named `faultline-<uid>-<step>`, which is how a scan finds them.
Source: the kernel's admin-guide/cgroup-v2 and admin-guide/cgroup-v1; cgroups(7).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from faultline.errors import Unsupported
from faultline.kernel.mounts import Mount, mounts
from faultline.kernel.procfs import PROC

MARK = "faultline-"
_V1_CONTROLLERS = frozenset(
    (
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "net_cls",
        "net_prio",
        "perf_event",
        "hugetlb",
        "rdma",
        "misc",
    )
)


class Mode(StrEnum):
    """How a host arranges its controllers."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"  # a version 2 tree is mounted beside version 1 controllers
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of groups."""

    version: int
    point: str
    root: str  # the group that is mounted there; '/' unless a container shows only a part
    controllers: frozenset[str]
    writable: bool

    def folder(self, path: str) -> str:
        """The folder of the group at `path` within the hierarchy; raises Unsupported if not
        shown.
        """
        if self.root != "/":
            if path != self.root and not path.startswith(self.root + "/"):
                raise Unsupported(
                    f"the control group {path} is not below {self.root}, which is mounted here"
                )
            path = path[len(self.root) :]
        if path.startswith("/.."):
            raise Unsupported(f"the control group {path} lies outside our cgroup namespace")
        return os.path.normpath(self.point + "/" + path)


@dataclass(frozen=True, slots=True)
class Group:
    """One control group in one hierarchy."""

    hierarchy: Hierarchy
    path: str

    @property
    def version(self) -> int:
        return self.hierarchy.version

    @property
    def folder(self) -> Path:
        return Path(self.hierarchy.folder(self.path))

    def exists(self) -> bool:
        return self.folder.is_dir()

    def parent(self) -> Group | None:
        """The group above; None at the mounted root."""
        if self.path in ("/", self.hierarchy.root):
            return None
        return Group(self.hierarchy, os.path.dirname(self.path))

    def child(self, name: str) -> Group:
        """The group of that name below; it need not exist."""
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"not a name of a group: {name!r}")
        return Group(self.hierarchy, self.path.rstrip("/") + "/" + name)

    def beside(self, name: str) -> Group:
        """Where a group for some of this one's processes can stand; it need not exist.

        Version 2 hands no controller below a group that holds processes itself, unless that is a
        root: there it is a sibling. Elsewhere it stands below, and this group's limits stay.
        """
        parent = self.parent()
        return self.child(name) if self.version == 1 or parent is None else parent.child(name)

    def has(self, file: str) -> bool:
        return (self.folder / file).exists()

    def read(self, file: str) -> str:
        """The text of a value file without its last newline."""
        return (self.folder / file).read_text().rstrip("\n")

    def write(self, file: str, value: str) -> None:
        """Write a value with one unbuffered call, so that the kernel's refusal is raised here."""
        fd = os.open(self.folder / file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror} (writing {value!r})", str(self.folder / file)
            ) from error
        finally:
            os.close(fd)

    def swap(self, file: str, expected: str, value: str) -> str | None:
        """Write `value` if the file still reads `expected`; else write nothing and return what it
        reads.

        None means written. Not atomic: the kernel has no such call, so a writer between the two
        steps wins or loses unseen. Blanks are compared loosely.
        """
        current = self.read(file)
        if current.split() != expected.split():
            return current
        self.write(file, value)
        return None

    def create(self) -> None:
        """Make the folder; FileExistsError when it is there."""
        self.folder.mkdir()

    def remove(self) -> None:
        """Remove an empty group; EBUSY while it holds processes or groups, silent when it is
        gone.
        """
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return

    def pids(self) -> list[int]:
        """Processes in the group itself; 0 stands for one that our pid namespace does not show."""
        return [int(line) for line in self.read("cgroup.procs").split()]

    def add(self, pid: int) -> None:
        """Move a process with all its threads here; ESRCH when it is gone."""
        self.write("cgroup.procs", str(pid))

    def evacuate(self, to: Group, rounds: int = 20) -> list[int]:
        """Move every process to another group; returns those that were moved.

        Repeated because processes may fork meanwhile. A limit that holds tasks in I/O is to be
        lifted first: moving a task does not free it.
        """
        moved: list[int] = []
        for _ in range(rounds):
            members = [pid for pid in self.pids() if pid]
            if not members:
                break
            for pid in members:
                try:
                    to.add(pid)
                    moved.append(pid)
                except OSError as error:
                    if error.errno not in (errno.ESRCH, errno.EINVAL):  # EINVAL: a zombie
                        raise
        return moved

    def enabled(self) -> frozenset[str]:
        """Controllers whose files this group has."""
        if self.version == 1:
            return self.hierarchy.controllers
        return frozenset(self.read("cgroup.controllers").split())

    def enable(self, controller: str) -> Group | None:
        """Let the parent of this group (version 2) hand it a controller.

        Returns the parent when its `cgroup.subtree_control` was changed, for the caller to take
        back; None when nothing was needed. EBUSY when the parent holds processes itself and is no
        root.
        """
        parent = self.parent()
        if self.version == 1 or parent is None or controller in self.enabled():
            return None
        if controller not in parent.enabled():
            raise Unsupported(
                f"the control group {parent.path} is not given the {controller} controller"
            )
        parent.write("cgroup.subtree_control", f"+{controller}")
        return parent

    def disable(self, controller: str) -> None:
        """Stop handing a controller to the groups below; EBUSY while one of them hands it on."""
        self.write("cgroup.subtree_control", f"-{controller}")

    def walk(self) -> Iterator[Group]:
        """This group and all below it that can be read."""
        yield self
        try:
            names = [
                entry.name
                for entry in os.scandir(self.folder)
                if entry.is_dir(follow_symlinks=False)
            ]
        except FileNotFoundError:
            return
        for name in names:
            yield from self.child(name).walk()


@dataclass(frozen=True, slots=True)
class Unified:
    """The tree of version 2, which tells whose socket is whose also where it has no controllers."""

    hierarchy: Hierarchy

    def path_of(self, pid: int) -> str:
        """The group of a process; raises ProcessLookupError."""
        try:
            lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
        except FileNotFoundError as error:
            raise ProcessLookupError(f"no process {pid}") from error
        found = (line[3:] for line in lines if line.startswith("0::"))
        return next(found, "/").removesuffix(" (deleted)")


@dataclass(frozen=True, slots=True)
class Layout:
    """All hierarchies that are mounted here."""

    hierarchies: tuple[Hierarchy, ...]

    @property
    def mode(self) -> Mode:
        versions = {h.version for h in self.hierarchies}
        if versions == {1, 2}:
            return Mode.HYBRID
        return Mode.V2 if 2 in versions else Mode.V1 if 1 in versions else Mode.NONE

    def controllers(self) -> frozenset[str]:
        """Every controller that some mounted hierarchy has."""
        return frozenset(name for h in self.hierarchies for name in h.controllers)

    def hierarchy(self, controller: str) -> Hierarchy:
        """The hierarchy that has the controller; raises Unsupported."""
        for hierarchy in self.hierarchies:
            if controller in hierarchy.controllers:
                return hierarchy
        raise Unsupported(
            f"no control group hierarchy here has the {controller} controller (mode {self.mode})",
            hint=f"mounted controllers: {', '.join(sorted(self.controllers())) or 'none'}",
        )

    def unified(self) -> Unified:
        """The tree of version 2, with or without controllers; raises Unsupported."""
        for hierarchy in self.hierarchies:
            if hierarchy.version == 2 and hierarchy.writable:
                return Unified(hierarchy)
        raise Unsupported(
            f"no tree of control groups of version 2 is mounted here (mode {self.mode})",
            hint="mount one beside version 1: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )

    def group_of(self, pid: int, controller: str) -> Group:
        """The group of a process in the hierarchy of a controller.

        Raises ProcessLookupError, and Unsupported when there is no such controller.
        """
        hierarchy = self.hierarchy(controller)
        try:
            text = (PROC / str(pid) / "cgroup").read_text()
        except FileNotFoundError as error:
            raise ProcessLookupError(f"no process {pid}") from error
        for line in text.splitlines():
            number, names, path = line.split(":", 2)
            # Version 2 has the line "0::PATH"; version 1 names its controllers.
            matches = number == "0" if hierarchy.version == 2 else controller in names.split(",")
            if matches:
                return Group(hierarchy, path.removesuffix(" (deleted)"))
        raise Unsupported(f"process {pid} is in no group of the {controller} controller")

    def root(self, controller: str) -> Group:
        """The topmost group that is mounted."""
        hierarchy = self.hierarchy(controller)
        return Group(hierarchy, hierarchy.root)

    def find_marked(self, text: str = MARK) -> list[Group]:
        """All groups whose own name begins with `text`, in every hierarchy."""
        return [
            group
            for hierarchy in self.hierarchies
            for group in Group(hierarchy, hierarchy.root).walk()
            if os.path.basename(group.path).startswith(text)
        ]


def group_name(uid: str, step: int) -> str:
    """The name of a group that we make for one step of a fault."""
    return f"{MARK}{uid}-{step}"


def read_group_name(name: str) -> tuple[str, int] | None:
    """The (uid, step) in such a name, or None."""
    found = re.fullmatch(rf"{re.escape(MARK)}(.+)-(\d+)", name)
    return (found[1], int(found[2])) if found else None


def _hierarchy(mount: Mount) -> Hierarchy | None:
    writable = "rw" in mount.options and "rw" in mount.super_options
    if mount.type == "cgroup2":
        try:
            names = (Path(mount.point) / "cgroup.controllers").read_text().split()
        except OSError:  # hidden under another mount
            return None
        return Hierarchy(2, mount.point, mount.root, frozenset(names), writable)
    if mount.type == "cgroup":
        names = mount.super_options & _V1_CONTROLLERS
        if names:
            return Hierarchy(1, mount.point, mount.root, frozenset(names), writable)
    return None


def layout() -> Layout:
    """Read the mount table of this process. Named hierarchies without a controller are left out."""
    found: dict[object, Hierarchy] = {}
    for mount in mounts():
        hierarchy = _hierarchy(mount)
        if hierarchy:
            # The same tree may be mounted more than once; the last is the one on top.
            found[hierarchy.version if hierarchy.version == 2 else hierarchy.controllers] = (
                hierarchy
            )
    return Layout(tuple(found.values()))
