"""When it took effect, was noticed, understood and mended: the first moment at which a probe's
judgement holds, each counted only after the one before it. Pure.

The service's own standard being broken (`impact`) is the effect that counts where it is given: the
moment at which the kernel delays a packet is not the moment at which anybody could have noticed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from faultline.api.expectation import evaluate
from faultline.api.probe import ProbeBase
from faultline.api.run import FaultStatus, Phase, ProbeStatus
from faultline.api.timepoints import POINTS, Judged, Moment, Scored
from faultline.engine import lifecycle
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Now
from faultline.errors import ObserveFailed


def impacts(draft: Draft) -> list[str]:
    """The impact probes of all faults."""
    from faultline.api.graph import FaultStep, walk

    steps = [step for _, step in walk(draft.spec.nodes) if isinstance(step, FaultStep)]
    return [each.impact for each in (*draft.spec.faults, *steps) if each.impact]


def effect(draft: Draft) -> float | None:
    """The moment from which everything counts: the first impact, or effect at a target."""
    found: list[float] = []
    for fault in draft.status.faults:
        at = fault.impact_at if draft.fault_node(fault).impact else fault.effective_at
        if at is not None:
            found.append(at)
    return min(found, default=None)


def undone(draft: Draft) -> float | None:
    """When the last fault was gone; None while one still acts."""
    begun = [fault for fault in draft.status.faults if fault.started is not None]
    gone = [fault.recovered_at for fault in begun]
    return max((at for at in gone if at is not None), default=None) if None not in gone else None


def learn(draft: Draft, spec: ProbeBase, probe: ProbeStatus, ok: bool | None, when: Now) -> None:
    """A measurement was judged: what it says about the time points."""
    for fault in draft.status.faults:
        _impact(draft, fault, spec, probe, ok)
    since = effect(draft)
    if since is None:
        return
    status = draft.status
    if status.discovered_at is None and _is(draft.spec.discovery, spec):
        status.discovered_at = _first(spec, probe, ok, since)
        _tell(draft, "discovered", status.discovered_at, since, spec, when)
    before = status.discovered_at if draft.spec.discovery else since
    points = status.points
    if points.located is None and before is not None and _is(draft.spec.location, spec):
        points.located = _first(spec, probe, ok, before)
        _tell(draft, "located", points.located, since, spec, when)
    if points.recovered is None and before is not None and _is(draft.spec.recovery, spec):
        points.recovered = _first(spec, probe, ok, before)
        _tell(draft, "well again", points.recovered, since, spec, when)
    gone = undone(draft)
    told = ok is False and _is(draft.spec.discovery, spec) and awaits_resolution(draft)
    if told and gone is not None:
        status.resolved_at = when.at
        draft.point("resolved", f"{when.at - gone:.1f} s after recovery", spec.name, when)


def _is(moment: Moment | Any, spec: ProbeBase) -> bool:
    return moment is not None and moment.probe == spec.name


def _impact(
    draft: Draft, fault: FaultStatus, spec: ProbeBase, probe: ProbeStatus, ok: bool | None
) -> None:
    acting = lifecycle.in_effect(fault) and fault.effective_at is not None
    if not acting or fault.impact_at is not None or draft.fault_node(fault).impact != spec.name:
        return
    fault.impact_at = _first(spec, probe, ok, fault.effective_at or 0.0)
    if fault.impact_at is not None:
        took = fault.impact_at - (fault.effective_at or 0.0)
        draft.point("impact", f"{spec.name} holds {took:.1f} s after the effect", fault.name)


def _first(spec: ProbeBase, probe: ProbeStatus, ok: bool | None, since: float) -> float | None:
    """The first of the good measurements in a row, once there are enough of them after `since`."""
    if not ok:
        return None
    row: list[float] = []
    for sample in reversed(probe.samples):
        if not sample.ok or sample.at < since:
            break
        row.append(sample.at)
    if len(row) < spec.success_count:
        return None
    # Who was asked may know better since when it is so: an alert, a person.
    told = probe.samples[-1].since
    return row[-1] if told is None else min(row[-1], max(told, since))


def _tell(
    draft: Draft, event: str, at: float | None, since: float, spec: ProbeBase, when: Now
) -> None:
    if at is not None:
        draft.point(event, f"{at - since:.1f} s after the effect", spec.name, when)


def awaits_resolution(draft: Draft) -> bool:
    """Whether everything is undone and what told of it has not been seen to fall silent."""
    status = draft.status
    noticed = status.discovered_at is not None and status.resolved_at is None
    return noticed and status.phase is Phase.COOLDOWN


def complete(draft: Draft) -> bool:
    """Whether the time points that have a limit are there, or it has passed for them."""
    since = effect(draft)
    if since is None:
        return True
    points, spec = draft.status.points, draft.spec
    awaited = [(spec.location, points.located), (spec.recovery, points.recovered)]
    limits = [m.within for m, at in awaited if m is not None and m.within and at is None]
    late = [limit for limit in limits if not _passed(draft, since, limit)]
    return not late


def _passed(draft: Draft, since: float, limit: int) -> bool:
    return draft.due(draft.ns + int((since - draft.now.at) * SECOND) + limit)


# ---------------------------------------------------------------------- the end


def settle(draft: Draft) -> None:
    """Put the points together, judge the expressions over them, and give the score."""
    status, points = draft.status, draft.status.points
    injected = [f.injected_at for f in status.faults if f.injected_at is not None]
    points.injected = min(injected, default=None)
    points.effective = effect(draft)
    hurt = [f.impact_at for f in status.faults if f.impact_at is not None]
    points.impact = min(hurt, default=None)
    points.discovered, points.resolved = status.discovered_at, status.resolved_at
    points.undone = undone(draft)
    points.judged = [_judged(draft, each.name, each.expression) for each in draft.spec.judgements]
    _score(draft)


def _judged(draft: Draft, name: str, text: str) -> Judged:
    try:
        answer = evaluate(text, known(draft))
    except ObserveFailed as error:
        return Judged(name=name, text=text, reason=error.message)
    ok = answer if isinstance(answer, bool) else None
    return Judged(name=name, text=text, ok=ok, reason="" if ok is not None else f"gave {answer!r}")


def known(draft: Draft) -> dict[str, Any]:
    """The points that were reached, as expressions see them."""
    points = draft.status.points
    return {
        name: {}
        if (at := getattr(points, name)) is None
        else {"at": datetime.fromtimestamp(at, UTC)}
        for name in POINTS
    }


def _score(draft: Draft) -> None:
    """Full points within the limit, half within twice the limit, else none; a mean of the lines."""
    spec, points = draft.spec.score, draft.status.points
    if spec is None or points.effective is None:
        return
    lines = (
        ("discovered", spec.discovered, draft.spec.discovery),
        ("located", spec.located, draft.spec.location),
        ("recovered", spec.recovered, draft.spec.recovery),
    )
    scores: list[Scored] = []
    for name, limit, moment in lines:
        at = getattr(points, name)
        took = None if at is None else at - points.effective
        got = 0.0 if took is None else 100.0 if took <= limit.seconds else 50.0
        got = 0.0 if took is not None and took > 2 * limit.seconds else got
        scores.append(
            Scored(
                name=name, limit=limit.seconds, took=took, points=got, measured=moment is not None
            )
        )
    points.scores = scores
    counted = [line.points for line in points.scores if line.measured]
    points.score = sum(counted) / len(counted) if counted else None


def missed(draft: Draft) -> tuple[str, bool]:
    """What was not reached in time or judged false, and whether it is known (else not measured)."""
    since = effect(draft)
    named = (
        ("located", draft.spec.location, draft.status.points.located),
        ("well again", draft.spec.recovery, draft.status.points.recovered),
    )
    for words, moment, at in named:
        if moment is None or moment.within is None or since is None:
            continue
        if at is None:
            return f"it was not {words}: {moment.probe} did not hold within {moment.within}", True
        if at - since > moment.within.seconds:
            took = f"{at - since:.1f} s"
            return f"it was {words} after {took}, expected within {moment.within}", True
    for judged in draft.status.points.judged:
        if judged.ok is False:
            return f"{judged.name} is false: {judged.text}", True
    for judged in draft.status.points.judged:
        if judged.ok is None:
            return f"{judged.name} could not be judged: {judged.reason}", False
    if draft.spec.score is not None and draft.spec.score.required:
        for line in draft.status.points.scores:
            if line.measured and (line.took is None or line.took > line.limit):
                return f"{line.name} later than {line.limit:g} s after the effect", True
    return "", True
