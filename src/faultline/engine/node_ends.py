"""How nodes of a graph end, and what a failure ends with it."""

from __future__ import annotations

from faultline.api.graph import NodeBase, walk
from faultline.api.graph_status import Answer, NodeState, NodeStatus
from faultline.api.run import Failure
from faultline.engine.draft import Draft

WORST: tuple[Answer, ...] = ("error", "broke", "not effective", "not measured", "held")
"""The gravest first: the verdict of a group is that of its worst node."""


def cancelled(draft: Draft, node: NodeStatus) -> str:
    """Why a node must come to its end: the run was stopped, or a group that holds it failed."""
    if draft.status.stopped and not draft.is_last(node.name):
        return draft.status.stopped
    here: NodeStatus | None = node
    while here is not None:
        if here.cancelled:
            return here.cancelled
        here = draft.node(here.parent) if here.parent else None
    return ""


def skip(draft: Draft, step: NodeBase, node: NodeStatus, why: str) -> None:
    """A node, and all that it holds, that is not wanted."""
    for each in held_by(draft, step):
        each.state, each.outcome, each.ended = NodeState.ENDED, "skipped", draft.now.at
    node.text = why
    draft.point("skipped", why, node.name)


def held_by(draft: Draft, step: NodeBase) -> list[NodeStatus]:
    """A node and all that it holds."""
    return [draft.node(inner.name) for _, inner in walk([step])]


def end(draft: Draft, node: NodeStatus, verdict: Answer | None, text: str) -> None:
    """A node that came to what it was for."""
    _close(draft, node, verdict, text)
    node.outcome, node.verdict, node.text = "succeeded", verdict, text
    draft.point("done", text or (verdict or ""), node.name)


def end_aborted(draft: Draft, node: NodeStatus) -> None:
    """A node that was given up."""
    _close(draft, node, None, cancelled(draft, node))
    node.outcome, node.text = "aborted", cancelled(draft, node)


def end_failed(
    draft: Draft,
    step: NodeBase,
    node: NodeStatus,
    verdict: Answer,
    text: str,
    *,
    retried: bool = True,
) -> None:
    """A node that failed: it is tried again, or what holds it is given up."""
    given_up = cancelled(draft, node) and not node.cancelled
    _close(draft, node, verdict, text)
    if retried and not given_up and tries_left(step, node):
        pause = step.retry.pause(len(node.attempts))
        node.state, node.due_ns, node.cancelled = NodeState.WAITING, draft.ns + pause, ""
        draft.point("failed", f"{text}; it is tried again", node.name)
        return
    node.outcome, node.verdict, node.text = "failed", verdict, text
    draft.point("failed", text, node.name)
    doom(draft, step, node)


def doom(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    """What a failure ends with it: the nearest group that goes on without it, or the run."""
    if step.continue_on_failure:
        return
    why = f"{node.name}: {node.text}"
    here = node
    while here.parent:
        here = draft.node(here.parent)
        if draft.step_of(here.name).continue_on_failure:
            here.cancelled = here.cancelled or why
            return
    if draft.is_last(node.name):
        draft.fail(Failure(code="finally", message=why), node.name)
        return
    if node.verdict == "error" and not any(f.node == node.name for f in draft.status.failures):
        draft.fail(Failure(code="node-failed", message=why), node.name)
    draft.stop(why)


def tries_left(step: NodeBase, node: NodeStatus) -> bool:
    return len(node.attempts) < step.retry.attempts


def _close(draft: Draft, node: NodeStatus, verdict: Answer | None, text: str) -> None:
    node.state, node.ended, node.due_ns = NodeState.ENDED, draft.now.at, draft.ns
    if node.attempts:
        last = node.attempts[-1].model_copy(
            update={"ended": draft.now.at, "verdict": verdict, "text": text}
        )
        node.attempts = [*node.attempts[:-1], last]


def tolerated(draft: Draft, node: NodeStatus) -> bool:
    """Whether the run goes on without regard to how this node came out."""
    here: NodeStatus | None = node
    while here is not None:
        if draft.step_of(here.name).continue_on_failure:
            return True
        here = draft.node(here.parent) if here.parent else None
    return False
