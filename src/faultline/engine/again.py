"""Taking up an ended run from one of its nodes: what was done before it need not be done again."""

from __future__ import annotations

from faultline.api.graph import NodeBase, SerialStep, children, walk
from faultline.api.graph_status import NodeState, NodeStatus
from faultline.api.run import Phase, Run
from faultline.errors import UnknownName, UsageError


def kept(run: Run, node: str) -> list[NodeStatus]:
    """The results of the nodes that come before `node` and succeeded; raises UnknownName,
    UsageError.

    What still ran in the background when `node` began is not taken over: it runs no more.
    """
    steps = {step.name: step for _, step in walk(run.spec.resolved.nodes)}
    if node not in steps:
        known = ", ".join(list(steps)[:12]) or "none: it has no graph"
        raise UnknownName(f"run {run.metadata.name} has no node {node!r}", hint=f"it has: {known}")
    if run.status.phase is not Phase.ENDED:
        raise UsageError(f"run {run.metadata.name} has not ended")
    before = _before(steps, node)
    known = {each.name: each for each in run.status.nodes}
    return [
        known[name].model_copy(update={"reused": run.metadata.name})
        for name, step in steps.items()
        if name in before and _over(step, known, before)
    ]


def _over(step: NodeBase, known: dict[str, NodeStatus], before: set[str]) -> bool:
    status = known.get(step.name)
    if status is None or status.state is not NodeState.ENDED:
        return False
    ran_on = getattr(step, "background", False) and status.parent not in before
    good = status.outcome in ("succeeded", "skipped") and not ran_on
    return good and all(_over(each, known, before) for each in children(step))


def _before(steps: dict[str, NodeBase], node: str) -> set[str]:
    """The nodes that must be over before `node` begins: those that it needs, those before it in a
    serial list, the same of the nodes that hold it, and all that these hold.
    """
    parents = {inner.name: step for step in steps.values() for inner in children(step)}
    found: set[str] = set()

    def add(name: str) -> None:
        if name not in found:
            found.update(step.name for _, step in walk([steps[name]]))
            behind(name)

    def behind(name: str) -> None:
        for needed in steps[name].needs:
            add(needed)
        holder = parents.get(name)
        if holder is None:
            return
        if isinstance(holder, SerialStep):
            for each in holder.nodes:
                if each.name == name:
                    break
                add(each.name)
        behind(holder.name)

    behind(node)
    return found
