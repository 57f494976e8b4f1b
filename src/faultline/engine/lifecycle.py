"""One fault of a run, from waiting to its proven end: one small step at a time, never backwards."""

from __future__ import annotations

from typing import Any

from faultline.api.experiment import FaultNode
from faultline.api.run import ActionStatus, Failure, FaultStatus, Phase, Stage
from faultline.api.selector import Chosen
from faultline.engine.draft import Draft
from faultline.engine.model import MARGIN, SECOND, Do, Injected, Recovered, Result, fault_uid
from faultline.injection.reading import Effect, Reading

OBSERVE_PAUSE = SECOND // 4
"""Between two measurements of an effect that is not there yet."""
RECOVER_PAUSE = SECOND
"""Before undoing is tried again; doubled each time."""
TRIES_FOR_A_PERSON = 3
"""How often an undo that asks for a person is tried before one is called."""

SETTLED = ("recovered", "nothing to undo", "target gone")
PERSON = "needs a person"


def step(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    """Move one fault on as far as it goes now."""
    before: Stage | None = None
    while before is not fault.stage:
        before = fault.stage
        _STEPS[fault.stage](draft, node, fault)


def add(
    draft: Draft,
    name: str,
    fault: str,
    params: dict[str, Any],
    node: str,
    aim: Chosen | None = None,
) -> None:
    """Begin a fault of a node; its name is its own among all attempts and trials of the run."""
    uid = fault_uid(draft.run.metadata.uid, name)
    status = FaultStatus(name=name, fault=fault, uid=uid, params=params, node=node, aim=aim)
    draft.status.faults.append(status)
    _inject(draft, draft.fault_node(status), status)


def _waiting(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    if _over(draft, fault):
        draft.advance(fault, Stage.ENDED)
        return
    began = draft.status.injection_ns
    if began is None or draft.paused or not draft.due(began + node.start):
        return
    _inject(draft, node, fault)


def _over(draft: Draft, fault: FaultStatus) -> bool:
    return bool(draft.status.stopped) or fault.finish


def _inject(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    draft.advance(fault, Stage.INJECTING)
    fault.started = draft.now.at
    # Until the journal says better: the latest moment at which it can still be there.
    fault.deadline_ns = draft.ns + draft.spec.timeouts.injection + node.duration + MARGIN
    draft.ask(f"inject/{node.name}", Do.INJECT, node.name)
    draft.point("injecting", f"{node.fault} for {node.duration}", node.name)


def _injecting(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    asked = draft.find(f"inject/{node.name}")
    if _over(draft, fault):
        draft.advance(fault, Stage.RECOVERING)
    elif asked and draft.due(draft.since(asked.started_ns) + draft.spec.timeouts.injection):
        fault.error = f"{node.name} was not injected within {draft.spec.timeouts.injection}"
        _not_injected(draft, fault, Failure(code="timeout", message=fault.error), fault.error)


def _not_injected(draft: Draft, fault: FaultStatus, failure: Failure, why: str) -> None:
    """Without a node that fault ends the run; a node decides for itself what it means."""
    if fault.node:
        fault.failure, fault.finish = failure, True
        draft.point("error", failure.message, fault.name)
    else:
        draft.fail(failure, fault.name)
        draft.stop(why)


def _active(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    injected = draft.find(f"inject/{node.name}")
    start = (injected.ended_ns if injected else None) or draft.ns
    if _over(draft, fault) or draft.due(fault.ends_ns or draft.ns):
        _settle_effect(draft, fault)
        draft.advance(fault, Stage.RECOVERING)
        return
    looks = draft.attempts(Do.OBSERVE, node.name)
    looking = bool(looks) and looks[-1].ended_ns is None
    if draft.due(draft.since(start) + draft.spec.timeouts.effect) and looks and not looking:
        _settle_effect(draft, fault)
        draft.advance(fault, Stage.MEASURED)
        fault.finish = bool(fault.node)
        if not fault.node:
            draft.stop(f"{node.name}: the effect is {fault.effect}{_because(fault)}")
    elif not looking and (not looks or draft.due((looks[-1].ended_ns or 0) + OBSERVE_PAUSE)):
        draft.ask(f"observe/{node.name}/{len(looks) + 1}", Do.OBSERVE, node.name)


def _settle_effect(draft: Draft, fault: FaultStatus) -> None:
    """The answer is that of the last measurement; without one it is `unmeasured`."""
    if fault.effect is None:
        fault.effect = "unmeasured"
        without = (Effect.INEFFECTIVE, Effect.ABOVE)  # measured, and not by our doing
        if fault.reading is not None and fault.reading["effect"] in without:
            fault.effect = "ineffective"
        draft.point("not effective", f"effect: {fault.effect}{_because(fault)}", fault.name)


def _because(fault: FaultStatus) -> str:
    if fault.reading is None:
        return " (there was no time to measure it)"
    return f" ({fault.reading['reason']})" if fault.reading["reason"] else ""


def _measured(draft: Draft, _node: FaultNode, fault: FaultStatus) -> None:
    if _over(draft, fault) or draft.due(fault.ends_ns or draft.ns):
        draft.advance(fault, Stage.RECOVERING)


def _recovering(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    if fault.recovery_started is None:
        fault.recovery_started = draft.now.at
        draft.point("recovering", "undoing", node.name)
    tries = draft.attempts(Do.RECOVER, node.name)
    if not tries:
        _undo(draft, node)
    elif _given_up(draft, node, fault, tries):
        _hand_over(draft, fault, "it could not be undone in time")
    elif tries[-1].ended_ns is None:
        return
    elif fault.again:
        fault.again, fault.end = False, None
        _undo(draft, node)
    elif fault.end in SETTLED:
        if not _injection_is_open(draft, node):
            draft.advance(fault, Stage.CHECKING)
    elif _paused(draft, tries):
        _undo(draft, node)


def _checking(draft: Draft, node: FaultNode, fault: FaultStatus) -> None:
    if fault.again:
        # An injection that nobody waited for any more came through after all.
        fault.again = False
        _undo(draft, node)
    tries = draft.attempts(Do.RECOVER, node.name)
    looks = draft.attempts(Do.RESIDUE, node.name)
    if _given_up(draft, node, fault, tries):
        left = f"still there: {', '.join(fault.residue)}" if fault.residue else ""
        _hand_over(draft, fault, left or "it could not be checked in time")
    elif tries[-1].ended_ns is None:
        return
    elif not looks or not draft.in_order(tries[-1], looks[-1]):
        draft.ask(f"residue/{node.name}/{len(looks) + 1}", Do.RESIDUE, node.name)
    elif looks[-1].ended_ns is None:
        return
    elif looks[-1].error:
        if _paused(draft, looks):
            draft.ask(f"residue/{node.name}/{len(looks) + 1}", Do.RESIDUE, node.name)
    elif fault.residue or fault.end not in SETTLED:
        if _paused(draft, tries):
            _undo(draft, node)
    else:
        draft.point("recovered", f"{fault.end}: nothing of it is left", node.name)
        draft.advance(fault, Stage.ENDED)


def _undo(draft: Draft, node: FaultNode) -> None:
    number = len(draft.attempts(Do.RECOVER, node.name)) + 1
    draft.ask(f"recover/{node.name}/{number}", Do.RECOVER, node.name)


def _paused(draft: Draft, tries: list[ActionStatus]) -> bool:
    """Whether it is time to try once more; each pause is twice the one before."""
    pause = RECOVER_PAUSE << min(len(tries) - 1, 4)
    return draft.due((tries[-1].ended_ns or 0) + pause)


def _injection_is_open(draft: Draft, node: FaultNode) -> bool:
    inject = draft.find(f"inject/{node.name}")
    return inject is not None and inject.ended_ns is None


def _given_up(draft: Draft, node: FaultNode, fault: FaultStatus, tries: list[ActionStatus]) -> bool:
    """When nothing more is to be expected of us; the keepers go on until the fault's deadline."""
    if fault.end == PERSON and len(tries) >= TRIES_FOR_A_PERSON and tries[-1].ended_ns is not None:
        return True
    until = draft.since(tries[0].started_ns) + draft.spec.timeouts.recovery
    if _injection_is_open(draft, node):
        until = max(until, fault.deadline_ns or 0)
    return draft.due(until)


def _hand_over(draft: Draft, fault: FaultStatus, why: str) -> None:
    fault.end = PERSON
    fault.error = fault.error or why
    fault.recovered_at = None
    draft.point("recovery incomplete", f"{why}: faultline recover {fault.uid}", fault.name)
    draft.advance(fault, Stage.ENDED)


def _ended(_draft: Draft, _node: FaultNode, _fault: FaultStatus) -> None:
    """Nothing follows."""


_STEPS = {
    Stage.WAITING: _waiting,
    Stage.INJECTING: _injecting,
    Stage.ACTIVE: _active,
    Stage.MEASURED: _measured,
    Stage.RECOVERING: _recovering,
    Stage.CHECKING: _checking,
    Stage.ENDED: _ended,
}


# ---------------------------------------------------------------------- results


def injected(draft: Draft, node: FaultNode, fault: FaultStatus, result: Result) -> None:
    """An injection came back."""
    late = fault.stage.rank > Stage.INJECTING.rank
    if late:
        fault.again = True  # whatever it says: it may have come into being after it was undone
    if result.error is not None:
        fault.error = result.error.message
        why = f"{fault.name} could not be injected: {result.error.message}"
        _not_injected(draft, fault, result.error, why)
    if not isinstance(result.answer, Injected):
        if not late:
            if not fault.node:
                draft.stop(f"{fault.name} could not be injected")
            draft.advance(fault, Stage.RECOVERING)
        return
    answer = result.answer
    fault.changes = answer.changes or fault.changes
    fault.target = answer.target or fault.target
    fault.injected_at = fault.injected_at or result.now.at
    fault.deadline_ns = answer.deadline_ns
    fault.ends_ns = min(draft.ns + node.duration, answer.deadline_ns)
    if answer.ended and answer.adopted:
        fault.ends_ns = draft.ns
        draft.point("ended", "it had ended while no engine was running", fault.name)
    elif answer.adopted:
        fault.ends_ns = min(fault.ends_ns, answer.deadline_ns - MARGIN)
        draft.point("adopted", "it is in effect since before the engine died", fault.name)
    else:
        draft.point(
            "injected", "; ".join(c.describe for c in answer.changes), fault.name, result.now
        )
    if not late:
        draft.advance(fault, Stage.ACTIVE)


def observed(draft: Draft, fault: FaultStatus, result: Result) -> None:
    """A measurement of an effect came back; after the answer is settled it is too late."""
    if fault.stage is not Stage.ACTIVE:
        return
    reading = result.answer
    if not isinstance(reading, Reading):
        why = result.error.message if result.error else "the measurement gave nothing"
        reading = Reading.unmeasured(fault.fault, "", why)
    fault.reading = reading.to_json() | {"effect": str(reading.effect)}
    if reading.effect is Effect.EFFECTIVE:
        fault.effect = "effective"
        fault.effective_at = result.now.at
        text = f"asked {reading.asked}, measured {reading.measured}"
        draft.point("effective", text, fault.name, result.now)
        draft.advance(fault, Stage.MEASURED)


def recovered(draft: Draft, fault: FaultStatus, result: Result) -> None:
    """An undo came back."""
    if fault.stage is Stage.ENDED:
        return  # a person was called already; the engine has not seen that it is gone
    if result.error is not None:
        fault.error = fault.error or result.error.message
        draft.point("undo failed", result.error.message, fault.name, result.now)
    if isinstance(result.answer, Recovered):
        fault.end = result.answer.end
        fault.changes = result.answer.changes or fault.changes
        if fault.end == PERSON:
            draft.point("recovery incomplete", result.answer.note, fault.name, result.now)
        elif result.answer.note:
            draft.point("undone", result.answer.note, fault.name, result.now)


def looked(draft: Draft, fault: FaultStatus, result: Result) -> None:
    """A look for what is left came back."""
    if fault.stage is Stage.ENDED:
        return
    if isinstance(result.answer, tuple):
        fault.residue = list(result.answer)
        fault.recovered_at = None if fault.residue else result.now.at
    elif result.error is not None:
        draft.point("check failed", result.error.message, fault.name, result.now)


def all_past(draft: Draft, stage: Stage) -> bool:
    """Whether every fault has come to this stage."""
    return all(fault.stage.rank >= stage.rank for fault in draft.status.faults)


def in_effect(fault: FaultStatus) -> bool:
    """Whether a fault is known to act now."""
    return fault.stage is Stage.MEASURED and fault.effect == "effective"


def phase_of(draft: Draft) -> Phase:
    """The phase of a run whose injection has begun: that of its slowest fault."""
    for stage, phase in (
        (Stage.ENDED, Phase.COOLDOWN),
        (Stage.CHECKING, Phase.PROOF),
        (Stage.RECOVERING, Phase.RECOVERY),
        (Stage.MEASURED, Phase.WAIT),
        (Stage.ACTIVE, Phase.EFFECT),
    ):
        if all_past(draft, stage):
            return phase
    return Phase.RECOVERY if draft.status.stopped else Phase.INJECTION
