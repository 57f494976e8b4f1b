"""How many more tasks there can be where a fault acts: the host's limit, or a control group's."""

from __future__ import annotations

from faultline.injection import guards
from faultline.kernel import cgroup, cgroup_limits, tables
from faultline.places.model import Place

SPARE = 2000  # tasks of the host that are left to everybody else


def guard_host(more: int) -> None:
    """Refuse what leaves the host too little, unless it is allowed by name."""
    left = tables.task_limit() - tables.tasks() - more
    if left < SPARE:
        why = f"{more} more tasks would leave room for {max(0, left)} on this host"
        guards.current().refuse("host-tasks", why)


def limit_of(place: Place) -> tuple[int, cgroup.Group] | None:
    """The limit of tasks of the place's control groups, and the group that has it.

    On the host those of the caller, which the workers are started in.
    """
    if "pids" not in cgroup.layout().controllers():
        return None
    return cgroup_limits.pids_limit(place.group_of("pids"))


def room_in(place: Place) -> tuple[int, str]:
    """How many tasks more there can be, and where that limit is."""
    host = tables.task_limit() - tables.tasks()
    found = limit_of(place)
    if found is None:
        return host, "this host"
    left = found[0] - cgroup_limits.pids_current(found[1])
    return (left, f"the control group {found[1].path}") if left < host else (host, "this host")


def use_of(place: Place) -> str:
    """How full the limit is, in words."""
    found = limit_of(place)
    if found is None:
        return f"{tables.tasks()} of {tables.task_limit()} tasks of this host"
    return f"{cgroup_limits.pids_current(found[1])} of {found[0]} tasks of the control group"
