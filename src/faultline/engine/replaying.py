"""What a replay takes over from the run that it repeats, besides its experiment. Pure.

Times are read from the timeline where it has the very instant, since that has a clock that nobody
sets. While a run was paused its offsets stood still, and so they do in the replay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from faultline.api.graph import ApprovalStep, ExperimentStep, FaultStep, WaitStep, walk
from faultline.api.graph_status import NodeStatus, paused
from faultline.api.repeat import FoundTarget, Repeat, Timing
from faultline.api.run import FaultStatus, Phase, Run, RunSpec
from faultline.engine import repeating
from faultline.units import Duration

Find = Callable[[str], Run | None]
"""A run by its name, if it is still kept."""
_SHORTEST = Duration.parse("100ms")  # of a fault


@dataclass(frozen=True, slots=True)
class Wishes:
    """What of an earlier run is taken over."""

    timings: bool = True
    """When things happened, and not when they were asked for."""
    targets: bool = True
    """What the targets were, and not what they are called."""
    answers: bool = False
    """What people said to the nodes that asked."""
    seed: int | None = None
    """Another seed."""


def spec_of(run: Run, wishes: Wishes, find: Find, creator: str = "") -> RunSpec:
    """What the replay of an ended run is to do; raises UsageError if it has not ended."""
    changed: dict[str, object] = {"repeat": taken_over(run, wishes, find)}
    if wishes.seed is not None:
        changed["seed"] = wishes.seed
    return repeating.spec_of(run, creator).model_copy(update=changed)


def taken_over(run: Run, wishes: Wishes, find: Find) -> Repeat:
    """What a run found and when, with that of the runs that its nodes carried out."""
    children: dict[str, Repeat] = {}
    ran = {node.name: str(node.output.get("run", "")) for node in run.status.nodes}
    for _, step in walk(run.spec.resolved.nodes):
        child = find(ran.get(step.name, "")) if isinstance(step, ExperimentStep) else None
        if child is not None and child.status.phase is Phase.ENDED:
            children[step.name] = taken_over(child, wishes, find)
    return Repeat(
        run=run.metadata.name,
        targets=_targets(run) if wishes.targets else {},
        choices={each.node: each.targets for each in run.status.choices} if wishes.targets else {},
        timings=_timings(run, wishes),
        children=children,
    )


def _targets(run: Run) -> dict[str, FoundTarget]:
    """By the node of a fault, whose attempts and trials all act on one; where a selector chose
    several, by the fault.
    """
    found: dict[str, FoundTarget] = {}
    for fault in run.status.faults:
        if fault.target is not None:
            found.setdefault(fault.name if fault.aim else fault.node or fault.name, fault.target)
    return found


# ---------------------------------------------------------------------- times


def _timings(run: Run, wishes: Wishes) -> dict[str, Timing]:
    found: dict[str, Timing] = {}
    watch = _Watch(run)
    steps = {step.name: step for _, step in walk(run.spec.resolved.nodes)}
    groups = {node.parent for node in run.status.nodes}
    if wishes.timings:
        for fault in run.status.faults:
            key = fault.node or fault.of or fault.name
            if not isinstance(steps.get(key), FaultStep | None):
                continue  # a trial of a search: how long it takes is what its probes say
            begin = None if fault.node else watch.offset(fault.started)
            found[key] = Timing(begin=begin, length=_held(run, fault, watch))
    for node in run.status.nodes:
        step = steps.get(node.name)
        if step is None or node.reused or not node.attempts:
            continue
        timing = found.get(node.name, Timing())
        if wishes.timings and node.name not in groups:  # a group begins with what it holds
            timing = timing.model_copy(update={"begin": watch.offset(node.attempts[0].started)})
        if wishes.timings and isinstance(step, WaitStep) and step.until and _good(node):
            timing = timing.model_copy(update={"length": watch.length(node)})
        if wishes.answers and isinstance(step, ApprovalStep) and node.output.get("by"):
            timing = _answered(timing, node, watch)
        if timing != Timing():
            found[node.name] = timing
    return found


def _good(node: NodeStatus) -> bool:
    return node.outcome == "succeeded"


def _answered(timing: Timing, node: NodeStatus, watch: _Watch) -> Timing:
    said = cast("str", node.output.get("answer"))
    changed = {"length": watch.length(node), "answer": said, "by": str(node.output.get("by"))}
    return timing.model_copy(update=changed)


def _held(run: Run, fault: FaultStatus, watch: _Watch) -> Duration | None:
    """How long a fault acted, where it came to its own end: not the run to its."""
    began, ended = fault.injected_at, fault.recovery_started
    if fault.effect != "effective" or began is None or ended is None:
        return None
    stopped = next((p.at for p in run.status.timeline if p.event == "stopped"), None)
    if stopped is not None and stopped <= ended:
        return None
    return max(_SHORTEST, watch.between(began, ended))


class _Watch:
    """Reads the times of one run."""

    def __init__(self, run: Run) -> None:
        self._pauses = run.status.pauses
        self._ns = {point.at: point.boot_ns for point in run.status.timeline}
        phases = run.status.phases
        self._zero = next((p.started for p in phases if p.phase is Phase.INJECTION), None)

    def between(self, start: float, end: float) -> Duration:
        """How much time passed; by the clock that nobody sets, if both instants are known to it."""
        if start in self._ns and end in self._ns:
            return Duration(max(0, self._ns[end] - self._ns[start]))
        return Duration(max(0, round((end - start) * 1000)) * 1_000_000)

    def offset(self, at: float | None) -> Duration | None:
        """The time since the injection phase began, without that in which the run was paused."""
        if at is None or self._zero is None or at < self._zero:
            return None
        return self._less(self._zero, at)

    def length(self, node: NodeStatus) -> Duration | None:
        """How long the last attempt at a node took, the same way."""
        last = node.attempts[-1]
        return None if last.ended is None else self._less(last.started, last.ended)

    def _less(self, start: float, end: float) -> Duration:
        idle = round(paused(self._pauses, start, end) * 1e9)
        return Duration(max(0, self.between(start, end) - idle))
