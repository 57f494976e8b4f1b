"""The control groups of a place: which ones a load of it joins, which one takes a limit of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from faultline.changes.model import MARK, Change
from faultline.errors import InvalidParameter, Refused
from faultline.injection import guards
from faultline.kernel import cgroup_limits, cpustat, procfs
from faultline.kernel.cgroup import Group
from faultline.places.model import Place
from faultline.workers.join import group_to

_CHARGING = ("cpu", "cpuacct", "memory", "pids", "blkio", "io")


def joined(place: Place, *more: str) -> list[str]:
    """The folders of all groups that charge for what a process does; none on the host, where a
    worker is in the caller's already.
    """
    return [str(group.folder) for group in place.groups(*_CHARGING, *more)]


def usable_cores(place: Place) -> list[int]:
    """The cores that are online and that the target may use."""
    online = cpustat.online_cores()
    groups = place.groups("cpuset")
    if not groups:
        return online
    allowed = cgroup_limits.allowed_cores(groups[0])
    return [core for core in online if core in allowed] if allowed else online


def limited(place: Place, controller: str) -> Group:
    """The group of a place that can be given a limit, after a look at who is hit by it.

    Refused for a root group; Protected where that would hit what keeps the machine, or us, going.
    """
    group = place.own_group(controller)
    if group.parent() is None or group.path == "/":
        raise Refused(
            f"{place.words} is in the root control group, which takes no limit",
            hint="start it in a group of its own",
        )
    members = _members(group)
    guards.protect(each for each in members if not _is_worker(each))
    inside = {each.pid for each in place.processes()}
    strangers = [each for each in members if each.pid not in inside and not _is_worker(each)]
    if strangers:
        guards.current().note(f"{len(strangers)} more processes share {group.folder}")
    return group


def _members(group: Group) -> list[procfs.Process]:
    """Everybody in the group or below it that our pid namespace shows."""
    found: list[procfs.Process] = []
    for each in group.walk():
        with suppress(FileNotFoundError):  # the group went meanwhile
            for pid in filter(None, each.pids()):
                with suppress(ProcessLookupError):
                    found.append(procfs.process(pid))
    return found


def _is_worker(process: procfs.Process) -> bool:
    """Whether it is a load of another fault of ours; keepers are not, they must go on."""
    return any(argument.startswith(f"{MARK}:") for argument in process.cmdline)


def value(group: Group, file: str, text: str, initially: str = "", **more: Any) -> list[Change]:
    """The changes that write into a file of a group, and let it have that file where version 2 does
    not hand its controller down yet; it reads `initially` then.
    """
    folder = group.folder
    controller = file.partition(".")[0]
    spec = {"path": f"{folder}/{file}", "value": text, "what": f"{file} of {group.path}", **more}
    changes: list[Change] = []
    if not group.has(file):
        changes = handed_down(group, controller)
        if not changes:
            raise InvalidParameter("cgroup", str(folder), f"a control group with {file}")
        spec["initially"] = initially
    return [*changes, Change("kernel_value", spec)]


def handed_down(group: Group, controller: str) -> list[Change]:
    """What must be enabled above a group of version 2 so that it has a controller's files."""
    if group.version == 1:
        return []
    above: list[Group] = []
    parent = group.parent()
    while parent is not None:
        above.insert(0, parent)
        parent = parent.parent()
    return [
        Change("cgroup_controller", {"group": group_to(each), "controller": controller})
        for each in above
        if controller not in each.read("cgroup.subtree_control").split()
    ]
