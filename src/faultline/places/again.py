"""The same target once more, in a later run: by identity where it still is, else by what stays.

A container is the same by its whole id, a control group by its path. A process has a new pid when
it was started anew; it is the same again if exactly one process has the very same command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faultline.errors import Refused, TargetGone
from faultline.kernel import clock, procfs
from faultline.kernel.procfs import ProcessId
from faultline.places import containers
from faultline.places.find import Target
from faultline.places.model import CGROUP, CONTAINER, HOST, POD

RETARGET = "let it find its targets anew: --retarget"


def again(target: Target, found: Mapping[str, Any]) -> Target:
    """What names the same as `found` (the fields of api.repeat.FoundTarget).

    Raises TargetGone where it has gone, Refused where several could be meant.
    """
    kind, words = found["kind"], found["words"]
    if kind == HOST:
        return Target()
    if kind == CONTAINER:
        return _container(found["container"], words)
    if kind == POD:
        if containers.find_in_pod(target.pod).id != found["container"]:
            raise _gone(words, f"{target.pod} has another container now")
        return target
    if kind == CGROUP:
        return Target(cgroup=found["group"])
    return _process(found, words)


def _gone(words: str, why: str) -> TargetGone:
    return TargetGone(f"{words}, on which the earlier run acted, has gone: {why}", hint=RETARGET)


def _container(whole: str, words: str) -> Target:
    if all(each.id != whole for each in containers.all_containers()):
        raise _gone(words, "no container has its id")
    return Target(container=whole)


def _process(found: Mapping[str, Any], words: str) -> Target:
    pid, start, command = found["pid"], found["start"], found["command"]
    if found["boot_id"] == clock.boot_id() and ProcessId(pid, start).alive():
        return Target(pid=pid)
    fits = [each for each in procfs.processes() if each.cmdline and joined(each) == command]
    pids = {each.pid for each in fits}
    fits = [each for each in fits if each.ppid not in pids]
    if not command or not fits:
        raise _gone(words, f"no process has the command line {command!r}")
    if len(fits) > 1:
        named = ", ".join(str(each.pid) for each in fits[:10])
        raise Refused(
            f"{words}, on which the earlier run acted, has ended, and {len(fits)} processes have "
            f"its command line: {named}",
            hint=RETARGET,
        )
    return Target(pid=fits[0].pid)


def joined(process: procfs.Process) -> str:
    """A command line as it is written down."""
    return " ".join(process.cmdline)
