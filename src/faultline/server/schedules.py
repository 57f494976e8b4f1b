"""Schedules: put them into the store, see what comes, pause, resume, trigger, remove them."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from faultline.api.calendar import Calendar
from faultline.api.experiment import Experiment
from faultline.api.kinds import KINDS, kind_of
from faultline.api.model import Model, Resource
from faultline.api.run import Run
from faultline.api.schedule import Schedule
from faultline.engine import schedule_edits, walltime
from faultline.engine.calendar import Timetable, ahead
from faultline.errors import InvalidDocument
from faultline.server.bodies import Json, Sent, caller, takes
from faultline.server.host import Host

_TAKEN = (Schedule, Calendar, Experiment)


class ScheduleList(Model):
    """Schedules by name."""

    schedules: list[Schedule]
    """The schedules."""


class Applied(Model):
    """A document that is in the store now."""

    kind: str
    """Its kind."""
    name: str
    """Its name."""
    what: str
    """`created`, `changed` or `unchanged`."""


class AppliedList(Model):
    """What became of the documents that were sent."""

    applied: list[Applied]
    """Each of them."""


class Coming(Model):
    """One time at which a schedule comes."""

    occurrence: str
    """What the calendar names, as ISO 8601 in the zone of the schedule."""
    at: str | None
    """When its run begins; absent if it is left out."""
    skipped: str = ""
    """Why it is left out."""
    moved: str = ""
    """Why it begins later."""


class ComingList(Model):
    """The next runs of a schedule, and what is left out between them."""

    occurrences: list[Coming]
    """In order."""
    paused: bool
    """Whether nothing of this is run until it is resumed."""


class Deleted(Model):
    """A schedule that is gone."""

    name: str
    """Its name."""
    active: list[str]
    """Its runs that go on, or that abort where that was asked for."""


def _read(body: Sent) -> list[Resource]:
    found: list[Resource] = []
    for data in body.documents():
        if KINDS[kind_of(data, "the body")] not in _TAKEN:
            kinds = ", ".join(kind.__name__ for kind in _TAKEN)
            raise InvalidDocument(f"the body holds a {data['kind']}; expected one of {kinds}")
        found.append(schedule_edits.resource_of(data, "the body"))
    return found


def routes(host: Host) -> APIRouter:
    """The routes of schedules."""
    made = APIRouter(tags=["schedules"])

    @made.get("/schedules", response_model=ScheduleList)
    def list_() -> Json:
        """All schedules, by name."""
        with host.runs() as kept:
            found = sorted(kept.store.list(Schedule), key=lambda each: each.metadata.name)
        return Json(ScheduleList(schedules=found))

    @made.post("/schedules", response_model=AppliedList, openapi_extra=takes(Schedule))
    def apply(body: Sent) -> Json:
        """Put schedules, and the calendars and experiments that they name, into the store: all or
        none. YAML may hold several documents.
        """
        resources = _read(body)
        with host.runs() as kept:
            done = schedule_edits.apply(kept.store, resources, host.check_fault)
        told = [
            Applied(kind=each.resource.kind, name=each.resource.metadata.name, what=each.what)
            for each in done
        ]
        return Json(AppliedList(applied=told))

    @made.get("/schedules/{name}", response_model=Schedule)
    def get(name: str) -> Json:
        """One schedule: where it stands, its runs, what was left out and why."""
        with host.runs() as kept:
            return Json(kept.store.get(Schedule, name))

    @made.get("/schedules/{name}/next", response_model=ComingList)
    def following(name: str, n: Annotated[int, Query(ge=1, le=1000)] = 10) -> Json:
        """The next runs of a schedule, and what is left out between them."""
        with host.runs() as kept:
            found = kept.store.get(Schedule, name)
            table = Timetable(found, schedule_edits.calendars(kept.store))
        coming = [
            Coming(
                occurrence=walltime.text(each.original, table.zone),
                at=None if each.skipped else walltime.text(each.at, table.zone),
                skipped=each.skipped,
                moved=each.moved,
            )
            for each in ahead(table, time.time(), n)
        ]
        return Json(ComingList(occurrences=coming, paused=found.spec.paused))

    _edits(made, host)
    return made


def _edits(made: APIRouter, host: Host) -> None:
    @made.delete("/schedules/{name}", response_model=Deleted)
    def delete(name: str, abort: bool = False) -> Json:
        """Remove a schedule. Its runs stay; `abort` aborts those that are active."""
        with host.runs() as kept:
            active = schedule_edits.delete(kept.store, name, abort=abort)
        return Json(Deleted(name=name, active=active))

    @made.post("/schedules/{name}/pause", response_model=Schedule)
    def pause(name: str) -> Json:
        """Start nothing more. What runs goes on."""
        with host.runs() as kept:
            return Json(schedule_edits.pause(kept.store, name))

    @made.post("/schedules/{name}/resume", response_model=Schedule)
    def resume(name: str) -> Json:
        """Go on, and count from now on."""
        with host.runs() as kept:
            return Json(schedule_edits.resume(kept.store, name, time.time()))

    @made.post("/schedules/{name}/trigger", status_code=201, response_model=Run)
    def trigger(name: str, request: Request, anyway: bool = False) -> Json:
        """Make a run of a schedule now; `anyway` also in a freeze, or beside an active run."""
        with host.runs() as kept:
            kept.check_halt()
            run = schedule_edits.trigger(
                kept.store, name, time.time(), creator=caller(request), anyway=anyway,
                check_fault=host.check_fault,
            )  # fmt: skip
        host.begin(run.metadata.name)
        return Json(run, 201, {"location": f"/v1/runs/{run.metadata.name}"})
