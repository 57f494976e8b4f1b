"""Tries which faults work on this host, as `faultline doctor` does, and ends."""

from __future__ import annotations

import os
from dataclasses import asdict

from faultline.agent.model import Document
from faultline.agent.worker import Tell, serve
from faultline.injection import registry, trial
from faultline.kernel import machine

_NO_ANSWER = ("already above", "unmeasured")
"""What a machine that is busy at the moment may lead to."""


def attempt(asked: Document, _tell: Tell) -> Document:
    """Each fault, in scratch namespaces. Nothing is said of those that nobody can try, since they
    would end whoever does, and of those that gave no answer.
    """
    triable = registry.triable()
    able = [each for each in asked.get("faults") or triable if each in triable]
    tried = [asdict(trial.try_fault(each)) for each in able]
    return {
        "capabilities": [
            {"fault": each["fault"], "works": True}
            if each["works"]
            else {"fault": each["fault"], "works": False, "why": each["why"][:500]}
            for each in tried
            if each["works"] or each["effect"] not in _NO_ANSWER
        ]
    }


def main() -> None:
    """Entry of the process."""
    machine.leave()
    # What is tried is tried on scratch ground, which is ours and not the machine's.
    os.environ.pop(machine.ENVIRONMENT, None)
    serve({"try": attempt}, 1)
