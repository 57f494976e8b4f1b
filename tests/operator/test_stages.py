"""The course of a fault of an object: whoever dies, whatever fails, it comes to its end and nothing
stays; and nothing is made before it is recorded.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.api.host import Actual, Desired
from faultline.errors import FaultlineError, Refused, TargetGone
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import ApiError
from faultline.kubefaults.carrying import End
from faultline.kubefaults.change import Outcome
from faultline.operator import stages
from faultline.operator.stages import Case, Failure, Verb, step
from faultline.testing.sampling import examples

POD = {"kind": "Pod", "plural": "pods", "version": "v1", "namespaced": True}


def record_of(do: str) -> str:
    return json.dumps([{"do": do, "kind": POD, "namespace": "a", "name": "b"}])


RECORD = record_of("patch")
LENGTH = 60.0


def wanted(**fields: object) -> Desired:
    return Desired.model_validate(
        {"uid": "u", "owner": "Fault/shop/x", "ownerUid": "1", "fault": "workload.pause",
         "askedAt": 0.0, "duration": f"{LENGTH:g}s", **fields}
    )  # fmt: skip


@dataclass
class World:
    """One entry: what is durable, what is really there, and what the one who leads remembers."""

    rng: random.Random
    asked: Desired | None = field(default_factory=wanted)
    stored: Actual | None = None
    there: bool = False
    now: float = 0.0
    halted: str = ""
    trouble: float = 0.3  # the share of calls that fail, of deaths, of conflicts
    draft: Actual | None = None
    known: bool = False
    failed: dict[Verb, Failure] = field(default_factory=dict[Verb, Failure])
    makes: int = 0
    refusing: bool = False

    def bad(self) -> bool:
        return self.rng.random() < self.trouble

    def die(self) -> None:
        self.known, self.draft, self.failed = False, None, {}

    def round(self) -> None:
        if not self.known:
            self.known, self.draft = True, self.stored
        durable = bool(self.stored and self.draft and self.stored.record == self.draft.record)
        case = Case("u", self.asked, self.draft, durable, (), self.failed, self.halted, self.now)
        found = step(case)
        self.draft = found.told
        if found.do is not None:
            self.do(found.do, durable=durable)
        if self.bad():
            self.die()
        elif not self.bad():
            self.stored = self.draft

    def do(self, verb: Verb, *, durable: bool) -> None:
        assert self.draft is not None
        told = self.draft
        if self.bad():  # nothing was done, or it was done and nobody heard of it
            if self.bad():
                self.act(verb, durable=durable)
            error = ApiError(0, "", "no answer")
            self.failed[verb] = Failure.after(self.failed.get(verb), verb, self.now)
            self.draft = stages.failed(told, verb, error, self.now)
            return
        error = self.act(verb, durable=durable)
        self.failed.pop(verb, None)
        if error is not None:
            self.draft = stages.failed(told, verb, error, self.now)
            return
        match verb:
            case "plan":
                self.draft = stages.planned(told, RECORD)
            case "make":
                self.draft = stages.made(told, [], self.now)
            case "measure":
                reading = Reading(Effect.EFFECTIVE, "a", "b", "c")
                self.draft = stages.measured(told, reading, self.now)
            case "unmake":
                self.draft = stages.unmade(told, End(Outcome.RECOVERED), self.now)
            case "tend":
                pass

    def act(self, verb: Verb, *, durable: bool) -> FaultlineError | None:
        if verb == "make":
            assert durable, "nothing is made before it is recorded"
            assert self.stored is not None
            assert self.stored.record == RECORD
            if self.refusing:
                return Refused("a webhook says no")
            self.makes += not self.there
            self.there = True
        elif verb == "unmake":
            self.there = False
        return None


@settings(max_examples=examples(150, 1000), deadline=None)
@given(seed=st.integers(0, 2**32), refusing=st.booleans())
def test_it_comes_to_its_end_and_nothing_stays(seed: int, refusing: bool) -> None:
    rng = random.Random(seed)
    here = World(rng, refusing=refusing)
    stop = rng.choice(("undo", "halt", "gone", "deadline"))
    when = rng.uniform(0, 1.5 * LENGTH)
    while here.now < 2 * LENGTH:
        here.round()
        here.now += rng.uniform(0.1, 3.0)
        if here.now >= when and here.asked is not None:
            match stop:
                case "undo":
                    here.asked = wanted(undo=True)
                case "halt":
                    here.halted = "stop"
                case "gone":
                    here.asked = None
                case _:
                    pass
    here.trouble = 0.0
    for _ in range(20):
        here.round()
        here.now += 20
    assert not here.there
    if here.asked is None:
        assert here.stored is None
    else:
        assert here.stored is not None
        assert here.stored.stage in ("ended", "refused")
        assert not refusing or here.stored.end in (None, "recovered", "nothing to undo")


def _case(**fields: object) -> Case:
    return replace(Case("u", wanted(), None, durable=False), **fields)  # type: ignore[arg-type]


def test_what_was_never_there_is_refused_and_says_why() -> None:
    told = Actual(uid="u", stage="injecting", record=RECORD)
    told = stages.failed(told, "make", Refused("no", hint="because"), 1.0)
    assert (told.stage, step(_case(told=told)).do) == ("recovering", "unmake")
    ended = stages.unmade(told, End(Outcome.RECOVERED), 2.0)
    assert (ended.stage, ended.error, ended.record) == ("refused", "no; because", "")


def test_a_target_that_has_gone_is_said_to_have_gone() -> None:
    told = Actual(uid="u", stage="injecting")
    ended = stages.failed(told, "plan", TargetGone("it is no more"), 1.0)
    assert (ended.stage, ended.end) == ("ended", "target gone")


def test_what_needs_a_person_is_tried_again_and_may_still_end_well() -> None:
    told = Actual(uid="u", stage="active", record=RECORD, injected_at=1.0)
    told = stages.unmade(told, End(Outcome.PERSON, "look"), 2.0)
    assert (told.end, told.note, told.record) == ("needs a person", "look", RECORD)
    again = step(_case(told=told, asked=None, now=3.0))
    assert (again.do, again.told) == ("unmake", told), "it is not forgotten, either"
    assert stages.unmade(told, End(Outcome.RECOVERED), 4.0).end == "recovered"


def test_an_undo_waits_for_what_is_being_written_but_for_no_measurement() -> None:
    told = Actual(uid="u", stage="active", record=RECORD, injected_at=1.0)
    late = LENGTH + 2
    assert step(_case(told=told, now=late, busy={"make"})).do is None
    assert step(_case(told=told, now=late, busy={"tend"})).do is None
    assert step(_case(told=told, now=late, busy={"measure"})).do == "unmake"


@pytest.mark.parametrize("do", ["delete", "evict"])
def test_what_cannot_be_undone_is_over_when_it_was_measured(do: str) -> None:
    record = record_of(do)
    told = Actual(uid="u", stage="active", record=record, injected_at=1.0)
    assert step(_case(told=told, now=2.0)).do == "measure"
    told = told.model_copy(update={"effect": "effective"})
    ended = step(_case(told=told, now=3.0)).told
    assert ended is not None
    assert (ended.stage, ended.end) == ("ended", "nothing to undo")
