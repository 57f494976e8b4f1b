"""Expressions over a run: what they may name, and whether they can be right. Pure.

CEL has no checker of types in Python, so an expression is tried on a sample of what it will see: a
name that is not there, an operator that does not fit and an answer that is not true or false are
found before the run begins. What only the run can tell (the output of a task) is left open.
"""

from __future__ import annotations

import re
from typing import Any

from faultline.api.expectation import cel_problem, evaluate
from faultline.api.experiment import ExperimentSpec
from faultline.errors import ObserveFailed

SCOPE = ("nodes", "probes", "params")
"""What conditions of nodes may name."""

_NODE: dict[str, Any] = {
    "type": "task", "state": "ended", "outcome": "succeeded", "verdict": "held", "text": "",
    "attempts": 1, "started": 0.5, "ended": 1.5, "seconds": 1.0, "output": {},
}  # fmt: skip
_PROBE: dict[str, Any] = {"value": 1.0, "ok": True, "initial": 1.0, "text": "", "failed": False}

_OPEN = re.compile(r"\.(output|item)\b|\[.(output)")


def sample_scope(spec: ExperimentSpec, nodes: dict[str, str]) -> dict[str, Any]:
    """What an expression would see: `nodes` maps what a node is called there to its name."""
    samples: dict[str, Any] = {
        "string": "text", "integer": 1, "number": 1.0, "boolean": True, "duration": "1s",
        "size": "1MiB", "rate": "1mbit", "percent": "1%",
    }  # fmt: skip
    params = {
        name: each.default if each.default is not None else samples[each.type]
        for name, each in spec.parameters.items()
    }
    return {
        "nodes": {called: dict(_NODE) for called in nodes},
        "probes": {probe.name: dict(_PROBE) for probe in spec.probes},
        "params": params,
    }


def problem_of(text: str, scope: dict[str, Any]) -> str:
    """Why an expression cannot be right; empty if it can."""
    found = cel_problem(text, tuple(scope))
    if found:
        return found
    try:
        answer = evaluate(text, scope)
    except ObserveFailed as error:
        missing = re.search(r"no such (key|member)[^']*'?\"?([\w.-]+)?", error.message)
        if _OPEN.search(text):
            return ""  # what a task or a child gives is not known before
        if missing:
            known = ", ".join(sorted(scope["nodes"])[:12]) or "none"
            return f"expected names that are there (nodes: {known}); {error.message}"
        return f"expected an expression whose types fit; {error.message}"
    if not isinstance(answer, bool) and not _OPEN.search(text):
        return f"expected an expression that is true or false; `{text}` gives {answer!r}"
    return ""
