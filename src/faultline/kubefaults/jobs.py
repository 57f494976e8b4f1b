"""Faults of jobs: not begun, held up, with fewer at a time, or given up.

https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused, Unsupported
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import Object
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import FieldsFault, View, field_of, fields_hold, level, words


class JobSuspendParams(Params):
    """Parameters of `job suspend`: none."""


class JobSuspend(FieldsFault[JobSuspendParams]):
    """Hold up a job, or let a CronJob begin none: work is late, and everything looks well."""

    id = "job.suspend"
    kinds = ("Job", "CronJob")
    does = "Writes spec.suspend; the pods of a Job that runs are ended, a CronJob begins none."
    cannot = "Suspend a Job before Kubernetes 1.21, or end what a CronJob has begun."
    measures = "That the field is set; of a Job also that none of its pods runs any more."
    restores = "The field. A Job starts pods anew; what a CronJob has missed it may catch up with."

    def fields(self, view: View, target: Object, params: JobSuspendParams) -> list[Field]:
        if target["kind"] == "Job":
            if view.client.version() < (1, 21):
                raise Unsupported("a Job can be suspended from Kubernetes 1.21 on")
            _unfinished(target)
        return [field_of(target, ("spec", "suspend"), True)]

    def observe(
        self, view: View, target: Object, params: JobSuspendParams, changes: Sequence[Change]
    ) -> Reading:
        held = fields_hold(view, changes)
        if target["kind"] != "Job" or held.effect is not Effect.EFFECTIVE:
            return held

        def active() -> int:
            return int(read(view.now(changes[0]) or {}, ("status", "active")) or 0)

        view.until(lambda: active() == 0)
        reason = "the controller of jobs has not acted"
        return level("no pod of it runs", 0, active(), "status.active of the job", reason)


class JobParallelismParams(Params):
    """Parameters of `job parallelism`."""

    most: Annotated[int, Between(0, 1000)] = 0
    """How many pods may run at a time; 0 holds it up."""


class JobParallelism(FieldsFault[JobParallelismParams]):
    """Change how many pods of a job run at a time: none, too few, or more than it can bear."""

    id = "job.parallelism"
    kinds = ("Job",)
    does = "Writes spec.parallelism of the job."
    cannot = "Reach a job that has ended."
    measures = "How many of its pods run, by the controller's count; fewer may be left to do."
    restores = "The number that it had."
    example: ClassVar = {"most": "0"}

    def fields(self, view: View, target: Object, params: JobParallelismParams) -> list[Field]:
        _unfinished(target)
        return [field_of(target, ("spec", "parallelism"), params.most)]

    def observe(
        self, view: View, target: Object, params: JobParallelismParams, changes: Sequence[Change]
    ) -> Reading:
        method = "status.active of the job"

        def active() -> int:
            return int(read(view.now(changes[0]) or {}, ("status", "active")) or 0)

        # By the note, since the object has the new number already.
        before = int(changes[0].fields[0].before or 1)
        fewer = params.most < before

        def acted() -> bool:
            return active() <= params.most if fewer else active() > before

        view.until(acted)
        asked, found = f"{params.most} pods at a time", active()
        values = {"asked": float(params.most), "measured": float(found)}
        if found <= params.most if fewer else found > before:
            return Reading(Effect.EFFECTIVE, asked, f"{found} run", method, values=values)
        if not fewer:
            reason = f"no more than the {before} of before run: nothing may be left for others"
            return Reading.unmeasured(asked, method, reason)
        reason = "the controller of jobs has not acted"
        return Reading(Effect.INEFFECTIVE, asked, f"{found} run", method, reason, values)


class JobDeadlineParams(Params):
    """Parameters of `job deadline`."""

    seconds: Annotated[int, Between(1, 86_400)] = 1
    """After how many seconds since its start the job is given up."""


class JobDeadline(FieldsFault[JobDeadlineParams]):
    """Have a job given up: its pods are ended and it counts as failed, for good."""

    id = "job.deadline"
    kinds = ("Job",)
    does = "Writes spec.activeDeadlineSeconds of the job."
    cannot = "Bring back a job that was given up: it needs `allow: [lasting]`."
    measures = "Whether the job has failed."
    restores = "The field; a job that has failed stays failed."
    example: ClassVar = {"seconds": "1"}

    def fields(self, view: View, target: Object, params: JobDeadlineParams) -> list[Field]:
        _unfinished(target)
        view.guard("lasting", f"{words(target)} is not begun again once it was given up")
        return [field_of(target, ("spec", "activeDeadlineSeconds"), params.seconds)]

    def observe(
        self, view: View, target: Object, params: JobDeadlineParams, changes: Sequence[Change]
    ) -> Reading:
        asked, method = f"given up after {params.seconds} s", "the condition Failed of the job"

        def failed() -> bool:
            return "Failed" in _conditions(view.now(changes[0]) or {})

        if view.until(failed, patience=20.0 + min(params.seconds, 60)):
            return Reading(Effect.EFFECTIVE, asked, "it has failed", method)
        reason = "its time is not over yet, or no controller of jobs has acted"
        return Reading(Effect.INEFFECTIVE, asked, "it has not failed", method, reason)


class CronScheduleParams(Params):
    """Parameters of `job schedule`."""

    schedule: Annotated[str, Bounds(min_length=1, max_length=200)] = "0 0 31 2 *"
    """When it is to begin, as in crontab(5); by default on a day that never comes."""


class CronSchedule(FieldsFault[CronScheduleParams]):
    """Let a CronJob begin at other times: never, or all the time."""

    id = "job.schedule"
    kinds = ("CronJob",)
    does = "Writes spec.schedule of the CronJob."
    cannot = "End what was begun meanwhile."
    measures = "Whether the schedule is still so."
    restores = "The schedule as it was."
    example: ClassVar = {"schedule": "* * * * *"}

    def fields(self, view: View, target: Object, params: CronScheduleParams) -> list[Field]:
        return [field_of(target, ("spec", "schedule"), params.schedule)]


def _conditions(job: Object) -> set[str]:
    told: Any = read(job, ("status", "conditions")) or []
    return {str(each["type"]) for each in told if each["status"] == "True"}


def _unfinished(job: Object) -> None:
    """Raise Refused for a job that has ended."""
    if over := _conditions(job) & {"Complete", "Failed"}:
        raise Refused(f"{words(job)} has ended: it is {', '.join(sorted(over)).lower()}")
