"""Ended runs once more: as they were, or with fewer faults. Pure.

A new run takes the resolved spec of the old one, so it has the same values, seed and children,
whatever has become of the file since. What a replay takes over besides is told in `replaying.py`.
"""

from __future__ import annotations

from typing import Any, cast

from faultline.api.experiment import ExperimentSpec
from faultline.api.graph import FaultStep, walk
from faultline.api.run import Phase, Run, RunSpec, Verdict
from faultline.engine import seeds
from faultline.engine.shrinking import Answer
from faultline.errors import UsageError

REPLAY, SHRINK = "replay-of", "shrink-of"
"""Labels of the new runs: the name of the old one."""

_HOLDERS = ("nodes", "cases", "otherwise", "finally")


def spec_of(run: Run, creator: str = "") -> RunSpec:
    """What a run is to do that repeats another one; raises UsageError if that has not ended.

    What people had answered and reported is not taken over: they are asked again.
    """
    if run.status.phase is not Phase.ENDED:
        raise UsageError(
            f"run {run.metadata.name} has not ended",
            hint=f"go on with it: faultline run --resume {run.metadata.name}",
        )
    cleared: dict[str, Any] = {
        "abort": "", "pause": "", "approvals": [], "signals": [], "creator": creator,
        "repeat": None, "seed": seeds.new() if run.spec.seed is None else run.spec.seed,
    }  # fmt: skip
    return run.spec.model_copy(update=cleared)


# ---------------------------------------------------------------------- fewer faults


def faults_of(spec: ExperimentSpec) -> list[str]:
    """The names of all faults of an experiment, in the order of the document."""
    steps = [step.name for _, step in walk(spec.nodes) if isinstance(step, FaultStep)]
    return [*(fault.name for fault in spec.faults), *steps]


def with_only(spec: ExperimentSpec, kept: tuple[str, ...]) -> ExperimentSpec:
    """The experiment with these faults alone.

    A node of the graph that is left out becomes a wait of no length with the same name, so that
    what needs it, or speaks of it, goes on as before.
    """
    data = spec.to_json()
    data["faults"] = [each for each in data.get("faults", []) if each["name"] in kept]
    data["nodes"] = [_only(node, kept) for node in data.get("nodes", [])]
    return ExperimentSpec.model_validate(data)


def _only(node: Any, kept: tuple[str, ...]) -> Any:
    entries = cast("dict[str, Any]", node)
    if entries.get("type") == "fault" and entries["name"] not in kept:
        shared = ("name", "needs", "when")
        stays = {key: entries[key] for key in shared if key in entries}
        return {**stays, "type": "wait", "duration": "0s"}
    held = {
        key: [_only(each, kept) for each in cast("list[Any]", entries[key])]
        for key in _HOLDERS
        if isinstance(entries.get(key), list)
    }
    return {**entries, **held}


def compared(old: Run, new: Run) -> Answer:
    """Whether a run of fewer faults still gives the verdict of the old one; one that broke must
    have broken a probe that broke then.
    """
    verdict = new.status.verdict
    if verdict == old.status.verdict:
        if verdict is not Verdict.BROKE:
            return Answer.FAILED
        before, now = _broken(old), _broken(new)
        return Answer.FAILED if not before or before & now else Answer.PASSED
    if verdict in (Verdict.HELD, Verdict.BROKE):
        return Answer.PASSED
    return Answer.NO_ANSWER


def _broken(run: Run) -> set[str]:
    return {probe.name for probe in run.status.probes if probe.verdict == "broke"}
