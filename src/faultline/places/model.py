"""A place by identity, not by name.

Inode numbers of namespaces are reused at once, so a network namespace is known by its cookie
(SO_NETNS_COOKIE) and a process by its pid together with its start time.

The mount namespace of a place is never entered: paths are walked from a descriptor of its root
directory (openat2(2), RESOLVE_IN_ROOT), since after setns(2) every import and every library would
come from the target's disk. The network namespace is entered by the one thread that looks or acts
there, which is safe in a threaded program; the workers that it starts are in it from the beginning.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from faultline.errors import TargetGone
from faultline.kernel import cgroup, machine, netns, procfs, userns
from faultline.kernel.cgroup import Group
from faultline.kernel.clock import boot_id
from faultline.kernel.netlink import Netlink
from faultline.kernel.procfs import Process, ProcessId, in_group

HOST, PROCESS, CGROUP, CONTAINER, POD = "host", "process", "cgroup", "container", "pod"
KINDS = (HOST, PROCESS, CGROUP, CONTAINER, POD)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault acts; its identity decides `target gone`."""

    kind: str
    boot_id: str
    netns_cookie: int
    user: int
    user_namespace: int = 0  # its number; 0 in records of a version that did not write it
    pid: int = 0  # the process whose namespaces, control groups and root are meant; 0: the host's
    start: int = 0
    name: str = ""  # in words: 'container web (docker 3f2a91c0b7de)'
    rooted: bool = False  # its root directory is not ours: paths are walked from there
    own_network: bool = False  # its network namespace is not ours
    ends_with: bool = False  # the fault ends as soon as that process has ended
    group: str = ""  # the control group that holds exactly this place, as in /proc/PID/cgroup
    runtime: str = ""  # docker, containerd, cri-o, podman
    container: str = ""  # the whole id
    command: str = ""  # of a process alone: its command line, arguments joined by blanks

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Place:
        return cls(**data)

    @property
    def is_host(self) -> bool:
        return self.kind == HOST

    @property
    def words(self) -> str:
        return self.name or "this host"

    @property
    def process(self) -> ProcessId | None:
        """The process that the place is known by; None for the host."""
        return ProcessId(self.pid, self.start) if self.pid else None

    def check_alive(self) -> None:
        """Raise TargetGone if the process that the place is known by has ended."""
        if self.process is not None and not self.process.alive():
            raise TargetGone(f"{self.words} has ended (pid {self.pid})")

    @contextmanager
    def entered(self) -> Generator[None]:
        """Run the block with the calling thread inside the place's network namespace.

        Raises TargetGone if the process has ended.
        """
        if not self.own_network:
            yield
            return
        self.check_alive()
        try:
            fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise TargetGone(f"{self.words} has ended (pid {self.pid})") from None
        try:
            with netns.entered(fd):
                self.check_alive()  # so that the namespace was that of the very process
                yield
        finally:
            os.close(fd)

    @contextmanager
    def root(self) -> Generator[int | None]:
        """A descriptor of the place's root directory for the block; None for our own root."""
        if not self.rooted:
            yield None
            return
        try:
            fd = ProcessId(self.pid, self.start).open_root()
        except ProcessLookupError:
            raise TargetGone(f"{self.words} has ended (pid {self.pid})") from None
        try:
            yield fd
        finally:
            os.close(fd)

    def group_of(self, controller: str) -> Group:
        """The control group that counts for this place; of the host, the caller's.

        Raises Unsupported where there is no such controller.
        """
        layout = cgroup.layout()
        whose = os.getpid() if self.is_host else self.pid
        return layout.group_of(whose, controller)

    def own_group(self, controller: str) -> Group:
        """The control group that a limit of this place is set on: that which holds all of it, also
        where its processes have made groups below that; else the one of its process.

        Raises Unsupported where there is no such controller.
        """
        found = self.group_of(controller)
        if self.group and f"{found.path}/".startswith(f"{self.group}/"):
            return Group(found.hierarchy, self.group)
        return found

    def groups(self, *controllers: str) -> list[Group]:
        """The control groups that count for this place, of those controllers that there are; none
        for the host. What loads the place belongs into them.
        """
        if self.is_host:
            return []
        layout = cgroup.layout()
        found = [
            layout.group_of(self.pid, each) for each in controllers if each in layout.controllers()
        ]
        return list(dict.fromkeys(found))

    def processes(self) -> list[Process]:
        """Everybody in the place: all of the host, a process with its descendants, or whoever is in
        the control group or below it.
        """
        if self.is_host:
            return list(procfs.processes())
        if self.group:
            return [each for each in procfs.processes() if in_group(each.pid, self.group)]
        return procfs.descendants(self.pid)


def host() -> Place:
    """This host, in the network namespace of the caller; with the files of the machine also where
    we are in a container of it.
    """
    with Netlink.open() as netlink:
        found = Place(HOST, boot_id(), netlink.cookie(), os.geteuid(), userns.current())
    if around := machine.pid():
        start = ProcessId.of(around).start
        return replace(found, pid=around, start=start, rooted=True)
    return found


def of_process(kind: str, process: ProcessId, name: str, **more: Any) -> Place:
    """The place that a living process is in; raises TargetGone, PermissionError."""
    here = host()
    found = Place(
        kind,
        here.boot_id,
        here.netns_cookie,
        here.user,
        here.user_namespace,
        pid=process.pid,
        start=process.start,
        name=name,
        rooted=not _same(process.pid, "root"),
        own_network=not _same(process.pid, "ns/net"),
        ends_with=True,
        **more,
    )
    with found.entered(), Netlink.open() as netlink:
        cookie = netlink.cookie()
    found.check_alive()
    return replace(found, netns_cookie=cookie)


def _same(pid: int, what: str) -> bool:
    """Whether a process shares a namespace, or its root directory, with the calling thread."""
    try:
        other = Path(f"/proc/{pid}/{what}").stat()
    except FileNotFoundError as error:
        raise TargetGone(f"process {pid} has ended") from error
    ours = Path(f"/proc/thread-self/{what}").stat()
    same = (other.st_dev, other.st_ino) == (ours.st_dev, ours.st_ino)
    if what != "root" or not same:
        return same
    # Two mount namespaces may show the same directory as their root, with other things mounted.
    return _same(pid, "ns/mnt")
