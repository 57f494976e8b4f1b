"""The engine without threads: one step at a time, able to die at each, checked at each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.engine.world import World, new_run

from faultline.api.experiment import ExperimentSpec
from faultline.api.run import Phase, Run, Stage
from faultline.changes.model import State
from faultline.engine import actions
from faultline.engine.model import SECOND, Action, Decision, Do, Facts, Now, Result
from faultline.engine.reconcile import reconcile

LONGEST = 30 * 60 * SECOND
"""No run of these tests may take longer: every phase has its time-out."""


@dataclass
class Flight:
    """An action that is being carried out: it acts at its beginning, or only at its end."""

    action: Action
    ready_ns: int | None  # when its result comes; None: never
    late: bool = False
    result: Result | None = None


@dataclass
class Simulator:
    """Drives one run in a world and checks the invariants after every decision."""

    world: World
    spec: ExperimentSpec
    monkeypatch: pytest.MonkeyPatch
    latency: Callable[[Action], int | None] = lambda action: 10**6
    late: float = 0.0  # how often an action acts only at its end
    thorough: bool = True  # also what is dear: that nothing given is changed, and JSON and back
    flights: dict[str, Flight] = field(default_factory=dict[str, Flight])
    interrupt: str = ""
    started_ns: int = 0
    steps: int = 0
    run: Run = field(init=False)
    resumed: bool = False
    history: list[Run] = field(default_factory=list[Run])

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(actions, "instant", self.world.now)
        self.run = new_run(self.spec)
        self.started_ns = self.world.ns

    # ------------------------------------------------------------------ one decision

    def step(self) -> Decision:
        """Take in what has come, decide, write down, begin what is wanted."""
        self.steps += 1
        ready = [f for f in self.flights.values() if self._is_ready(f)]
        for flight in ready:
            if flight.late:
                flight.result = actions.carry_out(self.run, flight.action, self.world.tools())
        facts = Facts(
            tuple(f.result for f in ready if f.result),
            {},
            self.interrupt,
            self.resumed,
        )
        decision = self.decide(facts)
        for flight in ready:
            self.flights.pop(flight.action.id, None)
        self.resumed = False
        for action in decision.actions:
            if action.id not in self.flights:
                self.begin(action)
        wanted = {action.id for action in decision.actions}
        self.flights = {k: f for k, f in self.flights.items() if k in wanted}
        return decision

    def decide(self, facts: Facts) -> Decision:
        now = self.world.now()
        before = self.run.model_dump_json() if self.thorough else ""
        decision = reconcile(self.run, facts, now)
        after = self.run.model_dump_json() if self.thorough else ""
        assert after == before, "the reconciler changed what it was given"
        check_step(self.run, decision, self.world, now)
        self.run = self.run.model_copy(update={"status": decision.status})
        return decision

    def begin(self, action: Action) -> None:
        """Carry it out at once; its result comes later, or never."""
        took = self.latency(action)
        ready = None if took is None else self.world.ns + took
        flight = Flight(action, ready, self.world.chance(self.late))
        self.flights[action.id] = flight
        if not flight.late and took is not None:
            flight.result = actions.carry_out(self.run, action, self.world.tools())

    def _is_ready(self, flight: Flight) -> bool:
        return flight.ready_ns is not None and flight.ready_ns <= self.world.ns

    def sleep(self, decision: Decision) -> None:
        """Until the next result, or the next look."""
        times = [f.ready_ns for f in self.flights.values() if f.ready_ns is not None]
        times += [decision.wake_ns] if decision.wake_ns is not None else []
        assert times, f"nothing to wait for in {self.run.status.phase}: the run would hang"
        self.world.pass_time(max(0, min(times) - self.world.ns))

    def die(self) -> None:
        """Everything in memory is lost; what is in the store is read again.

        What was under way may have acted with its last breath.
        """
        for flight in self.flights.values():
            if flight.late and self.world.chance(0.5):
                actions.carry_out(self.run, flight.action, self.world.tools())
        self.flights = {}
        self.resumed = self.run.status.started is not None
        if self.thorough:
            self.run = Run.model_validate_json(self.run.model_dump_json())
            self.run = Run.model_validate(json.loads(json.dumps(self.run.to_json())))

    def drive(self, before_sleep: Callable[[Simulator], None] = lambda _: None) -> Run:
        while self.run.status.phase is not Phase.ENDED:
            decision = self.step()
            if decision.status.phase is not Phase.ENDED:
                before_sleep(self)
                self.sleep(decision)
            assert self.steps < 20_000, f"no end in sight: {self.run.status.phase}"
        check_end(self)
        return self.run


# ---------------------------------------------------------------------- invariants


def check_step(run: Run, decision: Decision, world: World, now: Now) -> None:
    old, new = run.status, decision.status
    assert new.phase.rank >= old.phase.rank, "a phase went backwards"
    for before, after in zip(old.faults, new.faults, strict=False):
        assert after.stage.rank >= before.stage.rank, "a fault went backwards"
        assert before.effect in (None, after.effect), "an effect was changed"
    assert new.timeline[: len(old.timeline)] == old.timeline, "the past was changed"
    assert (new.verdict is None) == (new.phase is not Phase.ENDED), "a verdict is given at the end"
    assert old.verdict in (None, new.verdict), "a verdict was changed"
    ids = [action.id for action in decision.actions]
    assert len(ids) == len(set(ids)), "an action was asked for twice"
    asked = {action.id for action in new.actions}
    assert all(a.id in asked or a.do is Do.PROBE for a in decision.actions), "not written down"
    for fault in new.faults:
        _check_fault(decision, world, now, fault.name)


def _check_fault(decision: Decision, world: World, now: Now, name: str) -> None:
    status = decision.status
    fault = next(each for each in status.faults if each.name == name)
    record = world.journal.get(fault.uid)
    acting = record is not None and record.state is not State.ENDED
    undoing = any(a.do is Do.RECOVER and a.node == name for a in decision.actions)
    undone = any(a.kind == str(Do.RECOVER) and a.node == name for a in status.actions)
    if acting and fault.ends_ns is not None and fault.ends_ns <= status.clock_ns:
        assert undone, f"{name} is past its end and nobody undoes it"
    if acting and status.stopped and fault.stage is not Stage.INJECTING:
        assert undone or undoing, f"the run was stopped and nobody undoes {name}"
    assert world.applied[fault.uid] <= 1, f"{name} was injected twice"


def check_end(simulator: Simulator) -> None:
    run, world = simulator.run, simulator.world
    status = run.status
    assert status.verdict is not None
    assert status.reason
    assert status.ended is not None
    assert status.phases[-1].phase is Phase.ENDED
    for fault in status.faults:
        assert fault.stage is Stage.ENDED, f"the run ended before {fault.name}"
        record = world.journal.get(fault.uid)
        if record is not None and fault.end != "needs a person":
            assert record.state is State.ENDED, f"{fault.name} is left and nobody was told"
            assert fault.recovered_at is not None, f"{fault.name} was not checked"
            assert fault.uid not in world.stuck, f"something of {fault.name} is left"
        if fault.end == "needs a person":
            assert status.verdict == "error"
    if status.verdict == "held":
        assert all(f.effect == "effective" for f in status.faults if not f.node)
        assert not status.aborted
    # The verdict is final, whatever comes afterwards.
    late = Facts(
        tuple(Result(a.id, world.now()) for a in status.actions), interrupt="late", resumed=True
    )
    again = reconcile(run, late, world.now())
    assert again.status == status
    assert again.actions == ()
