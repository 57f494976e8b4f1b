"""The verdict of a run: one of five, from what was measured alone, and never rounded."""

from __future__ import annotations

from typing import Literal

from faultline.api.probe import ProbeBase
from faultline.api.run import FaultStatus, Phase, ProbeStatus, Verdict
from faultline.engine import lifecycle, timepoints
from faultline.engine.draft import Draft
from faultline.engine.node_ends import WORST, tolerated

Answer = Literal["held", "broke", "not measured"]


def settle(draft: Draft) -> None:
    """Judge every probe, then the run. Done once, when everything is undone."""
    for spec, probe in zip(draft.spec.probes, draft.status.probes, strict=True):
        counted = [sample for sample in probe.samples if sample.counted]
        known = [sample for sample in counted if sample.ok is not None]
        if known:
            probe.held_ratio = sum(1 for sample in known if sample.ok) / len(counted)
        probe.verdict = _probe(draft, spec, probe)
        if not probe.text and probe.verdict != "held":
            probe.text = _told(probe)
    timepoints.settle(draft)
    draft.status.verdict, draft.status.reason = _run(draft)
    if draft.status.verdict not in (Verdict.HELD, Verdict.BROKE):
        draft.status.points.score = None  # without an effect there was nothing to find
    draft.point("verdict", f"{draft.status.verdict}: {draft.status.reason}")


def _told(probe: ProbeStatus) -> str:
    """What a probe without an answer has to say: why it could not look, rather than what it saw."""
    blind = [sample for sample in probe.samples if sample.ok is None and sample.text]
    said = blind if blind and probe.verdict == "not measured" else probe.samples
    return said[-1].text if said else "it was never measured"


def foreseen(draft: Draft) -> tuple[Verdict, str]:
    """What the verdict would be if the run ended now."""
    copy = Draft(draft.run.model_copy(update={"status": draft.status}), draft.now)
    settle(copy)
    return copy.status.verdict or Verdict.ERROR, copy.status.reason


def _probe(draft: Draft, spec: ProbeBase, probe: ProbeStatus) -> Answer:
    if spec.mode in ("continuous", "during"):
        if probe.failed_at is not None:
            return "broke"
        known = any(sample.counted and sample.ok is not None for sample in probe.samples)
        return "held" if known and not probe.blinded else "not measured"
    reached = Phase.INJECTION if spec.mode == "start" else Phase.COOLDOWN
    if not any(phase.phase is reached for phase in draft.status.phases):
        return "not measured"
    if spec.mode == "start":
        return "held" if any(sample.ok for sample in probe.samples) else "not measured"
    if probe.good >= spec.success_count:
        return "held"
    last = [sample.ok for sample in probe.samples if sample.counted][-1:]
    return "broke" if last == [False] and probe.taken > probe.taken_before else "not measured"


def _run(draft: Draft) -> tuple[Verdict, str]:
    status = draft.status
    for fault in status.faults:
        if fault.end is not None and fault.end not in lifecycle.SETTLED:
            return Verdict.ERROR, f"{fault.name} is not undone: {fault.error or fault.end}"
    if status.failures:
        return Verdict.ERROR, status.failures[0].message
    judged = _judged_faults(draft)
    for fault in judged:
        if fault.effect == "ineffective":
            reading = fault.reading or {}
            seen = f"asked {reading.get('asked')}, measured {reading.get('measured')}"
            return (
                Verdict.NOT_EFFECTIVE,
                f"{fault.name} had no effect: {reading.get('reason') or seen}",
            )
    unhurt = [f for f in judged if draft.fault_node(f).impact and f.impact_at is None]
    begun = [fault for fault in judged if fault.started is not None]
    blind = [fault.name for fault in begun or judged if fault.effect != "effective"]
    if blind:
        why = status.stopped or "the effect could not be measured"
        return Verdict.NOT_MEASURED, f"{', '.join(blind)}: {why}"
    if unhurt:
        probe = draft.fault_node(unhurt[0]).impact
        return Verdict.NOT_EFFECTIVE, f"no impact: {probe} never held while {unhurt[0].name} acted"
    return _failed_node(draft) or _hypothesis(draft)


def _judged_faults(draft: Draft) -> list[FaultStatus]:
    """The faults that count: of a node the last attempt, unless the run goes on without it."""
    found: dict[str, FaultStatus] = {}
    for fault in draft.status.faults:
        node = draft.node(fault.node) if fault.node else None
        if node is None:
            found[fault.name] = fault
        elif node.type == "fault" and not tolerated(draft, node):
            part = fault.name.partition(".t")[2]  # of several targets each counts
            found[f"node {fault.node} {part}"] = fault
    return list(found.values())


def _failed_node(draft: Draft) -> tuple[Verdict, str] | None:
    failed = [
        node
        for node in draft.status.nodes
        if node.outcome == "failed" and not draft.inner(node.name) and not tolerated(draft, node)
    ]
    if not failed:
        return None
    worst = min(failed, key=lambda node: WORST.index(node.verdict or "error"))
    return Verdict(worst.verdict or "error"), f"{worst.name}: {worst.text}"


def _hypothesis(draft: Draft) -> tuple[Verdict, str]:
    probes = {probe.name: probe for probe in draft.status.probes}
    asked = [probes[name] for name in draft.spec.hypothesis.probes]
    for probe in asked:
        if probe.verdict == "broke":
            return (
                Verdict.BROKE,
                f"{probe.name} did not hold{f': {probe.text}' if probe.text else ''}",
            )
    if draft.status.stopped:
        return Verdict.NOT_MEASURED, f"ended early: {draft.status.stopped}"
    late = _not_discovered(draft) or _not_resolved(draft)
    missing, judged = (late, True) if late else timepoints.missed(draft)
    if missing and judged:
        return Verdict.BROKE, missing
    for probe in asked:
        if probe.verdict != "held":
            return Verdict.NOT_MEASURED, f"{probe.name} was not measured: {probe.text}"
    unsteady = _not_steady_again(draft, probes)
    if unsteady is not None:
        return unsteady
    if missing:
        return Verdict.NOT_MEASURED, missing
    return Verdict.HELD, draft.spec.hypothesis.text


def _not_steady_again(draft: Draft, probes: dict[str, ProbeStatus]) -> tuple[Verdict, str] | None:
    for name in draft.spec.steady_state:
        probe = probes[name]
        last = probe.samples[-1].ok if probe.samples else None
        if probe.taken == probe.taken_before or last is None:
            return Verdict.NOT_MEASURED, f"after recovery {name} was not measured: {probe.text}"
        if not last:
            return (
                Verdict.BROKE,
                f"after recovery {name} did not hold again: {probe.samples[-1].text}",
            )
    return None


def _not_discovered(draft: Draft) -> str:
    discovery = draft.spec.discovery
    if discovery is None or discovery.within is None:
        return ""
    found = draft.status.discovered_at
    if found is None:
        return f"it was not discovered: {discovery.probe} never held"
    took = found - (timepoints.effect(draft) or found)
    if took > discovery.within.seconds:
        return f"it was discovered after {took:.1f} s, expected within {discovery.within}"
    return ""


def _not_resolved(draft: Draft) -> str:
    discovery, status = draft.spec.discovery, draft.status
    if discovery is None or discovery.resolved_within is None or status.discovered_at is None:
        return ""
    if status.resolved_at is None:
        return f"after recovery {discovery.probe} went on to hold"
    took = status.resolved_at - (timepoints.undone(draft) or status.resolved_at)
    if took > discovery.resolved_within.seconds:
        limit = discovery.resolved_within
        return f"{discovery.probe} held for {took:.1f} s after recovery, expected within {limit}"
    return ""
