"""Tasks that wait, and tasks that the processor is switched between."""

from __future__ import annotations

import time
from typing import Annotated, ClassVar

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag
from faultline.changes.model import Change, Record, mark
from faultline.injection.group_target import joined, usable_cores
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import cpustat, procfs
from faultline.places.model import Place
from faultline.workers.load import LIMIT
from faultline.workers.switch import LIMIT as MOST_PAIRS
from faultline.workers.switch import switches

_PER_CORE = 4  # waiting tasks for each core when no number is given
_WATCH = 1.0  # seconds that switches are counted
_ALIVE = 10.0  # switches a second of each process; thousands are usual


class LoadParams(Params):
    """Parameters of `cpu load`."""

    count: Annotated[int | None, Between(1, LIMIT), Flag("c")] = None
    """How many tasks wait; without it four for each core."""


class CpuLoad(Fault[LoadParams]):
    """Raise the load average without using the processor: tasks that wait and cannot be woken.

    The load average follows over minutes; the tasks are there at once. It is one number for the
    whole host; on a place the tasks count as the place's own, against its limit of processes.
    """

    id = "cpu.load"
    ending = Ending.SELF
    does = (
        "A chain of processes of ours, each made by the one before with vfork and waiting for it: "
        "all but the last stand in uninterruptible sleep, which the load average counts."
    )
    cannot = (
        "Move the load average at once: it is a mean over 1, 5 and 15 minutes. Slow down others: "
        "the tasks use no processor time. Limits on the number of processes apply."
    )
    measures = "The states of the threads of our processes; the load average is told beside it."
    restores = "Ends the processes; the load average falls over the next minutes."
    example: ClassVar[dict[str, str]] = {"count": "8"}

    def plan(self, place: Place, params: LoadParams) -> list[Change]:
        count = params.count or min(LIMIT, _PER_CORE * len(cpustat.online_cores()))
        what = f"{count} tasks of ours wait in uninterruptible sleep"
        order = {"count": count, "join": joined(place)}
        return [Change("worker", {"module": "load", "spec": order, "what": what})]

    def observe(self, place: Place, params: LoadParams, record: Record) -> Reading:
        wanted = record.steps[0].change.spec["spec"]["count"]
        pids = [each.pid for each in procfs.find_marked(mark(record.uid, 0))]
        waiting = procfs.thread_states(pids)["D"]
        average = cpustat.load_average()
        asked = f"{wanted} tasks that wait"
        measured = f"{waiting} wait, load average {average.one:.2f} and on its way"
        values = {"asked": float(wanted), "measured": float(waiting), "load": average.one}
        effect = Effect.EFFECTIVE if waiting >= wanted else Effect.INEFFECTIVE
        reason = "" if waiting >= wanted else "somebody ended the others"
        return Reading(effect, asked, measured, self.measures, reason, values)


class SwitchParams(Params):
    """Parameters of `cpu switch`."""

    count: Annotated[int | None, Between(1, MOST_PAIRS), Flag("c")] = None
    """How many pairs of tasks; without it one for each core."""


class CpuSwitch(Fault[SwitchParams]):
    """Make the kernel switch between tasks as often as it can.

    On a place this is done in its control groups and counts against its quota.
    """

    id = "cpu.switch"
    ending = Ending.SELF
    does = (
        "Pairs of processes of ours, each pair pinned to one core, hand a byte to and fro by pipes "
        "without pause: each step is a switch from one to the other."
    )
    cannot = (
        "Switch at a given rate: it is as high as the core allows. It uses processor time too, "
        "nearly all of it in the kernel."
    )
    measures = (
        "The kernel's count of context switches of our processes (/proc/PID/status) over 1 s, "
        "beside that of the whole host (/proc/stat)."
    )
    restores = "Ends the processes."
    example: ClassVar[dict[str, str]] = {"count": "1"}

    def plan(self, place: Place, params: SwitchParams) -> list[Change]:
        cores = usable_cores(place)
        count = params.count or len(cores)
        what = f"{count} pairs of tasks of ours hand a byte to and fro without pause"
        order = {"count": count, "cores": cores, "join": joined(place, "cpuset")}
        return [Change("worker", {"module": "switch", "spec": order, "what": what})]

    def observe(self, place: Place, params: SwitchParams, record: Record) -> Reading:
        wanted: int = record.steps[0].change.spec["spec"]["count"]
        pids = [each.pid for each in procfs.find_marked(mark(record.uid, 0))]
        before, all_before, begin = switches(pids), cpustat.context_switches(), time.monotonic()
        time.sleep(_WATCH)
        after, all_after = switches(pids), cpustat.context_switches()
        passed = time.monotonic() - begin
        rates = [(after[pid] - before[pid]) / passed for pid in after if pid in before]
        busy = [rate for rate in rates if rate >= _ALIVE]
        asked = f"{wanted} pairs switch without pause"
        measured = (
            f"{sum(rates):.0f} switches/s by {len(busy) // 2} pairs, "
            f"{(all_after - all_before) / passed:.0f}/s on the whole host"
        )
        values = {"measured": sum(rates), "pairs": len(busy) // 2.0}
        right = len(busy) >= 2 * wanted
        reason = "" if right else "some pairs do not run" if rates else "our processes have ended"
        effect = Effect.EFFECTIVE if right else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, reason, values)
