"""The engine in a world where everything can go wrong at any moment, thousands of times."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.simulator import Simulator
from tests.engine.world import Odds, World, experiment

from faultline.api.run import Phase, Run, Verdict
from faultline.engine.model import SECOND, Action, Do, Facts, Now
from faultline.engine.reconcile import reconcile
from faultline.testing.sampling import examples

SOMETIMES = st.sampled_from([0.0, 0.0, 0.05, 0.3, 0.9])
ODDS = st.builds(
    Odds,
    refuse=SOMETIMES,
    fail=SOMETIMES,
    unforeseen=SOMETIMES,
    half=SOMETIMES,
    ineffective=SOMETIMES,
    unmeasured=SOMETIMES,
    unrecovered=SOMETIMES,
    person=SOMETIMES,
    sticky=SOMETIMES,
    bad=st.sampled_from([0.0, 0.0, 0.01, 0.2]),
    blind=st.sampled_from([0.0, 0.0, 0.01, 0.2]),
)
SIMULATION = settings(
    max_examples=examples(30, 400),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def simulator(
    monkeypatch: pytest.MonkeyPatch, world: World, hang: float = 0.0, **changes: object
) -> Simulator:
    def latency(action: Action) -> int | None:
        if world.chance(hang):
            return None
        return world.random.choice([0, 10**6, 10**8, 2 * SECOND])

    late, thorough = world.random.choice([0.0, 0.3]), world.chance(0.2)
    return Simulator(world, experiment(**changes), monkeypatch, latency, late, thorough)


@SIMULATION
@given(seed=st.integers(0, 2**32), odds=ODDS, hang=st.sampled_from([0.0, 0.0, 0.02, 0.3]))
def test_whatever_goes_wrong_a_run_undoes_everything_and_ends_in_one_verdict(
    seed: int, odds: Odds, hang: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator(monkeypatch, World(random.Random(seed), odds), hang).drive()


@SIMULATION
@given(
    seed=st.integers(0, 2**32),
    odds=ODDS,
    crash=st.sampled_from([0.01, 0.05, 0.2]),
    reboot=st.sampled_from([0.0, 0.0, 0.01]),
    jump=st.sampled_from([0.0, 0.1]),
    abort=st.sampled_from([0.0, 0.0, 0.02]),
)
def test_crashes_reboots_and_clock_jumps_at_any_step_break_no_promise(
    seed: int,
    odds: Odds,
    crash: float,
    reboot: float,
    jump: float,
    abort: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(seed), odds)
    left = 30  # engines that die for ever end no run

    def trouble(running: Simulator) -> None:
        nonlocal left
        if left and world.chance(crash):
            left -= 1
            running.die()
            world.pass_time(world.random.choice([0, SECOND, 60 * SECOND]))
        if left and world.chance(reboot):
            left -= 1
            world.reboot()
            running.die()
        if world.chance(jump):
            world.skew += world.random.choice([-3600.0, 0.5, 86400.0])
        if world.chance(abort):
            running.interrupt = "stop it"
        if not running.flights:  # nothing under way: begin again at once
            running.step()

    simulator(monkeypatch, world, 0.02).drive(trouble)


def _crash_after(monkeypatch: pytest.MonkeyPatch, number: int, gap: int = 0) -> tuple[Run, int]:
    """Die once, after decision `number`: its actions are carried out, their results are lost."""
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch, thorough=number % 10 == 0)

    def die(one: Simulator) -> None:
        if one.steps == number:
            one.die()
            world.pass_time(gap)
            one.step()

    return running.drive(die), running.steps


def test_dying_once_at_every_single_step_the_run_still_ends_and_injects_each_fault_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, steps = _crash_after(monkeypatch, -1)
    assert run.status.verdict == Verdict.HELD
    for number in range(1, steps):
        with monkeypatch.context() as patch:
            run, _ = _crash_after(patch, number)
        assert run.status.resumed == 1
        assert [f.end for f in run.status.faults] == ["recovered", "recovered"]
        assert run.status.verdict == Verdict.HELD, f"died at {number}: {run.status.reason}"


def test_time_in_which_no_engine_ran_is_held_against_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two minutes are longer than every time-out; the keepers end the faults meanwhile."""
    _, steps = _crash_after(monkeypatch, -1)
    for number in range(1, steps):
        with monkeypatch.context() as patch:
            run, _ = _crash_after(patch, number, 120 * SECOND)
        assert run.status.failures == []
        assert run.status.verdict in (Verdict.HELD, Verdict.NOT_MEASURED), run.status.reason
        assert all(fault.end in ("recovered", None) for fault in run.status.faults)


def test_a_clock_that_runs_backwards_moves_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch)
    for _ in range(20):
        running.sleep(running.step())
    seen = running.run.status.clock_ns
    earlier = Now(world.now().at, seen - 100 * SECOND, world.now().boot_id)
    assert reconcile(running.run, Facts(), earlier).status.clock_ns == seen


def test_what_an_undo_left_is_undone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(random.Random(1), Odds(sticky=1.0))
    running = Simulator(world, experiment(), monkeypatch)

    def mend(one: Simulator) -> None:
        if any(fault.residue for fault in one.run.status.faults):
            world.odds.sticky = 0.0

    run = running.drive(mend)
    assert [fault.end for fault in run.status.faults] == ["recovered", "recovered"]
    assert run.status.verdict == Verdict.HELD


def test_an_injection_that_lands_after_its_undo_is_undone_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))

    def latency(action: Action) -> int:
        return 3 * SECOND if action.do is Do.INJECT else 10**6

    def abort(one: Simulator) -> None:
        if any(action.kind == str(Do.INJECT) for action in one.run.status.actions):
            one.interrupt = "stop"

    running = Simulator(world, experiment(), monkeypatch, latency, late=1.0)
    run = running.drive(abort)
    assert world.active() == []
    undone = [action for action in run.status.actions if action.kind == str(Do.RECOVER)]
    assert len(undone) == 2
    assert run.status.faults[0].end == "recovered"


@SIMULATION
@given(seed=st.integers(0, 2**32), odds=ODDS)
def test_the_same_facts_at_the_same_instant_give_the_same_decision(
    seed: int, odds: Odds, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(random.Random(seed), odds)
    running = simulator(monkeypatch, world)
    while running.run.status.phase is not Phase.ENDED:
        results = tuple(f.result for f in running.flights.values() if f.result)
        facts = Facts(results, {}, "", False)
        first = reconcile(running.run, facts, world.now())
        second = reconcile(running.run, facts, world.now())
        assert first == second
        decision = running.step()
        if decision.status.phase is not Phase.ENDED:
            running.sleep(decision)


@SIMULATION
@given(seed=st.integers(0, 2**32))
def test_a_result_that_comes_twice_changes_nothing_the_second_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(random.Random(seed))
    running = simulator(monkeypatch, world)

    def repeat(one: Simulator) -> None:
        done = [a for a in one.run.status.actions if a.ended_ns is not None]
        flights = [f.result for f in one.flights.values() if f.result is not None]
        old = tuple(r for r in flights if r.id in {a.id for a in done})
        before = one.run.status.model_copy()
        after = reconcile(one.run, Facts(old), world.now()).status
        assert after.faults == before.faults

    assert running.drive(repeat).status.verdict is not None


def test_an_injection_that_never_comes_back_is_undone_and_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    running = Simulator(
        world,
        experiment(),
        monkeypatch,
        lambda action: None if action.do is Do.INJECT else 10**6,
    )
    run = running.drive()
    assert run.status.verdict == Verdict.ERROR
    assert "was not injected within" in run.status.reason or "not undone" in run.status.reason
