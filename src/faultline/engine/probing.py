"""When probes are measured, which measurements count, and what they say."""

from __future__ import annotations

import statistics

from faultline.api.admission import needs_initial
from faultline.api.expectation import judge
from faultline.api.probe import Measurement, ProbeBase, TrafficProbe
from faultline.api.run import Phase, ProbeStatus, Sample, Stage
from faultline.engine import budgets, lifecycle, timepoints
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Action, Do, Now, Result
from faultline.units import Duration

GRACE = SECOND
"""How much later than its time-out the answer of a probe is given up."""
SETTLING = 3 * SECOND
"""How long traffic that is taken up again needs until it has figures; its probes wait for that."""


def timeout_of(draft_guards: list[str], spec: ProbeBase) -> Duration:
    """How long one measurement may take: a guard has to answer within its interval."""
    return min(spec.timeout, spec.interval) if spec.name in draft_guards else spec.timeout


def wanted(draft: Draft, spec: ProbeBase) -> bool:
    """Whether this probe is measured in the present phase."""
    phase = draft.status.phase
    if phase.rank < Phase.STEADY.rank or phase.rank >= Phase.VERDICT.rank:
        return False
    if spec.name in draft.spec.steady_state and phase in (Phase.STEADY, Phase.COOLDOWN):
        return True
    if draft.status.nodes and spec.name in draft.asked_probes():
        return True
    if spec.mode == "start":
        return phase is Phase.STEADY
    if spec.mode == "end" or (spec.mode == "edge" and phase is not Phase.STEADY):
        return phase is Phase.COOLDOWN or spec.name in draft.spec.guards
    return True


def schedule(draft: Draft) -> list[Action]:
    """The measurements that should be under way now."""
    actions: list[Action] = []
    for spec, probe in zip(draft.spec.probes, draft.status.probes, strict=True):
        if not wanted(draft, spec):
            probe.due_ns = probe.asked_ns = None
            continue
        if probe.asked_ns is not None:
            limit = timeout_of(budgets.watched(draft.spec), spec) + GRACE
            if draft.due(probe.asked_ns + limit):
                _take(draft, spec, probe, Measurement(text="no answer in time"), draft.now)
                _guard(draft, spec, probe)
        if probe.asked_ns is None and draft.due(probe.due_ns or draft.ns):
            due = probe.due_ns or draft.ns
            # On the beat, and without catching up on what was missed.
            probe.due_ns = due + spec.interval * max(1, -(-(draft.ns - due) // spec.interval))
            probe.asked_ns = draft.ns
            limit = timeout_of(budgets.watched(draft.spec), spec) + GRACE
            draft.due(probe.asked_ns + limit)
        if probe.asked_ns is not None:
            actions.append(Action(f"probe/{spec.name}/{probe.taken}", Do.PROBE, spec.name))
    return actions


def measured(draft: Draft, result: Result) -> None:
    """A measurement came back; one that nobody waits for any more is dropped."""
    _, name, number = result.id.split("/")
    for spec, probe in zip(draft.spec.probes, draft.status.probes, strict=True):
        if spec.name == name and probe.asked_ns is not None and int(number) == probe.taken:
            answer = result.answer
            if not isinstance(answer, Measurement):
                answer = Measurement(text=result.error.message if result.error else "no answer")
            _take(draft, spec, probe, answer, result.now)
            _guard(draft, spec, probe)


def _take(draft: Draft, spec: ProbeBase, probe: ProbeStatus, found: Measurement, when: Now) -> None:
    ok, text = found.ok, found.text
    before_initial = probe.initial is None and needs_initial(spec)
    if ok and not before_initial:
        judged = judge(spec.expect, spec.value_unit(), found.value, found.result, probe.initial)
        ok = judged.ok
        text = "; ".join(filter(None, (text, "" if ok else judged.text)))
    counted = _counts(draft, spec) and not before_initial
    probe.samples.append(
        Sample(
            at=when.at,
            value=found.value,
            ok=ok,
            latency=found.latency,
            text=text,
            counted=counted,
            since=found.since,
        )
    )
    probe.taken += 1
    probe.asked_ns = None
    probe.kept = found.keep or probe.kept
    probe.good = probe.good + 1 if ok else 0
    timepoints.learn(draft, spec, probe, ok, when)
    budgets.sampled(draft, spec.name, probe.samples[-1], when)
    if counted:
        _streaks(draft, spec, probe, ok, text, when)


def _counts(draft: Draft, spec: ProbeBase) -> bool:
    phase = draft.status.phase
    if spec.name in draft.tried_probes():
        return False  # the search hurts them on purpose, and judges them itself
    if spec.mode == "during":
        return any(lifecycle.in_effect(fault) for fault in draft.status.faults)
    if spec.mode == "continuous":
        return phase.rank >= Phase.INJECTION.rank
    return phase in (Phase.STEADY, Phase.COOLDOWN)


def _streaks(
    draft: Draft, spec: ProbeBase, probe: ProbeStatus, ok: bool | None, text: str, when: Now
) -> None:
    probe.bad = probe.bad + 1 if ok is False else 0
    probe.blind = probe.blind + 1 if ok is None else 0
    if spec.mode not in ("continuous", "during"):
        return
    if probe.bad >= spec.failure_count and probe.failed_at is None:
        probe.failed_at = when.at
        probe.text = text
        draft.point("probe failed", text, spec.name, when)
    if probe.blind >= spec.blind_count and not probe.blinded:
        probe.blinded = True
        probe.text = probe.text or text
        draft.point("probe blind", text, spec.name, when)


def _guard(draft: Draft, spec: ProbeBase, probe: ProbeStatus) -> None:
    """A guard is armed while there is something to undo. Not knowing is as bad as failing."""
    armed = any(
        Stage.WAITING.rank < fault.stage.rank < Stage.RECOVERING.rank
        for fault in draft.status.faults
    )
    if spec.name not in draft.spec.guards or not armed:
        return
    last = probe.samples[-1]
    probe.alarm = 0 if last.ok else probe.alarm + 1
    if probe.alarm >= spec.failure_count:
        how = "failed" if last.ok is False else "could not be measured"
        draft.abort("guard", f"guard {spec.name} {how}{f': {last.text}' if last.text else ''}")


# ---------------------------------------------------------------------- phases


def gate(draft: Draft, after: bool) -> list[str]:
    """The probes that must hold before the faults (or after recovery) and do not yet."""
    names = set[str](draft.spec.steady_state)
    if not after:
        names |= set(draft.spec.guards)
    modes = ("edge", "end") if after else ("edge", "start", "continuous")
    for spec in draft.spec.probes:
        if spec.name in draft.spec.hypothesis.probes and spec.mode in modes:
            names.add(spec.name)
    return [
        spec.name
        for spec, probe in zip(draft.spec.probes, draft.status.probes, strict=True)
        if spec.name in names and wanted(draft, spec) and probe.good < spec.success_count
    ]


def exhausted(draft: Draft, names: list[str]) -> bool:
    """Whether a probe that does not hold has had all the measurements that it may have."""
    return any(
        spec.count is not None and spec.name in names and _since_edge(probe) >= spec.count
        for spec, probe in zip(draft.spec.probes, draft.status.probes, strict=True)
    )


def _since_edge(probe: ProbeStatus) -> int:
    return probe.taken - probe.taken_before


def begin_edge(draft: Draft) -> None:
    """Begin to count anew: what held before says nothing about what follows."""
    for probe in draft.status.probes:
        probe.good = probe.bad = probe.blind = 0
        probe.taken_before = probe.taken


def settle_initial(draft: Draft) -> None:
    """The value before the fault: the median of everything undisturbed."""
    for probe in draft.status.probes:
        values = [s.value for s in probe.samples if s.value is not None and s.ok is not None]
        if values:
            probe.initial = statistics.median(values)


def note_gap(draft: Draft) -> None:
    """Nobody measured while the engine was dead: that is blindness, not silence."""
    for spec, probe in zip(draft.spec.probes, draft.status.probes, strict=True):
        late = draft.ns - probe.due_ns if probe.due_ns is not None else 0
        missed = late // spec.interval
        probe.asked_ns = probe.due_ns = None
        if missed > 0 and wanted(draft, spec):
            # The number of the measurement under way is spent: nobody will see its answer.
            probe.blind += missed - 1
            _take(draft, spec, probe, Measurement(text="no engine was running"), draft.now)
        if isinstance(spec, TrafficProbe):
            # A guard that asks too early would undo every fault that was taken up again.
            probe.due_ns = draft.ns + SETTLING
