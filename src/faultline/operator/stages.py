"""What is to be done next for a fault of an object. Pure.

The order in which things become durable is what makes it safe to die at any point: first what is to
be changed (`record`), then the changes, each in one request with the note that undoes it, then that
they are there; then they are taken back, and then it is told how that ended.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from faultline.api.host import Actual, Desired
from faultline.errors import FaultlineError, TargetGone
from faultline.injection.reading import Reading
from faultline.kubeapi.model import ApiError
from faultline.kubefaults.carrying import End, takes_back

Verb = Literal["plan", "make", "measure", "tend", "unmake"]
LONGEST = {"plan": 15.0, "make": 15.0, "measure": 60.0, "tend": 30.0, "unmake": 30.0}
"""The longest pause between two tries, in seconds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What was tried last did not work."""

    count: int
    until: float  # not before that it is tried again

    @staticmethod
    def after(last: Failure | None, verb: Verb, now: float) -> Failure:
        count = (last.count if last else 0) + 1
        return Failure(count, now + min(LONGEST[verb], 0.5 * 2 ** min(count - 1, 10)))


@dataclass(frozen=True, slots=True)
class Case:
    """One entry, with all that is known of it."""

    uid: str
    asked: Desired | None  # None when nobody wants it
    told: Actual | None  # where it stands
    durable: bool  # whether its record is kept by the API server
    busy: Collection[Verb] = ()
    failed: Mapping[Verb, Failure] = field(default_factory=dict[Verb, Failure])
    halted: str = ""
    now: float = 0.0
    tend: float = math.inf  # when it is to be tended next

    @property
    def unwanted(self) -> bool:
        return self.asked is None or self.asked.undo or bool(self.halted)

    @property
    def late(self) -> bool:
        """Whether it cannot begin any more."""
        asked = self.asked
        return asked is not None and self.now >= asked.asked_at + asked.duration.seconds

    @property
    def until(self) -> float:
        """When it is to end."""
        begun = self.told.injected_at if self.told is not None else None
        if self.asked is None or begun is None:
            return self.now
        return begun + self.asked.duration.seconds


@dataclass(frozen=True, slots=True)
class Step:
    """Where it stands now, and what is to be done."""

    told: Actual | None
    do: Verb | None = None
    wake: float = math.inf  # when it is to be looked at again


def step(case: Case) -> Step:
    """The next step of one entry."""
    told = case.told
    if told is None:
        return _new(case)
    match told.stage:
        case "injecting":
            return _beginning(case, told)
        case "active":
            return _there(case, told)
        case "recovering":
            return _going(case, told)
        case "ended" if told.end == "needs a person":
            return _going(case, told)
        case _:
            return Step(None if case.asked is None else told)


def _new(case: Case) -> Step:
    if case.asked is None:
        return Step(None)
    return _beginning(case, Actual(uid=case.uid, stage="injecting"))


def _beginning(case: Case, told: Actual) -> Step:
    if told.record:
        if case.unwanted or case.late:
            why = "" if case.unwanted else told.error or "it could not begin within its duration"
            return _going(case, _changed(told, stage="recovering", error=why))
        if not case.durable:
            return Step(told)  # what is written of it wakes us
        return _try(case, told, "make")
    return _to_plan(case, told)


def _to_plan(case: Case, told: Actual) -> Step:
    if "plan" in case.busy:
        return Step(told)
    if case.asked is None:
        return Step(None)
    if case.asked.undo:
        return Step(_ended(told, "nothing to undo", case.now, "it was not begun"))
    if case.halted:
        return Step(_refused(told, f"everything is halted: {case.halted}"))
    if case.late:
        why = f": {told.error}" if told.error else ""
        return Step(_refused(told, f"it could not begin within its duration{why}"))
    return _try(case, told, "plan")


def _there(case: Case, told: Actual) -> Step:
    if case.unwanted or case.now >= case.until:
        return _going(case, _changed(told, stage="recovering"))
    measured = told.effect not in (None, "unmeasured")
    if measured and not takes_back(told.record):
        return Step(_ended(told, "nothing to undo", case.now))
    if case.now >= case.tend and not {"tend", "make"} & {*case.busy}:
        found = _try(case, told, "tend", over=("measure",))
    else:
        found = Step(told) if measured else _try(case, told, "measure")
    return Step(found.told, found.do, min(found.wake, case.tend, case.until))


def _going(case: Case, told: Actual) -> Step:
    return _try(case, told, "unmake", over=("measure",))


def _try(case: Case, told: Actual, verb: Verb, over: tuple[Verb, ...] = ()) -> Step:
    """Do it, unless something is under way or has just failed."""
    if any(each not in over for each in case.busy):
        return Step(told)
    last = case.failed.get(verb)
    if last is not None and last.until > case.now:
        return Step(told, wake=last.until)
    return Step(told, verb)


# ---------------------------------------------------------------------- what came of it


def planned(told: Actual, record: str) -> Actual:
    return _changed(told, record=record, error="")


def made(told: Actual, kept: list[str], now: float) -> Actual:
    return _changed(told, stage="active", injected_at=now, error="; ".join(kept)[:1000])


def measured(told: Actual, reading: Reading, now: float) -> Actual:
    """As agents tell it: what others have above what was asked is not our doing."""
    effect = "ineffective" if reading.effect == "already above" else str(reading.effect)
    found = f", measured {reading.measured}" if reading.measured else ""
    why = f" ({reading.reason})" if reading.reason else ""
    values = {name: reading.values.get(name) for name in ("asked", "measured")}
    return _changed(
        told, effect=effect, text=f"asked {reading.asked}{found}{why}"[:1000], **values,
        effective_at=now if effect == "effective" else None,
    )  # fmt: skip


def unmade(told: Actual, end: End, now: float) -> Actual:
    """How it ended; what was never there as a whole was refused."""
    if told.injected_at is None and told.error and end.how in ("recovered", "nothing to undo"):
        return _refused(told, told.error)
    return _ended(told, str(end.how), told.ended_at or now, end.note)


def failed(told: Actual, verb: Verb, error: FaultlineError, now: float) -> Actual:
    """What is to be so after an error."""
    said = f"{error.message}; {error.hint}" if error.hint else error.message
    final = not (isinstance(error, ApiError) and (not error.refused or error.status == 429))
    if verb == "plan" and final:
        if isinstance(error, TargetGone):
            return _ended(told, "target gone", now, said)
        return _refused(told, said)
    if verb == "make" and final:
        return _changed(told, stage="recovering", error=said[:1000])
    if verb == "measure":
        return _changed(told, effect="unmeasured", text=said[:1000])
    return _changed(told, error=said[:1000])


def _refused(told: Actual, why: str) -> Actual:
    return _changed(told, stage="refused", error=why[:1000], record="")


def _ended(told: Actual, how: str, now: float, note: str = "") -> Actual:
    kept = told.record if how == "needs a person" else ""
    return _changed(told, stage="ended", end=how, ended_at=now, note=note[:1000], record=kept)


def _changed(told: Actual, **fields: object) -> Actual:
    return told.model_copy(update=fields)
