"""The node that searches: one trial after the other, each with a fault of its own. Pure.

A trial begins with its fault, waits until the effect is measured and the warm-up is over, and ends
when the probes have held throughout, or as soon as one is broken: nobody is hurt for longer than
the answer takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from faultline.api.graph import SearchStep
from faultline.api.graph_status import Answer, NodeStatus
from faultline.api.probe import ProbeBase
from faultline.api.run import FaultStatus, Sample, Stage
from faultline.api.search import SearchResult, SearchState
from faultline.engine import lifecycle, seeds
from faultline.engine.asked import parts, whole
from faultline.engine.draft import Draft
from faultline.engine.node_ends import cancelled, end, end_aborted, end_failed
from faultline.engine.search import trials
from faultline.engine.search.trials import Answer as Said

_VERDICTS: dict[str, Answer | None] = {
    "found": "held",
    "all borne": "held",
    "none borne": "broke",
    "open": None,
    "contradicted": "not measured",
    "not measured": "not measured",
}


def begin(draft: Draft, step: SearchStep, node: NodeStatus) -> None:
    spec = step.search
    if spec.seed is None:
        drawn = seeds.derived(draft.run.spec.seed, "search", node.name)
        spec = spec.model_copy(update={"seed": drawn})
    node.search = trials.begin(spec)


def run(draft: Draft, step: SearchStep, node: NodeStatus) -> None:
    """Move the present trial on, or begin the next."""
    state = node.search or trials.begin(step.search)
    made = _made(draft, node)
    last = made[-1] if made else []
    if any(each.stage is not Stage.ENDED for each in last):
        _trial(draft, step, node, last)
        return
    why = cancelled(draft, node)
    if not why and len(made) > len(state.trials):
        state = node.search = _record(draft, step, state, last)
        node.due_ns = draft.ns + step.search.cooldown
        node.output = _output(trials.result(state))
    if why:
        _given_up(draft, step, node, why)
    elif state.result is not None:
        _conclude(draft, step, node, state.result)
    elif not draft.paused and draft.due(node.due_ns or draft.ns):
        _next(draft, step, node, state)


def _made(draft: Draft, node: NodeStatus) -> list[list[FaultStatus]]:
    """The faults of each trial that has begun: one for each target."""
    faults = [each for each in draft.status.faults if each.node == node.name]
    return [[*group] for _, group in groupby(faults, lambda each: whole(each.name))]


def _next(draft: Draft, step: SearchStep, node: NodeStatus, state: SearchState) -> None:
    trial = trials.next_trial(state)
    if trial is None:
        _conclude(draft, step, node, trials.result(state))
        return
    node.mark = 0
    params = step.search.params_with(step.fault.params, trial.value)
    text = f"{trial.number}: {step.search.parameter_name} {trial.value}"
    draft.point("trial", text, node.name)
    for part, aim in parts(f"{step.name}_{trial.number}", draft.choice(step.name)):
        lifecycle.add(draft, part, step.fault.fault, params, step.name, aim)


# ---------------------------------------------------------------------- one trial


def _trial(draft: Draft, step: SearchStep, node: NodeStatus, faults: Sequence[FaultStatus]) -> None:
    """On all targets at once; if it fails on one, it is over on the others."""
    over = bool(cancelled(draft, node)) or any(_answerless(each) for each in faults)
    if not over and all(lifecycle.in_effect(each) for each in faults):
        node.mark = node.mark or draft.ns
        enough = node.mark + step.search.warmup + step.search.hold
        broken = any(_broken(spec, samples) for spec, samples in _seen(draft, step, faults))
        over = broken or draft.due(enough)
    for each in faults:
        each.finish = each.finish or over


def _answerless(fault: FaultStatus) -> bool:
    return fault.failure is not None or fault.effect in ("ineffective", "unmeasured")


def _seen(
    draft: Draft, step: SearchStep, faults: Sequence[FaultStatus]
) -> list[tuple[ProbeBase, list[Sample]]]:
    """The samples of each probe that count for a trial: while it acted on all targets."""
    begin = max(each.effective_at or 0.0 for each in faults) + step.search.warmup.seconds
    until = min(each.recovery_started or draft.now.at for each in faults)
    return [
        (spec, [s for s in draft.probe(spec.name).samples if begin <= s.at <= until])
        for spec in draft.spec.probes
        if spec.name in step.search.probes
    ]


def _broken(spec: ProbeBase, samples: list[Sample]) -> bool:
    bad = 0
    for sample in samples:
        bad = bad + 1 if sample.ok is False else 0
        if bad >= spec.failure_count:
            return True
    return False


def _record(
    draft: Draft, step: SearchStep, state: SearchState, faults: Sequence[FaultStatus]
) -> SearchState:
    trial = trials.next_trial(state)
    if trial is None:
        return state
    said, text, broken = _outcome(draft, step, faults)
    draft.point("trial", f"{trial.number}: {said}{f': {text}' if text else ''}", step.name)
    began = [each.started for each in faults if each.started is not None]
    took = draft.now.at - min(began, default=draft.now.at)
    return trials.record(
        state, trial, said, seconds=max(0.0, took) + step.search.cooldown.seconds,
        broken=broken, text=text,
    )  # fmt: skip


def _outcome(
    draft: Draft, step: SearchStep, faults: Sequence[FaultStatus]
) -> tuple[Said, str, float | None]:
    """What a trial said, why, and for how many seconds the probes were broken."""
    for fault in sorted(faults, key=lambda each: each.failure is None):
        if fault.failure is None and fault.effect == "effective":
            continue
        reading = fault.reading or {}
        why = str(reading.get("reason") or f"effect: {fault.effect}")
        told = fault.failure.message if fault.failure is not None else why
        where = f"{fault.aim.words}: " if len(faults) > 1 and fault.aim is not None else ""
        return "no answer", f"{where}{told}", 0.0
    blind = ""
    for spec, samples in _seen(draft, step, faults):
        if _broken(spec, samples):
            last = next(s for s in reversed(samples) if s.ok is False)
            bad = sum(1 for s in samples if s.ok is False)
            return "broke", f"{spec.name}: {last.text}", bad * spec.interval.seconds
        if not any(sample.ok for sample in samples):
            blind = f"{spec.name} was not measured"
    return ("no answer", blind, 0.0) if blind else ("held", "", None)


# ---------------------------------------------------------------------- the end


def _conclude(draft: Draft, step: SearchStep, node: NodeStatus, result: SearchResult) -> None:
    node.output = _output(result)
    if node.search is not None and node.search.result is None:
        node.search = node.search.model_copy(update={"result": result})
    verdict = _VERDICTS[result.answer]
    if verdict in ("held", None):
        end(draft, node, verdict, result.text)
    else:
        end_failed(draft, step, node, verdict, result.text, retried=False)


def _given_up(draft: Draft, step: SearchStep, node: NodeStatus, why: str) -> None:
    if node.cancelled:
        end_failed(draft, step, node, "error", why, retried=False)
    else:
        end_aborted(draft, node)


def _output(result: SearchResult) -> dict[str, object]:
    return {
        "answer": result.answer,
        "borne": result.borne,
        "notBorne": result.not_borne,
        "estimate": result.estimate,
        "pinned": result.pinned,
        "trials": result.trials,
        "text": result.text,
    }
