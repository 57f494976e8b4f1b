"""What an experiment spends of error budgets, and when it has spent too much. Pure.

Everything is counted in seconds of complete failure: a measurement that is bad stands for the time
since the one before, a share of bad events for that share of it. The budget of an objective over a
window is the same in these units, so what was spent divided by it is the share that is judged.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from faultline.api.budget import BudgetPoint, BudgetStatus, ErrorBudget
from faultline.api.experiment import ExperimentSpec
from faultline.api.graph_status import NodeState
from faultline.api.run import Phase, Sample, Stage
from faultline.api.traffic import TrafficSecond
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Now

_ROUNDING = 1e-9


def watched(spec: ExperimentSpec) -> list[str]:
    """The probes that have to answer within their interval: guards, and those of budgets."""
    return [*spec.guards, *(one.probe for one in spec.error_budgets if one.probe)]


def step(draft: Draft) -> None:
    """Budgets count from when the first fault is asked for."""
    begun = [fault.started for fault in draft.status.faults if fault.started is not None]
    for status in draft.status.budgets if begun else ():
        if status.began_ns is None:
            status.began_ns = status.until_ns = draft.ns
            status.began_at = draft.now.at
            status.points.append(BudgetPoint(at=draft.now.at, boot_ns=draft.ns, bad=0.0))


def sampled(draft: Draft, probe: str, sample: Sample, when: Now) -> None:
    """A measurement of a probe: the time since the one before was good, bad, or is not known."""
    for spec, status in _counting(draft):
        if spec.probe != probe:
            continue
        # The boot clock is not that of another boot: such a run is aborted as it is.
        length = max(0, when.boot_ns - (status.until_ns or when.boot_ns)) / SECOND
        status.until_ns = when.boot_ns
        share = bad_share(spec, sample)
        lost = length if share is None else 0.0
        _add(draft, spec, status, length * (share or 0.0), lost, when)


def bad_share(spec: ErrorBudget, sample: Sample) -> float | None:
    """Which share of what a measurement stands for was bad; None if that is not known."""
    if spec.indicator == "answers":
        return None if sample.ok is None else 0.0 if sample.ok else 1.0
    if sample.value is None or not 0.0 <= sample.value <= 1.0:
        return None
    return sample.value if spec.indicator == "errorRatio" else 1.0 - sample.value


def sent(draft: Draft) -> None:
    """The seconds of traffic that have come since the last look."""
    for spec, status in _counting(draft):
        traffic = next((one for one in draft.status.traffic if one.name == spec.traffic), None)
        if traffic is None or status.began_at is None:
            continue
        last = status.until if status.until is not None else status.began_at - 1.0
        new = [second for second in traffic.seconds[-600:] if second.at > last]
        for second in new:
            _second(draft, spec, status, second)


def _second(draft: Draft, spec: ErrorBudget, status: BudgetStatus, second: TrafficSecond) -> None:
    """A request that failed is worth the time between two requests, as they left so far."""
    before, status.until = status.until, second.at
    missing = second.at - before - 1.0 if before is not None else 0.0
    status.events += max(second.sent, second.errors)
    status.bad_events += second.errors
    known = max(1.0, second.at + 1.0 - (status.began_at or second.at))
    worth = known / status.events if status.events else 0.0
    ago = max(0.0, draft.now.at - (second.at + 1.0))
    ns = max(status.until_ns or 0, draft.now.boot_ns - int(ago * SECOND))
    status.until_ns = ns
    when = Now(second.at + 1.0, ns, draft.now.boot_id)
    # Clocks that are set, and traffic that begins late, are no time that was not measured.
    lost = missing if 0.5 < missing < 3600 else 0.0
    _add(draft, spec, status, second.errors * worth, lost, when)


def _counting(draft: Draft) -> list[tuple[ErrorBudget, BudgetStatus]]:
    if not draft.status.budgets or draft.status.phase.rank >= Phase.VERDICT.rank:
        return []
    pairs = zip(draft.spec.error_budgets, draft.status.budgets, strict=True)
    return [(spec, status) for spec, status in pairs if status.began_ns is not None]


def _add(
    draft: Draft, spec: ErrorBudget, status: BudgetStatus, bad: float, unknown: float, when: Now
) -> None:
    last = status.points[-1]
    point = BudgetPoint(
        at=when.at, boot_ns=when.boot_ns, bad=last.bad + bad, unknown=last.unknown + unknown
    )
    status.points.append(point)
    total = spec.seconds
    status.spent, status.unknown = point.bad / total, point.unknown / total
    shortest = min((one.short for one in spec.burn_rates), default=None)
    rate = burn(spec, status.points, shortest)
    status.burn = max(rate, status.burn or 0.0)
    why = exceeded(spec, status.points)
    status.text = why or told(spec, status)
    if why and status.exceeded_at is None:
        status.exceeded_at = when.at
        draft.point("budget", why, spec.name, when)
        if _anything_to_stop(draft):
            draft.abort("guard", f"error budget {spec.name}: {why}")


def _anything_to_stop(draft: Draft) -> bool:
    """Whether a fault acts or is still to come; what is being undone already is undone anyway."""
    status = draft.status
    if status.stopped or status.phase.rank >= Phase.COOLDOWN.rank:
        return False
    acts = any(fault.stage.rank < Stage.RECOVERING.rank for fault in status.faults)
    return acts or any(node.state is not NodeState.ENDED for node in status.nodes)


def exceeded(spec: ErrorBudget, points: Sequence[BudgetPoint]) -> str:
    """Why that is more than may be spent; empty if it is not."""
    if not points:
        return ""
    allowed, last = spec.spend.ratio * spec.seconds, points[-1]
    if last.bad > allowed + _ROUNDING:
        return f"{_share(last.bad / spec.seconds)} of it is spent, {spec.spend} may be"
    if last.bad + last.unknown > allowed + _ROUNDING:
        unknown = _share(last.unknown / spec.seconds)
        return (
            f"{_share(last.bad / spec.seconds)} of it is spent and {unknown} more could not be "
            f"measured, {spec.spend} may be"
        )
    for each in spec.burn_rates:
        found = [burn(spec, points, window) for window in (each.long, each.short)]
        if min(found) > each.rate + _ROUNDING:
            return (
                f"it burns {found[0]:.3g} times too fast over {each.long} and {found[1]:.3g} over "
                f"{each.short}, {each.rate:g} may be"
            )
    return ""


def burn(spec: ErrorBudget, points: Sequence[BudgetPoint], window: int | None) -> float:
    """How many times faster than evenly the budget was spent in the last `window` nanoseconds; None
    is all of the time that was counted. Before the faults nothing was spent.
    """
    if len(points) < 2:
        return 0.0
    last = points[-1]
    length = window if window is not None else last.boot_ns - points[0].boot_ns
    if length <= 0:
        return 0.0
    lost = last.bad + last.unknown - lost_until(points, last.boot_ns - length)
    return lost / (length / SECOND) / (spec.seconds / spec.window.seconds)


def lost_until(points: Sequence[BudgetPoint], ns: int) -> float:
    """What was spent or not known until an instant; between two points it grows evenly."""
    index = bisect_right(points, ns, key=lambda point: point.boot_ns)
    if index == 0:
        return 0.0
    before = points[index - 1]
    lost = before.bad + before.unknown
    if index == len(points):
        return lost
    after = points[index]
    share = (ns - before.boot_ns) / (after.boot_ns - before.boot_ns)
    return lost + share * (after.bad + after.unknown - lost)


def told(spec: ErrorBudget, status: BudgetStatus) -> str:
    """How a budget stands."""
    more = f", {_share(status.unknown)} more could not be measured" if status.unknown else ""
    return f"{_share(status.spent)} of it is spent{more}, {spec.spend} may be"


def _share(share: float) -> str:
    return f"{share * 100:.3g}%"
