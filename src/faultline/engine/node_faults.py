"""Nodes that are faults: a fault of the run for each of their targets, and one answer of all."""

from __future__ import annotations

from typing import Any

from faultline.api.graph import FaultStep, NodeBase
from faultline.api.graph_status import Answer, NodeState, NodeStatus
from faultline.api.run import FaultStatus, Stage
from faultline.engine import lifecycle
from faultline.engine.asked import parts
from faultline.engine.draft import Draft
from faultline.engine.node_ends import (
    WORST,
    cancelled,
    doom,
    end,
    end_aborted,
    end_failed,
    tries_left,
)


def begin(draft: Draft, step: FaultStep, node: NodeStatus) -> None:
    """A new attempt: a fault for each of its targets."""
    number = len(node.attempts)
    name = step.name if number == 1 else f"{step.name}_{number}"
    wanted = parts(name, draft.choice(step.name))
    node.mark = len(wanted)
    for part, aim in wanted:
        lifecycle.add(draft, part, step.fault, step.params, step.name, aim)


def run(draft: Draft, step: FaultStep, node: NodeStatus) -> None:
    """Of several targets all have to come to what one has to; the gravest answer counts."""
    faults = [each for each in draft.status.faults if each.node == node.name][-max(node.mark, 1) :]
    given_up = cancelled(draft, node)
    failed = [f for f in faults if f.effect in ("ineffective", "unmeasured") or f.failure]
    for fault in faults:
        if (given_up or node.finish or failed) and fault.stage is not Stage.ENDED:
            fault.finish = True
    if all(fault.stage is Stage.ENDED for fault in faults):
        _fault_ended(draft, step, node, faults)
    elif failed:
        verdict, text, fault = _gravest(step, failed)
        if not given_up and not tries_left(step, node) and node.verdict is None:
            node.verdict, node.text = verdict, text
            if verdict == "error" and fault.failure and not _borne(draft, step, node):
                draft.fail(fault.failure, fault.name)
            doom(draft, step, node)
    elif (
        step.background
        and node.state is NodeState.RUNNING
        and all(fault.stage.rank >= Stage.MEASURED.rank for fault in faults)
    ):
        node.state = NodeState.RELEASED
        node.output = _output(faults)
        draft.point("released", "it acts; what follows begins", node.name)


def _borne(draft: Draft, step: NodeBase, node: NodeStatus) -> bool:
    return step.continue_on_failure or any(
        draft.step_of(each.name).continue_on_failure for each in draft.holders(node)
    )


def _fault_ended(
    draft: Draft, step: FaultStep, node: NodeStatus, faults: list[FaultStatus]
) -> None:
    node.output = _output(faults)
    verdict, text, _ = _gravest(step, faults)
    unhurt = all(fault.failure is None and fault.effect is None for fault in faults)
    if node.cancelled and (verdict == "held" or unhurt):
        end_failed(draft, step, node, "error", node.cancelled)
    elif verdict == "held":
        end(draft, node, "held", text)
    elif cancelled(draft, node) and unhurt:
        end_aborted(draft, node)
    else:
        end_failed(draft, step, node, verdict, text)


def _gravest(step: FaultStep, faults: list[FaultStatus]) -> tuple[Answer, str, FaultStatus]:
    """The answer of the worst of them, with its target where there are several."""
    answers = [(*_fault_answer(step, fault), fault) for fault in faults]
    verdict, text, fault = min(answers, key=lambda each: WORST.index(each[0]))
    if len(faults) > 1 and fault.aim is not None and text:
        text = f"{fault.aim.words}: {text}"
    return verdict, text, fault


def _fault_answer(step: FaultStep, fault: FaultStatus) -> tuple[Answer, str]:
    if fault.end == lifecycle.PERSON:
        return "error", f"it is not undone: {fault.error or fault.end}"
    if fault.failure is not None or fault.error:
        return "error", fault.error
    if fault.effect == "effective":
        if step.impact and fault.impact_at is None and fault.stage is Stage.ENDED:
            return "not effective", f"no impact: {step.impact} never held while it acted"
        return "held", ""
    reading = fault.reading or {}
    why = str(reading.get("reason") or f"measured {reading.get('measured') or 'nothing'}")
    return ("not effective" if fault.effect == "ineffective" else "not measured"), why


def _output(faults: list[FaultStatus]) -> dict[str, Any]:
    """What expressions can use: of several targets that of the first, and each by itself."""
    if len(faults) == 1:
        return _output_of(faults[0])
    each = [
        {"target": fault.aim.words if fault.aim else "", **_output_of(fault)} for fault in faults
    ]
    return {**_output_of(faults[0]), "targets": each}


def _output_of(fault: FaultStatus) -> dict[str, Any]:
    reading = fault.reading or {}
    return {
        "effect": fault.effect or "",
        "asked": reading.get("asked", ""),
        "measured": reading.get("measured", ""),
        "values": reading.get("values", {}),
        "impact": fault.impact_at is not None,
        "end": fault.end or "",
    }
