"""Error budgets as guards: counted rightly, over at the right moment, and everything is undone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.engine.simulator import Simulator
from tests.engine.test_simulation import ODDS, SIMULATION
from tests.engine.world import Odds, World, experiment, new_run

from faultline.api import admission
from faultline.api.budget import BudgetPoint, ErrorBudget
from faultline.api.probe import Measurement
from faultline.api.run import FaultStatus, Phase, Run, Sample
from faultline.api.traffic import TrafficSecond, TrafficStatus
from faultline.engine import budgets
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Do, Now
from faultline.engine.runs import exit_code
from faultline.report import render
from faultline.testing.sampling import examples

FAST = settings(max_examples=examples(60, 1000), deadline=None)
STEPS = st.lists(
    st.tuples(st.integers(1, 20), st.sampled_from([True, True, True, False, None])), max_size=60
)


def budget(**fields: Any) -> ErrorBudget:
    given_ = {"name": "slo", "probe": "guard", "objective": "99%", "window": "10m", "spend": "50%"}
    return ErrorBudget.model_validate({**given_, **fields})


def draft_with(spec: ErrorBudget, ns: int = 1000 * SECOND) -> Draft:
    run = new_run(experiment(errorBudgets=[spec.to_json()], guards=[]))
    draft = Draft(run, Now(1e9, ns, "boot"))
    draft.status.clock_ns = ns
    draft.status.phase = Phase.WAIT
    draft.status.budgets = [budgets.BudgetStatus(name=spec.name)]
    draft.status.faults = [FaultStatus(name="one", fault="f", uid="u", started=1e9)]
    draft.status.traffic = [TrafficStatus(name="load", started=1e9)]
    budgets.step(draft)
    return draft


@FAST
@given(STEPS, st.sampled_from(["5%", "50%", "100%"]))
def test_what_is_spent_is_the_bad_time_and_it_is_over_at_the_first_moment_at_which_it_is_too_much(
    steps: list[tuple[int, bool | None]], spend: str
) -> None:
    spec = budget(spend=spend)
    draft, ns, bad, blind = draft_with(spec), 1000 * SECOND, 0, 0
    for length, ok in steps:
        ns += length * SECOND // 4
        bad += length if ok is False else 0
        blind += length if ok is None else 0
        when = Now(1e9 + ns / SECOND, ns, "boot")
        budgets.sampled(draft, "guard", Sample(at=when.at, ok=ok), when)
        status = draft.status.budgets[0]
        assert status.spent == pytest.approx(bad / 4 / 6)  # 1 % of 10 min is 6 s
        assert status.unknown == pytest.approx(blind / 4 / 6)
        too_much = (bad + blind) / 4 > spec.spend.ratio * 6 + 1e-9
        assert (status.exceeded_at is not None) == too_much
        assert (draft.status.aborted_by == "guard") == too_much
    assert len(draft.status.budgets[0].points) == 1 + len(steps)


@FAST
@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.floats(0, 1)), min_size=1, max_size=40),
    st.floats(0.5, 100),
)
def test_a_burn_rate_is_what_was_lost_in_its_window_against_what_evenly_would_be(
    steps: list[tuple[float, float]], window: float
) -> None:
    spec, ns, lost = budget(), 0, 0.0
    points = [BudgetPoint(at=0, boot_ns=0, bad=0)]
    for length, share in steps:
        ns += int(length * SECOND)
        lost += length * share
        points.append(BudgetPoint(at=0, boot_ns=ns, bad=lost))
    inside, end = 0.0, ns / SECOND
    at = 0.0
    for length, share in steps:  # by brute force: the overlap of each stretch with the window
        at += length
        inside += share * max(0.0, min(at, end) - max(at - length, end - window))
    assert budgets.burn(spec, points, int(window * SECOND)) == pytest.approx(
        inside / window / 0.01, abs=1e-3
    )


def test_both_windows_of_a_burn_rate_have_to_burn() -> None:
    rates = [{"rate": 10.0, "long": "60s", "short": "5s"}]
    spec = budget(spend="100%", window="1d", burnRates=rates)
    points = [BudgetPoint(at=0, boot_ns=0, bad=0.0)]
    points += [BudgetPoint(at=s, boot_ns=s * SECOND, bad=min(s, 10)) for s in range(1, 61)]
    assert "times too fast" in budgets.exceeded(spec, points[:11])  # 10 s of the last 60, all of 5
    assert not budgets.exceeded(spec, points[:5])  # the long one has not enough yet
    assert not budgets.exceeded(spec, points)  # it is over: the short one is clean


@FAST
@given(
    st.integers(5, 200),
    st.lists(st.floats(0, 1), min_size=2, max_size=30),
    st.integers(0, 3),
)
def test_requests_count_one_by_one_also_when_they_fail_late(
    rate: int, shares: list[float], late: int
) -> None:
    spec = budget(probe=None, traffic="load", spend="100%", window="366d")
    draft = draft_with(spec)
    failed = [round(rate * share) for share in shares]
    # What was sent in a second fails `late` seconds later: time-outs.
    came = [0] * late + failed
    seconds = [
        TrafficSecond(at=1e9 + i, sent=rate, ok=0, errors=errors) for i, errors in enumerate(came)
    ]
    for index, second in enumerate(seconds, 1):
        draft.status.traffic[0].seconds.append(second)
        draft.now = Now(1e9 + index, 1000 * SECOND + index * SECOND, "boot")
        budgets.sent(draft)
        budgets.sent(draft)  # looking again counts nothing twice
    status = draft.status.budgets[0]
    assert status.bad_events == sum(failed)
    assert status.points[-1].bad == pytest.approx(sum(failed) / rate, rel=0.01)
    assert status.points[-1].unknown == 0


@pytest.mark.parametrize(
    ("indicator", "value", "share"),
    [("errorRatio", 0.2, 0.2), ("successRatio", 0.2, 0.8), ("errorRatio", 7.0, None),
     ("errorRatio", None, None)],
)  # fmt: skip
def test_a_ratio_is_the_share_that_was_bad(
    indicator: str, value: float | None, share: float | None
) -> None:
    found = budgets.bad_share(budget(indicator=indicator), Sample(at=0, value=value, ok=True))
    assert found == share if share is None else found == pytest.approx(share)


@pytest.mark.parametrize("seen", [Measurement(ok=False, text="bad"), Measurement(text="blind")])
def test_a_run_that_spends_too_much_is_undone_within_an_interval_and_a_second(
    monkeypatch: pytest.MonkeyPatch, seen: Measurement
) -> None:
    world = World(random.Random(1))
    spec = experiment(guards=[], errorBudgets=[budget(window="100s").to_json()])  # 0.5 s of 1 s
    running, failed_ns = Simulator(world, spec, monkeypatch), list[int]()

    def fail(one: Simulator) -> None:
        if one.run.status.phase is Phase.WAIT and not failed_ns:
            failed_ns.append(world.ns)
            world.values["guard"] = seen

    run = running.drive(fail)
    assert run.status.aborted_by == "guard"
    assert run.status.aborted.startswith("error budget slo: ")
    assert exit_code(run) == 8
    undo = [action for action in run.status.actions if action.kind == str(Do.RECOVER)]
    # Two intervals of 500 ms are bad before 0.5 s of failure are over.
    assert undo[0].started_ns - failed_ns[0] <= (2 * 0.5 + 1) * SECOND
    page = render.html(run)
    assert "Budget slo spent" in page
    assert "Error budget slo" in page
    assert "Budget slo spent" in render.text(run)
    again = Run.model_validate(run.to_json())
    assert again.status.budgets == run.status.budgets


def test_what_stays_within_its_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = experiment(guards=[], errorBudgets=[budget().to_json()])
    run = Simulator(World(random.Random(1)), spec, monkeypatch).drive()
    assert run.status.verdict == "held"
    assert run.status.budgets[0].spent == 0
    assert run.status.budgets[0].text == "0% of it is spent, 50% may be"


@pytest.mark.parametrize(
    ("change", "path"),
    [({"probe": "none"}, "spec.errorBudgets.0.probe"),
     ({"probe": "edge"}, "spec.errorBudgets.0.probe"),
     ({"indicator": "errorRatio"}, "spec.errorBudgets.0.indicator"),
     ({"probe": None, "traffic": "none"}, "spec.errorBudgets.0.traffic")],
)  # fmt: skip
def test_what_no_budget_can_be_made_of_is_refused_by_its_path(
    change: dict[str, Any], path: str
) -> None:
    spec = experiment(errorBudgets=[budget(**change).to_json()])
    assert [one.path for one in admission.check(spec, lambda *_: [])] == [path]


@pytest.mark.parametrize(
    "change",
    [{"objective": "100%"}, {"spend": "101%"}, {"window": "0s"}, {"probe": None},
     {"traffic": "load"}, {"burnRates": [{"rate": 2.0, "long": "1s", "short": "2s"}]}],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        budget(**change)


@SIMULATION
@given(
    seed=st.integers(0, 2**32),
    odds=ODDS,
    crash=st.sampled_from([0.0, 0.02, 0.1]),
    spend=st.sampled_from(["0%", "20%", "100%"]),
)
def test_whatever_goes_wrong_a_budget_is_never_overrun_unnoticed(
    seed: int, odds: Odds, crash: float, spend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, left = World(random.Random(seed), odds), 15
    asked = budget(window="200s", spend=spend)
    spec = experiment(guards=[], errorBudgets=[asked.to_json()])
    running = Simulator(world, spec, monkeypatch)

    def hurt(one: Simulator) -> None:
        nonlocal left
        if left and world.chance(crash):
            left -= 1
            one.die()

    run = running.drive(hurt)
    status = run.status.budgets[0]
    lost = [point.bad + point.unknown for point in status.points]
    assert lost == sorted(lost)
    over = bool(lost) and lost[-1] > asked.spend.ratio * asked.seconds + 1e-9
    assert over == (status.exceeded_at is not None)
    if run.status.aborted_by == "guard":
        assert over
        # Only what was there when it was noticed; the samples that were under way come after it.
        before = [point for point in status.points if point.at < (status.exceeded_at or 0)]
        assert all(p.bad + p.unknown <= asked.spend.ratio * asked.seconds + 1e-9 for p in before)
