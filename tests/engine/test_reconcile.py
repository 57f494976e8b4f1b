"""Single decisions and whole lives of a run, in a world where one thing goes wrong."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.engine.simulator import Simulator
from tests.engine.world import Odds, World, experiment

from faultline.api.probe import Measurement
from faultline.api.run import Phase, Run, Stage, Verdict
from faultline.engine.model import SECOND, Do
from faultline.engine.runs import exit_code


def live(
    monkeypatch: pytest.MonkeyPatch, odds: Odds | None = None, **changes: Any
) -> tuple[Simulator, Run]:
    running = Simulator(World(random.Random(1), odds or Odds()), experiment(**changes), monkeypatch)
    return running, running.drive()


def events(run: Run, name: str) -> list[tuple[float, str]]:
    return [(point.at, point.node) for point in run.status.timeline if point.event == name]


def test_a_good_run_goes_through_every_phase_in_order_and_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, run = live(monkeypatch)
    assert run.status.verdict == Verdict.HELD
    assert exit_code(run) == 0
    passed = [phase.phase for phase in run.status.phases]
    assert passed == sorted(passed, key=lambda phase: phase.rank)
    assert {Phase.ADMISSION, Phase.TRAFFIC, Phase.STEADY, Phase.INJECTION, Phase.WAIT} <= set(
        passed
    )
    assert {Phase.RECOVERY, Phase.COOLDOWN, Phase.VERDICT, Phase.ENDED} <= set(passed)
    for before, after in zip(run.status.phases, run.status.phases[1:], strict=False):
        assert before.ended == after.started
    one, two = run.status.faults
    assert one.injected_at
    assert one.recovery_started
    assert one.recovery_started - one.injected_at == pytest.approx(10, abs=0.2)
    assert two.started
    assert one.started
    assert two.started - one.started == pytest.approx(3, abs=0.2)
    assert run.status.traffic[0].totals is not None
    assert run.status.environment is not None


def test_every_wait_of_the_document_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = live(monkeypatch, baseline="7s", cooldown="9s")
    took = {p.phase: (p.ended or 0) - p.started for p in run.status.phases}
    assert took[Phase.STEADY] == pytest.approx(7, abs=0.2)
    assert took[Phase.COOLDOWN] == pytest.approx(9, abs=0.2)


@pytest.mark.parametrize("seen", [Measurement(ok=False, text="bad"), Measurement(text="blind")])
def test_a_guard_that_fails_or_is_blind_undoes_everything_at_once(
    monkeypatch: pytest.MonkeyPatch, seen: Measurement
) -> None:
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch)
    failed_ns: list[int] = []

    def fail(one: Simulator) -> None:
        if one.run.status.phase is Phase.WAIT and not failed_ns:
            failed_ns.append(world.ns)
            world.values["guard"] = seen

    run = running.drive(fail)
    assert run.status.aborted_by == "guard"
    assert exit_code(run) == 8
    undo = [action for action in run.status.actions if action.kind == str(Do.RECOVER)]
    assert undo[0].started_ns - failed_ns[0] <= 0.5 * SECOND + 1 * SECOND
    assert all(fault.end == "recovered" for fault in run.status.faults)
    assert run.status.verdict == Verdict.NOT_MEASURED


def test_a_guard_whose_probe_hangs_aborts_within_its_interval_and_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    hung: list[int] = []

    def latency(action: Any) -> int | None:
        if action.node == "guard" and running.run.status.phase is Phase.WAIT:
            hung.append(world.ns)
            return None
        return 10**6

    running = Simulator(world, experiment(), monkeypatch, latency)
    run = running.drive()
    assert run.status.aborted_by == "guard"
    undo = next(action for action in run.status.actions if action.kind == str(Do.RECOVER))
    assert undo.started_ns - hung[0] <= 1.5 * SECOND


VERDICTS = {
    "not effective": (Odds(ineffective=1), {}, Verdict.NOT_EFFECTIVE, 4),
    "unmeasured effect": (Odds(unmeasured=1), {}, Verdict.NOT_MEASURED, 4),
    "refused": (Odds(refuse=1), {}, Verdict.ERROR, 3),
    "could not be applied": (Odds(fail=1), {}, Verdict.ERROR, 1),
    "cannot be undone": (Odds(unrecovered=1), {}, Verdict.ERROR, 6),
    "needs a person": (Odds(person=1), {}, Verdict.ERROR, 6),
    "died half way": (Odds(half=1), {}, Verdict.ERROR, 1),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_each_kind_of_trouble_has_its_own_verdict_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    odds, changes, verdict, code = VERDICTS[case]
    _, run = live(monkeypatch, odds, **changes)
    assert run.status.verdict == verdict, run.status.reason
    assert exit_code(run) == code


def test_a_probe_that_fails_while_the_fault_acts_breaks_the_hypothesis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch)

    def fail(one: Simulator) -> None:
        acting = any(fault.stage is Stage.MEASURED for fault in one.run.status.faults)
        world.values["during"] = Measurement(value=9.0, ok=not acting, text="too slow")

    run = running.drive(fail)
    assert run.status.verdict == Verdict.BROKE
    assert "during" in run.status.reason
    assert "too slow" in run.status.reason
    during = run.status.probes[0]
    assert during.held_ratio is not None
    assert during.held_ratio < 1
    assert {sample.counted for sample in during.samples} == {True, False}


def test_a_probe_that_is_blind_while_the_fault_acts_is_not_rounded_to_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch)

    def blind(one: Simulator) -> None:
        if any(fault.stage is Stage.MEASURED for fault in one.run.status.faults):
            world.values["during"] = Measurement(text="no answer")

    assert running.drive(blind).status.verdict == Verdict.NOT_MEASURED


def test_a_steady_state_that_does_not_hold_before_the_faults_injects_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    world.values["edge"] = Measurement(ok=False, text="down")
    run = Simulator(world, experiment(), monkeypatch).drive()
    assert run.status.verdict == Verdict.NOT_MEASURED
    assert "edge (down)" in run.status.reason
    assert world.journal == {}


def test_a_steady_state_that_does_not_come_back_breaks_the_hypothesis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    running = Simulator(
        world, experiment(hypothesis={"text": "t", "probes": ["during"]}), monkeypatch
    )

    def fail(one: Simulator) -> None:
        if one.run.status.phase.rank >= Phase.INJECTION.rank:
            world.values["edge"] = Measurement(ok=False, text="still down")

    run = running.drive(fail)
    assert run.status.verdict == Verdict.BROKE
    assert "did not hold again" in run.status.reason


def test_a_value_is_judged_against_the_median_before_the_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probes = [
        {"name": "p", "type": "tcp", "host": "h", "port": 1, "mode": "during",
         "expect": {"interval": ",50%", "relative": "percent"}},
    ]  # fmt: skip
    changes = {
        "probes": probes, "guards": [], "steadyState": [], "traffic": [],
        "hypothesis": {"text": "t", "probes": ["p"]},
    }  # fmt: skip
    for factor, verdict in ((1.4, Verdict.HELD), (1.6, Verdict.BROKE)):
        with monkeypatch.context() as patch:
            world = World(random.Random(1))
            world.values["p"] = Measurement(value=0.2, ok=True)
            running = Simulator(world, experiment(**changes), patch)

            def slow(one: Simulator, world: World = world, factor: float = factor) -> None:
                if one.run.status.phase.rank >= Phase.INJECTION.rank:
                    world.values["p"] = Measurement(value=0.2 * factor, ok=True)

            run = running.drive(slow)
            assert run.status.probes[0].initial == pytest.approx(0.2)
            assert run.status.verdict == verdict, run.status.reason


def test_discovery_is_timed_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    for within, verdict in (("9s", Verdict.HELD), ("2s", Verdict.BROKE)):
        with monkeypatch.context() as patch:
            world = World(random.Random(1))
            spec = experiment(discovery={"probe": "alert", "within": within}, probes=[
                {"name": "during", "type": "tcp", "host": "h", "port": 1, "mode": "during"},
                {"name": "edge", "type": "tcp", "host": "h", "port": 1, "mode": "edge"},
                {"name": "guard", "type": "tcp", "host": "h", "port": 1},
                {"name": "alert", "type": "tcp", "host": "h", "port": 1},
            ])  # fmt: skip
            running = Simulator(world, spec, patch)

            def fire(one: Simulator, world: World = world) -> None:
                effective = [f.effective_at for f in one.run.status.faults if f.effective_at]
                late = bool(effective) and world.now().at - min(effective) > 4
                world.values["alert"] = Measurement(ok=late)

            run = running.drive(fire)
            assert run.status.verdict == verdict, run.status.reason
            assert run.status.discovered_at is not None


@pytest.mark.parametrize(
    ("silent_after", "within", "verdict", "seen"),
    [
        (2.0, "9s", Verdict.HELD, True),
        (6.0, "3s", Verdict.BROKE, False),
        (1e9, "3s", Verdict.BROKE, False),
        (0.0, None, Verdict.HELD, True),
    ],
)
def test_an_alarm_that_ends_after_recovery_is_waited_for_timed_and_judged(
    monkeypatch: pytest.MonkeyPatch,
    silent_after: float,
    within: str | None,
    verdict: Verdict,
    seen: bool,
) -> None:
    world = World(random.Random(1))
    discovery = {"probe": "alert", "within": "9s", "resolvedWithin": within}
    spec = experiment(discovery=discovery, probes=[
        {"name": "during", "type": "tcp", "host": "h", "port": 1, "mode": "during"},
        {"name": "edge", "type": "tcp", "host": "h", "port": 1, "mode": "edge"},
        {"name": "guard", "type": "tcp", "host": "h", "port": 1},
        {"name": "alert", "type": "tcp", "host": "h", "port": 1},
    ])  # fmt: skip
    running = Simulator(world, spec, monkeypatch)

    def fire(one: Simulator) -> None:
        faults = one.run.status.faults
        gone = [f.recovered_at for f in faults if f.recovered_at]
        late = bool(gone) and len(gone) == len(faults) and world.now().at - max(gone) > silent_after
        effective = any(f.effective_at for f in faults)
        world.values["alert"] = Measurement(ok=effective and not late)

    status = running.drive(fire).status
    assert status.verdict == verdict, status.reason
    assert (status.resolved_at is not None) == seen
    if status.resolved_at is not None:
        recovered = max(f.recovered_at for f in status.faults if f.recovered_at)
        assert status.discovered_at is not None
        assert status.discovered_at <= recovered <= status.resolved_at
        assert any(point.event == "resolved" for point in status.timeline)


def test_a_fault_that_ended_while_no_engine_ran_is_noted_and_proven_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch)

    def die_long(one: Simulator) -> None:
        if one.run.status.phase is Phase.WAIT and not one.run.status.resumed:
            one.die()
            world.pass_time(120 * SECOND)
            one.step()

    run = running.drive(die_long)
    assert run.status.resumed == 1
    assert any("it had ended already" in point.text for point in run.status.timeline)
    assert all(fault.end == "recovered" and fault.recovered_at for fault in run.status.faults)
    assert run.status.verdict == Verdict.NOT_MEASURED


def test_a_reboot_aborts_and_proves_that_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(random.Random(1))
    running = Simulator(world, experiment(), monkeypatch)

    def reboot(one: Simulator) -> None:
        if one.run.status.phase is Phase.WAIT and world.boot == 1:
            world.reboot()
            one.die()
            one.step()

    run = running.drive(reboot)
    assert run.status.aborted_by == "reboot"
    assert all(fault.recovered_at for fault in run.status.faults)


def test_an_abort_in_the_document_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Simulator(World(random.Random(1)), experiment(), monkeypatch)

    def abort(one: Simulator) -> None:
        if one.run.status.phase is Phase.WAIT:
            wish = one.run.spec.model_copy(update={"abort": "enough"})
            one.run = one.run.model_copy(update={"spec": wish})

    run = running.drive(abort)
    assert run.status.aborted == "enough"
    assert exit_code(run) == 130
    assert all(fault.end in ("recovered", None) for fault in run.status.faults)
