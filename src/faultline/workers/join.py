"""How a worker becomes part of what it loads: the control groups that its target is in, and the
root directory that its paths are walked from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from faultline.errors import TargetGone
from faultline.kernel.cgroup import Group, Hierarchy
from faultline.kernel.procfs import ProcessId


def group_from(data: dict[str, object]) -> Group:
    """A control group as an order names it: {version, folder}."""
    version, folder = data["version"], data["folder"]
    if not isinstance(version, int) or not isinstance(folder, str):
        raise TypeError("a control group is {version: number, folder: text}")
    # The folder was resolved when the order was written; within the order it is the root.
    return Group(Hierarchy(version, folder, "/", frozenset(), writable=True), "/")


def group_to(group: Group) -> dict[str, object]:
    """The inverse of `group_from`."""
    return {"version": group.version, "folder": str(group.folder)}


def root_of(spec: dict[str, Any]) -> int | None:
    """A descriptor of the root directory that the paths of an order are walked from.

    None for our own. Raises TargetGone if the process whose root is meant has ended.
    """
    known = spec.get("root")
    if known is None:
        return None
    try:
        return ProcessId(known["pid"], known["start"]).open_root()
    except ProcessLookupError as error:
        raise TargetGone(str(error)) from error


def join_groups(folders: Sequence[str]) -> None:
    """Move this process into the groups with these folders."""
    for folder in folders:
        fd = os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % os.getpid())
        finally:
            os.close(fd)
