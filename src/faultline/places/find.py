"""From what somebody named to a place."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.kernel import cgroup, procfs
from faultline.kernel.procfs import Process, ProcessId, in_group
from faultline.places.model import (
    CGROUP,
    CONTAINER,
    POD,
    PROCESS,
    Place,
    host,
    of_process,
)

if TYPE_CHECKING:
    from faultline.places.container import Container


@dataclass(frozen=True, slots=True)
class Target:
    """Where a fault shall act; nothing named means the host. At most one may be named."""

    container: str = ""  # id, unambiguous prefix of it, name, or KEY=VALUE of a label
    pod: str = ""  # NAMESPACE/NAME or NAMESPACE/NAME/CONTAINER, of this node
    pid: int = 0
    process: str = ""  # a regular expression that is found in exactly one process's command line
    cgroup: str = ""  # a path as in /proc/PID/cgroup, or below /sys/fs/cgroup
    start: int = 0  # of that pid, in clock ticks since boot; 0: whoever has it now

    def __post_init__(self) -> None:
        kinds = (each.name for each in fields(self) if each.name != "start")
        named = [name for name in kinds if getattr(self, name)]
        if len(named) > 1:
            raise InvalidParameter(named[1], getattr(self, named[1]), f"nothing beside {named[0]}")


def find(target: Target) -> Place:
    """The place that is meant now.

    Raises TargetGone if there is none, Refused if several fit, InvalidParameter.
    """
    if target.container or target.pod:
        from faultline.places import containers  # most faults meet none

        if target.container:
            return _of_container(CONTAINER, containers.find(target.container))
        return _of_container(POD, containers.find_in_pod(target.pod))
    if target.cgroup:
        return _of_group(target.cgroup)
    if target.pid:
        return _of_pid(target.pid, target.start)
    if target.process:
        return _of_pattern(target.process)
    return host()


def _of_container(kind: str, found: Container) -> Place:
    return of_process(
        kind,
        found.process,
        found.words,
        group=found.group,
        runtime=found.runtime,
        container=found.id,
    )


def _of_pid(pid: int, start: int = 0) -> Place:
    try:
        process = procfs.process(pid)
    except ProcessLookupError as error:
        raise TargetGone(f"there is no process {pid}") from error
    if start not in (0, process.id.start):
        raise TargetGone(f"the process {pid} is another one than before ({process.name})")
    return _of_process(process)


def _of_process(process: Process) -> Place:
    words = f"process {process.pid} ({process.name})"
    return of_process(PROCESS, process.id, words, command=" ".join(process.cmdline))


def _of_pattern(pattern: str) -> Place:
    found = procfs.find_by_cmdline(pattern)
    # Of a process and its descendants that quote the same words, the one that started the others.
    pids = {each.pid for each in found}
    found = [each for each in found if each.ppid not in pids]
    if not found:
        raise TargetGone(f"no process has {pattern!r} in its command line")
    if len(found) > 1:
        names = ", ".join(f"{each.name} ({each.pid})" for each in found[:10])
        raise Refused(
            f"{len(found)} processes have {pattern!r} in their command line: {names}",
            hint="name one of them: --pid PID",
        )
    return _of_process(found[0])


def _of_group(path: str) -> Place:
    group = _group_path(path)
    inside = [pid for pid in procfs.pids() if in_group(pid, group)]
    if not inside:
        raise TargetGone(f"no process is in the control group {group}")
    process = ProcessId.of(min(inside))
    found = of_process(CGROUP, process, f"control group {group}", group=group)
    return replace(found, ends_with=False)  # others in it may outlive this one


def _group_path(path: str) -> str:
    """The path as /proc/PID/cgroup shows it; raises InvalidParameter for the root."""
    for hierarchy in cgroup.layout().hierarchies:
        mount = hierarchy.point
        if path.startswith(f"{mount}/"):
            path = f"{hierarchy.root}/{path.removeprefix(mount)}".replace("//", "/")
            break
    path = "/" + path.strip("/")
    if path == "/":
        raise InvalidParameter("cgroup", path, "a control group below the root")
    return path
