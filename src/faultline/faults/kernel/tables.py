"""Tables of the kernel that are full: of open files, of tasks."""

from __future__ import annotations

import os
import pwd
import re
import resource
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag, Percent
from faultline.changes.model import Change, Record, mark
from faultline.errors import InvalidParameter, Refused, Unsupported
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.process_limits import limit_change, lowest_free, observed_limits
from faultline.injection.process_target import ProcessParams, targets, user_number
from faultline.injection.reading import Effect, Reading
from faultline.injection.task_room import guard_host, limit_of
from faultline.injection.worker_figures import figures_of
from faultline.kernel import cgroup_limits, memory, procfs, tables
from faultline.places.model import Place
from faultline.workers import hold_tasks
from faultline.workers.join import group_from, group_to

_FILE = 320  # bytes of kernel memory that one open file takes
_TASK = 48 << 10  # bytes that one task takes
_SPARE = 4096  # open files of the host that are left to everybody else
_BEYOND = 128
_NEAR = 0.01  # the share of a table by which it may be off: it is counted by processor
_READY = 120.0  # seconds that filling may take
_TRY = 0.6  # seconds in which somebody tries once more
_GROUPS = ("pids", "memory")


class FdfullParams(ProcessParams):
    """Parameters of `kernel fdfull`: of the whole host or, with any selection or place, of these
    processes.
    """

    percent: Annotated[Percent | None, Between("1%", "100%")] = None
    """Of the whole host: how full the table shall be, with what others have open; all of it by
    default."""
    count: Annotated[int | None, Between(1, 10**8), Flag("c")] = None
    """Of the whole host: how many files of ours are open instead."""
    leave: Annotated[int, Between(0, 10**6)] = 0
    """How many more can be opened."""

    @model_validator(mode="after")
    def _one(self) -> FdfullParams:
        if self.percent is not None and self.count is not None:
            raise ValueError("expected either percent or count")
        return self


class KernelFdfull(Fault[FdfullParams]):
    """No file can be opened any more: on the whole host, or by some processes.

    Of processes the limit of open files is set to what they have. Of the host the table is filled
    with open files of ours, which root does not notice and everybody else does; it is refused
    unless `--allow host-files`, where it leaves too little.
    """

    id = "kernel.fdfull"
    ending = Ending.KEEPER
    does = (
        "Processes: sets their soft limit (RLIMIT_NOFILE) by prlimit(2). The host: processes of "
        "ours open /dev/null until `fs.file-nr` is where it was asked; some 320 bytes of kernel "
        "memory each."
    )
    cannot = (
        "Keep root from opening files (CAP_SYS_ADMIN goes beyond `fs.file-max`). Take away what is "
        "open. Hold a process that raises its own soft limit."
    )
    measures = (
        "Processes: the limit as the kernel has it, against the next free number. The host: "
        "`fs.file-nr` and, when nothing is left, whether an ordinary user can open one more."
    )
    restores = "The soft limits from before; or ends the processes that hold the files."
    example: ClassVar[dict[str, str]] = {"pid": "{pid}"}

    def plan(self, place: Place, params: FdfullParams) -> list[Change]:
        if not _of_host(place, params):
            for name in ("percent", "count"):
                if getattr(params, name) is not None:
                    expected = "nothing where processes are meant: use leave"
                    raise InvalidParameter(name, getattr(params, name), expected)
            return [
                limit_change(each, "nofile", lowest_free(each.pid, params.leave))
                for each in targets(params, place)
            ]
        now, limit = tables.files(), tables.file_limit()
        level = int(limit * float(params.percent or 100) / 100) - params.leave
        more = params.count if params.count is not None else level - now
        if more <= 0:
            raise Refused(f"{now} of {limit} files are open already: nothing is left to fill")
        needed, free = more * _FILE, memory.host_memory().available
        if needed > free // 4:
            raise Refused(f"{more} files take {needed >> 20} MiB of {free >> 20} MiB free memory")
        if limit - now - more < _SPARE:
            left = max(0, limit - now - more)
            guards.current().refuse("host-files", f"everybody but root has {left} files left")
        guards.current().note(f"{now} of {limit} files are open; {more} are added")
        if level >= limit:  # root goes beyond, so that what others close makes no room
            level += _BEYOND
        order = {"count": more} if params.count is not None else {"level": level}
        what = f"hold {more} open files"
        spec = {"module": "hold_files", "spec": order, "what": what, "ready": _READY}
        return [Change("worker", spec)]

    def observe(self, place: Place, params: FdfullParams, record: Record) -> Reading:
        if record.steps[0].change.kind != "worker":
            return observed_limits(record, "nofile", self.measures)
        order = record.steps[0].change.spec["spec"]
        before = figures_of(record)
        time.sleep(_TRY)
        now, limit, told = tables.files(), tables.file_limit(), figures_of(record)
        tries = told.get("tries", 0) - before.get("tries", 0)
        refused = told.get("refused", 0) - before.get("refused", 0)
        values = {"measured": float(now), "limit": float(limit), "held": float(told.get("held", 0))}
        measured = f"{now} of {limit} files are open, {told.get('held', 0)} by us"
        if not procfs.find_marked(mark(record.uid, 0)):
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, "", measured, self.measures, why, values)
        if "count" in order:
            asked, good = f"{order['count']} files of ours", told.get("held") == order["count"]
            values["asked"] = float(order["count"])
        else:
            asked = f"{min(order['level'], limit)} of {limit} files open"
            values["asked"] = float(order["level"])
            good = now >= order["level"] - _NEAR * limit
            if order["level"] >= limit and tries:
                measured += f"; {refused} of {tries} tries of an ordinary user were refused"
                good = refused > 0
        effect = Effect.EFFECTIVE if good else Effect.INEFFECTIVE
        reason = "" if good else "the level does not stand"
        return Reading(effect, asked, measured, self.measures, reason, values)


def _of_host(place: Place, params: FdfullParams) -> bool:
    named = (params.pid, params.inner_pid, params.process, params.pattern, params.port, params.user)
    return place.is_host and not any(named)


class NprocParams(Params):
    """Parameters of `kernel nproc`."""

    user: str | None = None
    """Whose limit is filled, by name or number; never root, whom no such limit holds. Without it
    the limit of the control group of the place, or of the host."""
    count: Annotated[int | None, Between(1, hold_tasks.LIMIT), Flag("c")] = None
    """How many tasks of ours at most; as many as there is room for by default."""
    leave: Annotated[int, Between(0, 10**6)] = 0
    """How many more can be started."""


class KernelNproc(Fault[NprocParams]):
    """No process can be started any more: by a user, in a container, on the whole host.

    The limit is filled with sleeping threads of ours, which count as processes do. On the host it
    is refused unless `--allow host-tasks`: nobody can log in then, and nothing but the deadline
    ends it.
    """

    id = "kernel.nproc"
    ending = Ending.SELF
    does = (
        "A process of ours starts threads that sleep: in the control groups of the place, or as "
        "the user and held to the user's limit (RLIMIT_NPROC), until the kernel refuses one more."
    )
    cannot = (
        "Hold who is above a limit of users: root, and whoever has CAP_SYS_RESOURCE. Each process "
        "has that limit of its own; the lowest of the user's processes is filled. Take more than "
        f"{hold_tasks.LIMIT} tasks."
    )
    measures = (
        "How many tasks the control group, the user or the host has against the limit; with none "
        "to be left, whether one more of ours is refused, tried several times a second."
    )
    restores = "Ends the process with all its threads."
    example: ClassVar[dict[str, str]] = {"user": "65534", "count": "20"}

    def plan(self, place: Place, params: NprocParams) -> list[Change]:
        order = _whose(place, params)
        used, limit, where = _counted(order)
        room = limit - used - params.leave
        if room <= 0:
            raise Refused(f"{where} has {used} of {limit} tasks already: nothing is left to fill")
        more = min(room, params.count or room)
        if more > hold_tasks.LIMIT:
            raise Refused(
                f"{where} has room for {room} tasks; at most {hold_tasks.LIMIT} are filled",
                hint=f"fewer: --count, or --leave {room - hold_tasks.LIMIT} or more",
            )
        guard_host(more)
        needed, free = more * _TASK, memory.host_memory().available
        if needed > free // 2:
            raise Refused(f"{more} tasks take {needed >> 20} MiB of {free >> 20} MiB free memory")
        guards.current().note(f"{where} has {used} of {limit} tasks; {more} are added")
        join = [str(group.folder) for group in place.groups(*_GROUPS)]
        # Filled by looking, so that what ends meanwhile is filled as well.
        count = params.count or hold_tasks.LIMIT
        order |= {"count": count, "leave": params.leave, "join": join}
        what = f"hold {more} tasks of {where}"
        spec = {"module": "hold_tasks", "spec": order, "what": what, "ready": _READY}
        return [Change("worker", spec)]

    def observe(self, place: Place, params: NprocParams, record: Record) -> Reading:
        before = figures_of(record).get("refused", 0)
        time.sleep(_TRY)
        told = figures_of(record)
        held, refused = int(told.get("held", 0)), told.get("refused", 0) - before
        asked = f"{params.count} tasks of ours" if params.count else "a limit of tasks that is full"
        if not procfs.find_marked(mark(record.uid, 0)):
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, asked, f"{held}", self.measures, why)
        used, limit, where = _counted(record.steps[0].change.spec["spec"])
        ours = int(procfs.status(int(told.get("holder", 0))).get("Threads", "1")) - 1
        measured = f"{used} of {limit} tasks of {where}, {ours} of them ours"
        values = {"measured": float(used), "limit": float(limit), "held": float(ours)}
        if refused:
            measured += f"; one more was refused {refused} times in {_TRY} s"
        if params.count and ours >= params.count:
            good = True
        elif params.leave:
            good = limit - used <= params.leave + _NEAR * limit
        else:
            good = refused > 0
        reason = "" if good else "tasks have ended since, and others can begin"
        effect = Effect.EFFECTIVE if good else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, reason, values)


def _whose(place: Place, params: NprocParams) -> dict[str, Any]:
    """What the worker is told of the limit that is filled; nothing for the host's."""
    if params.user is not None:
        return {"user": _user(params.user)}
    found = limit_of(place)
    if found is not None and not place.is_host:
        return {"group": group_to(found[1])}
    if not place.is_host:
        raise Unsupported(
            f"no control group of {place.words} has a limit of tasks (pids.max)",
            hint="without a target the host's limit is filled, with --user that of a user",
        )
    if found is not None:
        limit, group = found
        if limit - cgroup_limits.pids_current(group) < tables.task_limit() - tables.tasks():
            raise Refused(
                f"the caller's control group {group.path} may have {limit} tasks only: the host "
                "cannot be filled from within it",
                hint=f"start it from outside, or fill that group: --cgroup {group.path}",
            )
    return {}


def _counted(order: dict[str, Any]) -> tuple[int, int, str]:
    """How many tasks count against the limit of an order now, the limit, and whose it is."""
    if user := order.get("user"):
        return tables.tasks_of(user["uid"]), user["limit"], f"user {user['uid']}"
    if order.get("group"):
        group = group_from(order["group"])
        limit = group.read("pids.max")
        most = tables.task_limit() if limit == "max" else int(limit)
        return cgroup_limits.pids_current(group), most, f"the control group {group.folder}"
    return tables.tasks(), tables.task_limit(), "this host"


def _user(name: str) -> dict[str, int]:
    """The user, and the lowest limit of the processes of that user, of ours where there is none."""
    if os.geteuid() != 0:
        raise Unsupported("root alone can start tasks as another user", hint="try as root")
    number = user_number(name)
    if number == 0:
        raise InvalidParameter("user", name, "a user whom limits hold: root is not")
    try:
        group = pwd.getpwuid(number).pw_gid
    except KeyError:
        group = number
    limits = [_nproc(each.pid) for each in procfs.processes() if each.uid == number]
    limits = limits or [resource.getrlimit(resource.RLIMIT_NPROC)[0]]
    known = [each for each in limits if each != resource.RLIM_INFINITY]
    if not known:
        raise Unsupported(f"the processes of user {name} have no limit of tasks (RLIMIT_NPROC)")
    return {"uid": number, "gid": group, "limit": min(known)}


def _nproc(pid: int) -> int:
    """The soft limit, from where everybody can read it."""
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return resource.RLIM_INFINITY
    found = re.search(r"^Max processes\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else resource.RLIM_INFINITY
