"""Too many processes: a storm of forks, zombies that nobody waits for."""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag
from faultline.changes.model import Change, Record, mark
from faultline.errors import Refused
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.injection.task_room import guard_host, room_in, use_of
from faultline.injection.worker_figures import figures_of
from faultline.kernel import memory, procfs
from faultline.places.model import Place

_EACH = 400 << 10  # bytes that one child takes
_READY = 20.0  # seconds that the worker may take, and for each child
_FORK = 0.02
_NEAR = 0.9  # the share of what is asked that must be there
_PATIENCE = 5.0  # seconds until it is
_GROUPS = ("pids", "cpu", "cpuacct", "memory")


class ForkParams(Params):
    """Parameters of `process fork`."""

    count: Annotated[int, Between(1, 30_000), Flag("c")]
    """How many processes of ours are alive at most."""
    interval: Annotated[Duration | None, Between("100us", "1h"), Flag("i")] = None
    """Time from one to the next; without it as fast as it goes."""
    lifetime: Annotated[Duration | None, Between("1ms", "1h")] = None
    """How long each lives before another one takes its place; without it to the end."""


class ZombieParams(Params):
    """Parameters of `process zombie`."""

    count: Annotated[int, Between(1, 30_000), Flag("c")]
    """How many zombies."""


def _breed(place: Place, count: int, each: int, order: dict[str, Any], what: str) -> Change:
    """The change that starts the worker, in the place's control groups; refused where too many."""
    room, where = room_in(place)
    if room <= 0:
        raise Refused(f"{where} has no room for one more process already")
    guards.current().note(f"{where} has room for {room} more tasks")
    guard_host(min(count, room))
    free = memory.host_memory().available
    if count * each > free // 2:
        raise Refused(f"{count} processes need some {count * each >> 20} MiB of {free >> 20} MiB")
    join = [str(group.folder) for group in place.groups(*_GROUPS)]
    order = {"count": count, "interval": 0, "lifetime": 0, "zombies": False, "join": join, **order}
    patience = _READY + count * _FORK
    return Change("worker", {"module": "breed", "spec": order, "what": what, "ready": patience})


class ProcessFork(Fault[ForkParams]):
    """A storm of forks: processes of ours in the place, up to a number, that come and go.

    On a container they are started in its control groups, so its limits hold them. That the host
    itself keeps room for others is guarded: `--allow host-tasks`.
    """

    id = "process.fork"
    ending = Ending.SELF
    does = (
        "A process of ours, in the control groups of the place, starts sleeping children and waits "
        "for those that end; all of them end with it."
    )
    cannot = (
        "Go beyond a limit: the kernel refuses the fork, which the reading says. The processes are "
        "in the pid namespace of the host: a container does not see them in its /proc."
    )
    measures = "Counts the processes of ours, and how many tasks the control group or host has."
    restores = "Ends the processes."
    example: ClassVar[dict[str, str]] = {"count": "20"}

    def plan(self, place: Place, params: ForkParams) -> list[Change]:
        pace = f", one every {params.interval}" if params.interval else ""
        span = f", each for {params.lifetime}" if params.lifetime else ""
        what = f"start up to {params.count} processes{pace}{span}"
        order = {"interval": int(params.interval or 0), "lifetime": int(params.lifetime or 0)}
        return [_breed(place, params.count, _EACH, order, what)]

    def observe(self, place: Place, params: ForkParams, record: Record) -> Reading:
        asked = f"up to {params.count} processes"
        wanted = _due(params)
        until = time.monotonic() + _PATIENCE
        while True:
            told = figures_of(record)
            ours = procfs.find_marked(mark(record.uid, 0))
            alive, refused = max(0, len(ours) - 1), int(told.get("refused", 0))
            if not ours or alive >= _NEAR * wanted or refused or time.monotonic() > until:
                break
            time.sleep(0.05)
        measured = f"{alive} alive, {told.get('begun', 0)} forks; {use_of(place)}"
        values = {"asked": float(params.count), "measured": float(alive)}
        if not ours:
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why, values)
        if refused:
            measured += f", {refused} forks refused"
        good = refused or alive >= _NEAR * wanted
        why = "" if good else "fewer than asked: the machine does not keep up"
        effect = Effect.EFFECTIVE if good else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, why, values)


def _due(params: ForkParams) -> float:
    """How many are alive at once when it has settled."""
    if params.interval is None or params.lifetime is None:
        return 1 if params.interval or params.lifetime else params.count
    return max(1, min(params.count, 0.5 * params.lifetime.seconds / params.interval.seconds))


class ProcessZombie(Fault[ZombieParams]):
    """Zombies: processes that have ended and that nobody waits for.

    Each keeps its number and its place in the limit of tasks.
    """

    id = "process.zombie"
    ending = Ending.SELF
    does = (
        "A process of ours, in the control groups of the place, starts children that end at once."
    )
    cannot = (
        "Make somebody else's program leave zombies. They are in the pid namespace of the host: a "
        "container does not see them in its /proc."
    )
    measures = "Counts the children of our process that are in state Z."
    restores = "Our process waits for them and ends; should it be killed, init takes them over."
    example: ClassVar[dict[str, str]] = {"count": "20"}

    def plan(self, place: Place, params: ZombieParams) -> list[Change]:
        what = f"leave {params.count} zombies"
        change = _breed(place, params.count, 16 << 10, {"zombies": True}, what)
        change.spec["linger"] = 10**9  # so that it waits for them itself at the deadline
        return [change]

    def observe(self, place: Place, params: ZombieParams, record: Record) -> Reading:
        asked = f"{params.count} zombies"
        parents = {each.pid for each in procfs.find_marked(mark(record.uid, 0))}
        found = [each for each in procfs.processes() if each.ppid in parents and each.state == "Z"]
        measured = f"{len(found)} zombies; {use_of(place)}"
        values = {"asked": float(params.count), "measured": float(len(found))}
        good = len(found) >= params.count
        why = "" if good else "our process has ended" if not parents else "the limit of tasks"
        effect = Effect.EFFECTIVE if good else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, why, values)
