"""Single faults: plan, inject, look, measure, recover."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from faultline.api.document import invalid_document
from faultline.api.model import Model
from faultline.changes.kind import kinds
from faultline.changes.model import End, Record, State, Step
from faultline.errors import RecoveryIncomplete
from faultline.injection.plan import Order, Plan
from faultline.injection.recovery import Recovery
from faultline.kernel import clock
from faultline.places.find import Target
from faultline.server.bodies import Json, Sent, caller, takes
from faultline.server.host import Host
from faultline.server.problems import Problem
from faultline.server.urgent import urgently
from faultline.units import Duration


class TargetSpec(Model):
    """Where a fault acts; one of these, or none for the host."""

    container: str = ""
    """A container: its id, the beginning of it, its name, or KEY=VALUE of a label."""
    pod: str = ""
    """NAMESPACE/NAME or NAMESPACE/NAME/CONTAINER, of this node."""
    pid: Annotated[int, Field(ge=0, le=2**22)] = 0
    """A process and what it started."""
    process: str = ""
    """A regular expression found in the command line of exactly one process."""
    cgroup: str = ""
    """The path of a control group."""


class FaultOrder(Model):
    """A fault that is to be planned or injected."""

    fault: str
    """Which: its id, as `network.delay`; what there is: GET /v1/catalogue."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Its parameters; GET /v1/catalogue/{fault} has their schema."""
    duration: str = "10m"
    """How long it lasts at most: `100ms` to `7d`."""
    uid: str = ""
    """Its name; made up if it is not given. A second call with the same one is refused."""
    allow: list[str] = Field(default_factory=list[str])
    """Guards that are overridden, by name."""
    creator: str = ""
    """Who asks; else who calls."""
    target: TargetSpec = Field(default_factory=TargetSpec)
    """Where it acts."""
    observe: bool = True
    """Whether its effect is measured at once."""

    def order(self, by: str) -> Order:
        """As the injector takes it."""
        target = {name: value for name, value in self.target.model_dump().items() if value}
        return Order(
            fault=self.fault,
            params=self.params,
            duration=Duration.parse(self.duration, "duration"),
            uid=self.uid,
            allow=frozenset(self.allow),
            creator=self.creator or by,
            target=Target(**target),
        )


class StepView(Model):
    """One change of a fault."""

    kind: str
    """Which kind of change."""
    does: str
    """What is changed, for people."""
    undo: str = ""
    """How it would be undone by hand."""
    state: str = ""
    """`planned`, `applying`, `applied` or `undone`."""
    outcome: str = ""
    """How its undo ended: `undone`, `absent`, `kept`, `left`, `gone` or `failed`."""
    detail: str = ""
    """Why it ended so."""


class PlanView(Model):
    """What a fault would do. Nothing was touched."""

    uid: str
    """The name that the fault would have."""
    fault: str
    """Which fault."""
    params: dict[str, Any]
    """Its parameters, complete."""
    duration: str
    """How long it would last at most."""
    place: str
    """Where it would act, for people."""
    ending: str
    """What ends it: `kernel`, `self`, `keeper` or `instant`."""
    steps: list[StepView]
    """What would be changed, in this order; undone in the other."""
    notes: list[str] = Field(default_factory=list[str])
    """What to know beforehand."""
    engine: str = ""
    """How it would be carried out, where there are several ways."""
    exempt: list[str] | None = None
    """What is never hit; absent for faults that cut nobody off."""


class FaultView(Model):
    """One injected fault, as the journal has it."""

    uid: str
    """Its name."""
    fault: str
    """Which fault."""
    state: str
    """`prepared`, `applying`, `active`, `undoing` or `ended`."""
    end: str | None = None
    """`recovered`, `nothing to undo`, `target gone` or `needs a person`."""
    params: dict[str, Any]
    """Its parameters, complete."""
    place: dict[str, Any]
    """Where it acts."""
    duration: str
    """How long it lasts at most."""
    remaining: float | None = None
    """Seconds until it ends; absent when it has."""
    created: float
    """When it was ordered, seconds since 1970."""
    ended: float | None = None
    """When it ended, seconds since 1970."""
    creator: str = ""
    """Who asked for it."""
    note: str = ""
    """What to know of it."""
    reading: dict[str, Any] | None = None
    """Its effect as it was measured: effect, asked, measured, method, reason, values."""
    steps: list[StepView]
    """Its changes."""
    residue: list[str] | None = None
    """What of it is still found, where that was looked for; empty is the proof of recovery."""


class FaultList(Model):
    """Faults, newest first."""

    faults: list[FaultView]
    """The faults."""


def _step(step: Step) -> StepView:
    known, spec = kinds().get(step.change.kind), step.change.spec
    does, undo = known.describe(spec) if known else (step.change.kind, "")
    outcome = step.outcome
    return StepView(
        kind=step.change.kind,
        does=does,
        undo=undo,
        state=str(step.state),
        outcome=str(outcome.end) if outcome else "",
        detail=outcome.detail if outcome else "",
    )


def view(record: Record, residue: list[str] | None = None) -> FaultView:
    """A record as callers see it."""
    running = record.state is not State.ENDED and record.boot_id == clock.boot_id()
    return FaultView(
        uid=record.uid, fault=record.fault, state=str(record.state),
        end=str(record.end) if record.end else None, params=record.params, place=record.place,
        duration=str(Duration(record.duration)),
        remaining=max(0.0, (record.deadline - clock.now()) / 1e9) if running else None,
        created=record.created, ended=record.ended, creator=record.creator, note=record.note,
        reading=record.reading, steps=list(map(_step, record.steps)), residue=residue,
    )  # fmt: skip


def recovered(recovery: Recovery, record: Record) -> FaultView:
    """A fault after its undo, with what is still found of it."""
    return view(record, recovery.residue_of(record))


def _recovered(host: Host, uid: str) -> FaultView:
    with host.injector() as injector:
        return recovered(injector, injector.recover(uid))


def _planned(plan: Plan) -> PlanView:
    return PlanView(
        uid=plan.uid, fault=plan.fault, params=plan.params, duration=str(plan.duration),
        place=plan.place.words, ending=plan.ending,
        steps=[StepView(kind=each.kind, does=each.does, undo=each.undo) for each in plan.steps],
        notes=list(plan.notes), engine=plan.engine,
        exempt=None if plan.exempt is None else list(plan.exempt),
    )  # fmt: skip


def routes(host: Host) -> APIRouter:
    """The routes of single faults."""
    made = APIRouter(tags=["faults"])

    def check(order: FaultOrder) -> None:
        if wrong := host.check_fault(order.fault, order.params):
            raise invalid_document("the fault", wrong)

    @made.post("/plan", response_model=PlanView, openapi_extra=takes(FaultOrder))
    def plan(body: Sent, request: Request) -> Json:
        """What a fault would change, and how it would be undone. Touches nothing."""
        order = body.read(FaultOrder)
        check(order)
        with host.injector() as injector:
            return Json(_planned(injector.plan(order.order(caller(request)))))

    @made.post(
        "/faults", status_code=201, response_model=FaultView, openapi_extra=takes(FaultOrder)
    )
    def inject(body: Sent, request: Request) -> Json:
        """Inject a fault now and measure its effect. It goes on until its deadline, or until it is
        recovered, whatever becomes of the engine.
        """
        order = body.read(FaultOrder)
        check(order)
        with host.injector() as injector:
            injector.check_halt()
            injector.adopt()
            uid = injector.inject(order.order(caller(request))).uid
            if order.observe:
                injector.observe(uid)
            return Json(view(injector.get(uid)), 201, {"location": f"/v1/faults/{uid}"})

    @made.get("/faults", response_model=FaultList)
    def list_(
        state: Literal["active", "ended"] | None = None,
        fault: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10000)] = 100,
    ) -> Json:
        """Faults, newest first: all, those that have not ended, or those that have."""
        with host.injector() as injector:
            if state == "ended":
                found = injector.query(State.ENDED, fault, limit)
            else:
                found = [] if state else injector.query(None, fault, limit)
                seen = {each.uid for each in found}
                found += [
                    each
                    for each in injector.journal.open_records()
                    if each.uid not in seen and fault in (None, each.fault)
                ]
        found.sort(key=lambda each: each.created, reverse=True)
        return Json(FaultList(faults=list(map(view, found))))

    _one(made, host)
    return made


def _one(made: APIRouter, host: Host) -> None:
    @made.get("/faults/{uid}", response_model=FaultView)
    def get(uid: str) -> Json:
        """One fault."""
        with host.injector() as injector:
            return Json(view(injector.get(uid)))

    @made.delete("/faults/{uid}", response_model=FaultView)
    async def recover(uid: str) -> Json:
        """Undo a fault and look whether it is gone. Harmless when it has ended already. A fault
        that needs a person is answered by the problem `recovery-incomplete`, with the fault.
        """
        done = await urgently(partial(_recovered, host, uid))
        if done.end == str(End.PERSON) or done.residue:
            left = "; ".join(done.residue or []) or "see the outcomes of its steps"
            error = RecoveryIncomplete(f"{uid}: not all of it is undone: {left}")
            problem = Problem(error, fault=done.to_json())
            return Json(problem.data, problem.status, media_type=problem.media)
        return Json(done)

    @made.post("/faults/{uid}/observe", response_model=FaultView)
    def observe(uid: str) -> Json:
        """Measure a fault at its target; the answer is in `reading`."""
        with host.injector() as injector:
            injector.observe(uid)
            return Json(view(injector.get(uid)))
