"""Tasks that wait, and tasks that the processor is switched between."""

from __future__ import annotations

from typing import Annotated, ClassVar

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag
from faultline.changes.model import Change, Record, mark
from faultline.injection.group_target import joined
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import cpustat, procfs
from faultline.places.model import Place
from faultline.workers.load import LIMIT

_PER_CORE = 4  # waiting tasks for each core when no number is given


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
