"""What people want of a run: to pause and go on, an answer, the same once more from a node.

People write the spec, the engine the status; the engine of the run sees a wish within a second.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from faultline.api.graph_status import Approval, NodeState
from faultline.api.model import Metadata
from faultline.api.run import Phase, Run, RunSpec
from faultline.engine import again
from faultline.errors import UsageError
from faultline.stores.model import Exists, Stale, Store


def pause(store: Store, name: str, why: str) -> Run:
    """Begin nothing new until it is to go on; what is injected goes on to its end.

    Raises UnknownName, UsageError where the run has ended.
    """
    return _wish(store, name, lambda _: {"pause": why})


def proceed(store: Store, name: str) -> Run:
    """Go on with a paused run; raises UnknownName, UsageError where the run has ended."""
    return _wish(store, name, lambda _: {"pause": ""})


def waiting(run: Run) -> list[str]:
    """The nodes that wait for somebody's answer."""
    return [
        node.name
        for node in run.status.nodes
        if node.type == "approval" and node.state is NodeState.RUNNING
    ]


def answer(store: Store, name: str, approval: Approval) -> Run:
    """Answer a node that asks; raises UnknownName, and UsageError if that node does not."""
    asking = waiting(store.get(Run, name))
    if approval.node not in asking:
        raise UsageError(
            f"{approval.node} of {name} does not wait for an answer",
            hint=f"waiting are: {', '.join(asking) or 'none'}",
        )
    return _wish(store, name, lambda spec: {"approvals": [*spec.approvals, approval]})


def rerun(store: Store, name: str, node: str, creator: str = "") -> Run:
    """A new run that takes over what an ended one had done before `node`, and begins there.

    Raises UnknownName, UsageError.
    """
    old = store.get(Run, name)
    changed: dict[str, Any] = {
        "abort": "", "pause": "", "approvals": [], "signals": [], "creator": creator,
        "rerun_of": name, "from_node": node, "reused": again.kept(old, node),
    }  # fmt: skip
    spec = old.spec.model_copy(update=changed)
    while True:
        called = f"{spec.experiment[:200]}-{secrets.token_hex(3)}"
        meta = Metadata(name=called, labels=old.metadata.labels)
        try:
            return store.create(Run(metadata=meta, spec=spec))
        except Exists:
            continue


def _wish(store: Store, name: str, change: Callable[[RunSpec], dict[str, Any]]) -> Run:
    while True:
        run = store.get(Run, name)
        if run.status.phase is Phase.ENDED:
            raise UsageError(f"run {name} has ended: {run.status.verdict}")
        wish = run.spec.model_copy(update=change(run.spec))
        try:
            return store.update(run.model_copy(update={"spec": wish}))
        except Stale:
            continue
