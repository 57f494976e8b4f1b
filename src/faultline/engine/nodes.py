"""What each kind of node does: how it begins, and how it moves on by small steps. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from faultline.api.graph import (
    ApprovalStep,
    BranchStep,
    ExperimentStep,
    FaultStep,
    NodeBase,
    ProbeStep,
    SearchStep,
    TaskStep,
    TrafficStep,
    WaitStep,
    children,
)
from faultline.api.graph_status import Answer, NodeState, NodeStatus
from faultline.api.repeat import Timing
from faultline.api.run import ProbeStatus
from faultline.engine import graph_scope, node_faults, searching
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Do
from faultline.engine.node_ends import (
    cancelled,
    end,
    end_aborted,
    end_failed,
    skip,
)
from faultline.units import Duration

LOOK_AGAIN = SECOND
"""How often a condition that is waited for is looked at, whatever happens."""
PROBE_PATIENCE = Duration.parse("30s")
"""How long a probe node waits without a time-out of its own."""
APPROVAL_PATIENCE = Duration.parse("1h")
"""How long a person is waited for without a time-out."""
CANCEL_PATIENCE = 30 * SECOND
"""How long a task that is given up may take to end."""


def begin(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    """A new attempt at a node has begun."""
    first = _BEGIN.get(type(step))
    if first is not None:
        first(draft, step, node)


def run(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    """Move a node that runs on as far as it goes now."""
    _RUN[type(step)](draft, step, node)


def keeps_time(step: NodeBase) -> bool:
    """Whether a kind of node knows itself what its time-out means."""
    return isinstance(step, ApprovalStep | ProbeStep | WaitStep)


def chosen(step: NodeBase, node: NodeStatus) -> list[NodeBase]:
    """The nodes of a group that are carried out: of a branch, those of its case."""
    if not isinstance(step, BranchStep):
        return children(step)
    cases = [list[NodeBase](case.nodes) for case in step.cases] + [list[NodeBase](step.otherwise)]
    return cases[node.mark]


# ---------------------------------------------------------------------- branch, wait, approval


def _begin_branch(draft: Draft, step: BranchStep, node: NodeStatus) -> None:
    node.mark = len(step.cases)
    for index, case in enumerate(step.cases):
        answer, problem = graph_scope.truth(draft, case.when, node.name)
        if answer is None:
            node.cancelled = f"cases.{index}.when: {problem}"
            break
        if answer:
            node.mark = index
            break
    wanted = {each.name for each in chosen(step, node)}
    for each in children(step):
        if each.name not in wanted and not node.cancelled:
            skip(draft, each, draft.node(each.name), "another case was chosen")
    node.output = {"case": node.mark}


def _wait(draft: Draft, step: WaitStep, node: NodeStatus) -> None:
    if cancelled(draft, node):
        end_aborted(draft, node)
    elif draft.paused:
        return
    elif step.duration is not None:
        if _past(draft, node, step.duration):
            end(draft, node, None, "")
    elif (then := draft.then(node.name)) is not None and then.length is not None:
        if _past(draft, node, then.length):
            end(draft, node, None, f"as long as `{step.until}` took in the run that is repeated")
    else:
        answer, problem = graph_scope.truth(draft, step.until, node.name)
        late = step.timeout is not None and draft.due(
            draft.since(node.began_ns or 0) + step.timeout
        )
        if answer:
            end(draft, node, None, f"`{step.until}`")
        elif late:
            told = problem or f"`{step.until}` did not become true within {step.timeout}"
            end_failed(draft, step, node, "not measured", told)
        else:
            draft.due(draft.ns + LOOK_AGAIN)


def _begin_approval(draft: Draft, step: ApprovalStep, node: NodeStatus) -> None:
    name, then = draft.run.metadata.name, draft.then(node.name)
    if then is not None and then.answer:
        return
    draft.point(
        "approval wanted", step.message or f"faultline approve {name} {node.name}", node.name
    )


def _approval(draft: Draft, step: ApprovalStep, node: NodeStatus) -> None:
    said = [each for each in draft.run.spec.approvals if each.node == node.name]
    if cancelled(draft, node):
        end_aborted(draft, node)
    elif said:
        last = said[-1]
        words = f"{last.by or 'somebody'}{f': {last.text}' if last.text else ''}"
        node.output = {"answer": last.answer, "by": last.by, "text": last.text}
        if last.answer == "continue":
            end(draft, node, None, f"approved by {words}")
        else:
            end_failed(draft, step, node, "not measured", f"refused by {words}")
    elif not draft.paused and (then := draft.then(node.name)) is not None and then.answer:
        if draft.due((node.began_ns or 0) + (then.length or 0)):
            _answered_then(draft, step, node, then)
    elif not draft.paused:
        limit = step.timeout or APPROVAL_PATIENCE
        if not draft.due((node.began_ns or 0) + limit):
            return
        node.output = {"answer": step.otherwise, "by": "", "text": "nobody answered"}
        if step.otherwise == "continue":
            end(draft, node, None, f"nobody answered within {limit}: it goes on")
        else:
            end_failed(draft, step, node, "not measured", f"nobody answered within {limit}")


def _answered_then(draft: Draft, step: ApprovalStep, node: NodeStatus, then: Timing) -> None:
    text = "answered as in the run that is repeated"
    node.output = {"answer": then.answer, "by": then.by, "text": text}
    if then.answer == "continue":
        end(draft, node, None, f"{text}: approved by {then.by or 'somebody'}")
    else:
        end_failed(draft, step, node, "not measured", f"{text}: refused by {then.by or 'somebody'}")


# ---------------------------------------------------------------------- probe


def _begin_probe(draft: Draft, step: ProbeStep, node: NodeStatus) -> None:
    node.mark = draft.probe(step.probe).taken


def _probe(draft: Draft, step: ProbeStep, node: NodeStatus) -> None:
    if cancelled(draft, node):
        end_aborted(draft, node)
        return
    probe = draft.probe(step.probe)
    spec = next(one for one in draft.spec.probes if one.name == step.probe)
    good = step.until == "holds"
    enough = spec.success_count if good else spec.failure_count
    streak, broken = _streak(probe, node.mark, good, spec.failure_count)
    last = probe.samples[-1] if probe.taken > node.mark and probe.samples else None
    if last is not None:
        node.output = {"value": last.value, "ok": last.ok, "text": last.text}
    if step.lasting is not None and broken:
        _probe_failed(draft, step, node, last.ok if last else None, last.text if last else "")
    elif len(streak) >= enough and _lasted(step, streak):
        end(draft, node, "held", last.text if last else "")
    elif not draft.paused:
        limit = (step.timeout or PROBE_PATIENCE) + (step.lasting or 0)
        if draft.due(draft.since(node.began_ns or 0) + limit):
            text = f"not within {Duration(limit)}{f': {last.text}' if last and last.text else ''}"
            _probe_failed(draft, step, node, last.ok if last else None, text)


def _streak(probe: ProbeStatus, mark: int, good: bool, tolerance: int) -> tuple[list[float], bool]:
    """When the samples of the present streak were taken; whether one that stood was broken."""
    fresh = probe.samples[-(probe.taken - mark) :] if probe.taken > mark else []
    streak: list[float] = []
    missed, broken = 0, False
    for sample in fresh:
        if sample.ok is good:
            missed = 0
            streak.append(sample.at)
        else:
            missed += 1
            broken = broken or (bool(streak) and missed >= tolerance)
            streak = [] if missed >= tolerance else streak
    return streak, broken


def _lasted(step: ProbeStep, streak: list[float]) -> bool:
    return step.lasting is None or streak[-1] - streak[0] >= step.lasting.seconds


def _probe_failed(
    draft: Draft, step: ProbeStep, node: NodeStatus, ok: bool | None, text: str
) -> None:
    verdict: Answer = "not measured" if ok is None else "broke"
    end_failed(draft, step, node, verdict, f"{step.probe} {_not(step)}: {text}" if text else "")


def _not(step: ProbeStep) -> str:
    return "did not hold" if step.until == "holds" else "did not fail"


# ---------------------------------------------------------------------- traffic


def _begin_traffic(draft: Draft, step: TrafficStep, _node: NodeStatus) -> None:
    draft.ask(
        f"traffic/start/{step.traffic}/{draft.status.resumed}", Do.START_TRAFFIC, step.traffic
    )


def _traffic(draft: Draft, step: TrafficStep, node: NodeStatus) -> None:
    load = next(one for one in draft.status.traffic if one.name == step.traffic)
    over = bool(cancelled(draft, node)) or node.finish
    if load.started is not None and step.background and node.state is NodeState.RUNNING:
        node.state = NodeState.RELEASED
    if load.ended is not None:
        totals = load.totals
        node.output = {"ok": totals.ok, "errors": totals.errors} if totals else {}
        if node.cancelled:
            end_failed(draft, step, node, "error", node.cancelled)
        else:
            end(draft, node, None, "")
    elif over or (load.started is not None and _past(draft, node, step.duration)):
        draft.ask(f"traffic/stop/{step.traffic}", Do.STOP_TRAFFIC, step.traffic)


def _past(draft: Draft, node: NodeStatus, length: int) -> bool:
    return not draft.paused and draft.due((node.began_ns or 0) + length)


# ---------------------------------------------------------------------- task, experiment


def _begin_task(draft: Draft, _step: TaskStep, node: NodeStatus) -> None:
    draft.ask(f"task/{node.name}/{len(node.attempts)}", Do.TASK, node.name)


def _begin_child(draft: Draft, _step: ExperimentStep, node: NodeStatus) -> None:
    draft.ask(f"run/{node.name}/{len(node.attempts)}", Do.RUN, node.name)


def _elsewhere(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    """What is carried out elsewhere: its answer comes as a result; giving it up is asked for."""
    number, kind = len(node.attempts), "task" if isinstance(step, TaskStep) else "run"
    asked = draft.find(f"{kind}/{node.name}/{number}")
    why = cancelled(draft, node)
    if asked is None or asked.ended_ns is not None:
        answer = node.answer or {}
        verdict, text = cast("Answer | None", answer.get("verdict")), str(answer.get("text", ""))
        if why and verdict != "held":
            (
                end_failed(draft, step, node, "error", why)
                if node.cancelled
                else end_aborted(draft, node)
            )
        elif verdict in (None, "held"):
            end(draft, node, verdict, text)
        else:
            end_failed(draft, step, node, verdict, text)
    elif why:
        giving_up = draft.ask(f"cancel/{node.name}/{number}", Do.CANCEL, node.name)
        limit = draft.spec.timeouts.recovery if kind == "run" else CANCEL_PATIENCE
        if draft.due(draft.since(giving_up.started_ns) + limit):
            asked.ended_ns, asked.error = draft.ns, "it did not end when it was given up"
            node.answer = {"verdict": "error", "text": asked.error}


Begin = Callable[[Draft, Any, NodeStatus], None]

_BEGIN: dict[type[NodeBase], Begin] = {
    ApprovalStep: _begin_approval,
    BranchStep: _begin_branch,
    ExperimentStep: _begin_child,
    FaultStep: node_faults.begin,
    ProbeStep: _begin_probe,
    SearchStep: searching.begin,
    TaskStep: _begin_task,
    TrafficStep: _begin_traffic,
}
_RUN: dict[type[NodeBase], Begin] = {
    ApprovalStep: _approval,
    ExperimentStep: _elsewhere,
    FaultStep: node_faults.run,
    ProbeStep: _probe,
    SearchStep: searching.run,
    TaskStep: _elsewhere,
    TrafficStep: _traffic,
    WaitStep: _wait,
}
