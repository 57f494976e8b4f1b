"""What the conditions of a graph see, and their truth: results so far, probes, parameters."""

from __future__ import annotations

from typing import Any

from faultline.api.expansion import lookup, suffix_of
from faultline.api.expectation import evaluate
from faultline.api.graph import SerialStep
from faultline.api.graph_status import NodeStatus
from faultline.engine.draft import Draft
from faultline.errors import ObserveFailed


def truth(draft: Draft, text: str, name: str) -> tuple[bool | None, str]:
    """Whether a condition is true where the node `name` stands; None and the reason if it has no
    answer.
    """
    suffix = suffix_of(name)
    step = draft.step_of(name)
    if not suffix and isinstance(step, SerialStep) and step.nodes:
        suffix = suffix_of(step.nodes[0].name)
    try:
        answer = evaluate(text, scope(draft, suffix))
    except ObserveFailed as error:
        return None, error.message
    if not isinstance(answer, bool):
        return None, f"`{text}` gave {answer!r}, not true or false"
    return answer, ""


def scope(draft: Draft, suffix: str = "") -> dict[str, Any]:
    """What an expression may name; a node of the same iteration goes by its plain name."""
    names = [node.name for node in draft.status.nodes]
    known = set(names)
    nodes = {node.name: _node(node) for node in draft.status.nodes}
    if suffix:
        for name in names:
            base = name.partition(".")[0]
            found = lookup(base, suffix, known)
            if found is not None:
                nodes[base] = _node(draft.node(found))
    return {"nodes": nodes, "probes": _probes(draft), "params": _params(draft)}


def _node(node: NodeStatus) -> dict[str, Any]:
    ended = node.ended if node.ended is not None else node.started
    return {
        "type": node.type,
        "state": str(node.state),
        "outcome": node.outcome or "",
        "verdict": node.verdict or "",
        "text": node.text,
        "attempts": len(node.attempts),
        "started": node.started or 0.0,
        "ended": node.ended or 0.0,
        "seconds": (ended or 0.0) - (node.started or 0.0),
        "output": node.output,
    }


def _probes(draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for probe in draft.status.probes:
        last = probe.samples[-1] if probe.samples else None
        found[probe.name] = {
            "value": last.value if last else None,
            "ok": last.ok if last else None,
            "initial": probe.initial,
            "text": last.text if last else "",
            "failed": probe.failed_at is not None,
        }
    return found


def _params(draft: Draft) -> dict[str, Any]:
    defaults = {name: each.default for name, each in draft.spec.parameters.items()}
    return {**defaults, **draft.run.spec.parameters}
