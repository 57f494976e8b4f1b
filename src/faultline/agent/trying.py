"""Tries which faults work on this host, as `faultline doctor` does, and ends."""

from __future__ import annotations

from dataclasses import asdict

from faultline.agent.model import Document
from faultline.agent.worker import Tell, serve
from faultline.injection import registry, trial

_NO_ANSWER = ("already above", "unmeasured")
"""What a machine that is busy at the moment may lead to."""


def attempt(asked: Document, _tell: Tell) -> Document:
    """Each fault, in scratch namespaces. Nothing is said of those that nobody can try, since they
    would end whoever does, and of those that gave no answer.
    """
    wanted: list[str] = asked.get("faults") or list(registry.everything())
    able = [each for each in wanted if not registry.get(each).lethal]
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
    serve({"try": attempt}, 1)
