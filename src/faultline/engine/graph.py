"""The graph of a run: which node may begin, what has ended, what a failure ends with it.

Pure, as everything that the reconciler calls: it reads the status and writes into the draft. Each
kind of node has its own small steps in `nodes.py`; here is what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence

from faultline.api.graph import (
    BranchStep,
    NodeBase,
    ParallelStep,
    SerialStep,
    children,
    walk,
)
from faultline.api.graph_status import Attempt, NodeState, NodeStatus
from faultline.api.run import Phase, Stage
from faultline.engine import graph_scope, nodes
from faultline.engine.draft import Draft
from faultline.engine.node_ends import (
    WORST,
    cancelled,
    end,
    end_aborted,
    end_failed,
    held_by,
    skip,
)


def begin(draft: Draft) -> None:
    """Write every node down, before anything is done."""
    spec = draft.spec
    reused = {each.name: each for each in draft.run.spec.reused}
    for top in (spec.nodes, spec.finally_):
        parents = {id(inner): node.name for _, node in walk(top) for inner in children(node)}
        for _, node in walk(top):
            status = NodeStatus(
                name=node.name,
                type=str(getattr(node, "type", "")),
                parent=parents.get(id(node), ""),
            )
            draft.status.nodes.append(reused.get(node.name, status).model_copy())
    draft.index_nodes()


def step(draft: Draft) -> None:
    """Move the graph on as far as it goes now."""
    if not draft.status.nodes:
        return
    _list(draft, draft.spec.nodes, serial=False)
    _background(draft, draft.spec.nodes)
    if body_over(draft) and faults_over(draft):
        _list(draft, draft.spec.finally_, serial=False)


def body_over(draft: Draft) -> bool:
    return all(draft.node(node.name).over for node in draft.spec.nodes)


def last_over(draft: Draft) -> bool:
    return all(draft.node(node.name).over for node in draft.spec.finally_)


def faults_over(draft: Draft) -> bool:
    return all(fault.stage is Stage.ENDED for fault in draft.status.faults)


def phase_of(draft: Draft) -> Phase:
    """The phase of a run with a graph: that of its faults until the last node is over."""
    if not body_over(draft) and not draft.status.stopped:
        acting = [fault.stage for fault in draft.status.faults]
        if Stage.MEASURED in acting:
            return Phase.WAIT
        return Phase.EFFECT if Stage.ACTIVE in acting else Phase.INJECTION
    if not faults_over(draft):
        checking = all(f.stage.rank >= Stage.CHECKING.rank for f in draft.status.faults)
        return Phase.PROOF if checking else Phase.RECOVERY
    return Phase.COOLDOWN if body_over(draft) and last_over(draft) else Phase.PROOF


# ---------------------------------------------------------------------- lists


def _list(draft: Draft, steps: Sequence[NodeBase], serial: bool, most: int | None = None) -> None:
    running = sum(1 for each in steps if draft.node(each.name).state is NodeState.RUNNING)
    for index, each in enumerate(steps):
        waited = draft.node(each.name).state is NodeState.WAITING
        free = most is None or running < most
        if serial and index:
            free = free and _passed(draft, steps[index - 1])
        _visit(draft, each, free)
        running += waited and draft.node(each.name).state is NodeState.RUNNING


def _visit(draft: Draft, step: NodeBase, free: bool) -> None:
    """Begin a node if it is its turn, and move it on."""
    node = draft.node(step.name)
    if node.state is NodeState.WAITING:
        if free and _may_begin(draft, step, node):
            _start(draft, step, node)
        else:
            _give_up(draft, step, node)
    if node.state in (NodeState.RUNNING, NodeState.RELEASED):
        _run(draft, step, node)


def _passed(draft: Draft, step: NodeBase) -> bool:
    node = draft.node(step.name)
    return node.passed or (node.over and step.continue_on_failure)


def _may_begin(draft: Draft, step: NodeBase, node: NodeStatus) -> bool:
    if draft.paused or cancelled(draft, node):
        return False
    if node.due_ns is not None and not draft.due(node.due_ns):
        return False
    if not _is_time(draft, node):
        return False
    return all(_passed(draft, draft.step_of(needed)) for needed in step.needs)


def _is_time(draft: Draft, node: NodeStatus) -> bool:
    """A replay begins nothing earlier than it began then; what must be done at the end, at once."""
    then = draft.then(node.name)
    if then is None or then.begin is None or node.attempts or draft.is_last(node.name):
        return True
    return draft.due((draft.status.injection_ns or draft.ns) + then.begin)


def _start(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    if not node.attempts and not _wanted(draft, step, node):
        return
    node.state, node.due_ns, node.began_ns = NodeState.RUNNING, None, draft.ns
    node.started = node.started or draft.now.at
    node.attempts = [*node.attempts, Attempt(started=draft.now.at)]
    draft.point("begun", _number(step, node), node.name)
    nodes.begin(draft, step, node)


def _number(step: NodeBase, node: NodeStatus) -> str:
    if step.retry.attempts == 1:
        return node.type
    return f"{node.type}, attempt {len(node.attempts)} of {step.retry.attempts}"


def _wanted(draft: Draft, step: NodeBase, node: NodeStatus) -> bool:
    """Whether the condition of a node is true; if it is not, the node is skipped."""
    if not step.when:
        return True
    answer, problem = graph_scope.truth(draft, step.when, node.name)
    if answer is None:
        node.started = draft.now.at
        end_failed(draft, step, node, "error", f"when: {problem}", retried=False)
    elif not answer:
        skip(draft, step, node, f"`{step.when}` is false")
    return answer is True


def _give_up(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    """End what will never begin: the run was stopped, or what it waits for will not come."""
    why = cancelled(draft, node)
    if not why:
        failed = [
            n for n in step.needs if draft.node(n).over and not _passed(draft, draft.step_of(n))
        ]
        why = f"{failed[0]} did not succeed" if failed else ""
    if why:
        for each in held_by(draft, step):
            if each.state is NodeState.WAITING:
                each.state, each.outcome, each.text = NodeState.ENDED, "aborted", why
                each.ended = draft.now.at


# ---------------------------------------------------------------------- running


def _run(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    if isinstance(step, SerialStep | ParallelStep | BranchStep):
        _group(draft, step, node)
    else:
        nodes.run(draft, step, node)
    if node.state is NodeState.RUNNING and step.timeout and not node.cancelled and not draft.paused:
        began = draft.since(node.began_ns or draft.ns)
        if not nodes.keeps_time(step) and draft.due(began + step.timeout):
            _timed_out(draft, step, node)


def _timed_out(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    why = f"it took longer than {step.timeout}"
    draft.point("timed out", why, node.name)
    node.cancelled = why
    if isinstance(step, SerialStep | ParallelStep | BranchStep):
        _group(draft, step, node)
    else:
        nodes.run(draft, step, node)


def _group(draft: Draft, step: NodeBase, node: NodeStatus) -> None:
    inner = nodes.chosen(step, node)
    if isinstance(step, ParallelStep):
        _list(draft, inner, serial=False, most=step.at_once)
    elif isinstance(step, SerialStep):
        _loop(draft, step, node)
    else:
        _list(draft, inner, serial=True)
    _background(draft, inner)
    if all(draft.node(each.name).over for each in inner):
        _group_ended(draft, step, node, inner)


def _loop(draft: Draft, step: SerialStep, node: NodeStatus) -> None:
    """A serial list; a loop ends with the round after which its condition is true."""
    free = True
    for index, each in enumerate(step.nodes):
        waits = draft.node(each.name).state is NodeState.WAITING
        if index and waits and free and not cancelled(draft, node):
            before = draft.node(step.nodes[index - 1].name)
            ended = bool(step.loop) and _ended_loop(draft, step, node, index)
            free = not ended and draft.due((before.due_ns or draft.ns) + step.pause)
        _visit(draft, each, free)
        free = free and _passed(draft, each)


def _ended_loop(draft: Draft, step: SerialStep, node: NodeStatus, index: int) -> bool:
    inside = f"{step.nodes[index - 1].name}"
    answer, problem = graph_scope.truth(draft, step.loop, inside)
    if answer is None:
        node.cancelled = f"until: {problem}"  # it ends when all that it holds is given up
    elif answer:
        for later in step.nodes[index:]:
            skip(draft, later, draft.node(later.name), f"`{step.loop}` is true")
    return answer is not False


def _background(draft: Draft, steps: Sequence[NodeBase]) -> None:
    """When all else in a list is over, what runs in the background comes to its end."""
    standing = [draft.node(each.name) for each in steps]
    if all(node.over or node.state is NodeState.RELEASED for node in standing):
        for node in standing:
            node.finish = node.finish or not node.over


def _group_ended(draft: Draft, step: NodeBase, node: NodeStatus, inner: Sequence[NodeBase]) -> None:
    failed = [
        draft.node(each.name)
        for each in inner
        if draft.node(each.name).outcome == "failed" and not each.continue_on_failure
    ]
    found = {each.verdict for each in map(draft.node, (e.name for e in inner)) if each.verdict}
    if node.cancelled and not failed:
        end_failed(draft, step, node, "error", node.cancelled)
    elif failed:
        worst = min(failed, key=lambda each: WORST.index(each.verdict or "error"))
        end_failed(draft, step, node, worst.verdict or "error", f"{worst.name}: {worst.text}")
    elif cancelled(draft, node):
        end_aborted(draft, node)
    else:
        good = not found or found == {"held"}
        end(draft, node, "held" if found and good else None, "")
