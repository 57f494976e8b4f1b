"""Which notices a run owes, and to whom. Pure.

Each is an action like any other: written down before it is sent, and asked for again by the next
engine if the one that was sending it died. So somebody may be told twice, and is never not told.
"""

from __future__ import annotations

from faultline.api.graph_status import NodeState
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Do

PATIENCE = 30 * SECOND
"""How long the end of a run waits for its notices to be sent."""


def ask(draft: Draft) -> None:
    """Ask for the notices of people who are waited for."""
    if not draft.spec.notify:
        return
    for node in draft.status.nodes:
        then = draft.then(node.name)
        known = then is not None and then.answer
        if node.type == "approval" and node.state is NodeState.RUNNING and not known:
            _tell(draft, "approval", node.name)


def ask_last(draft: Draft, verdict: str) -> bool:
    """Ask for the notices of the end; whether they are sent, or were waited for long enough."""
    by = draft.status.aborted_by
    occasion = "guard" if by == "guard" else "aborted" if by else verdict
    _tell(draft, occasion, "")
    sending = [a for a in draft.status.actions if a.kind == str(Do.NOTIFY) and a.ended_ns is None]
    waited = [draft.due(draft.since(action.started_ns) + PATIENCE) for action in sending]
    if not all(waited):
        return False
    for action in sending:
        action.ended_ns, action.error = draft.ns, "it was not sent in time"
        draft.point("notice failed", action.error, action.node)
    return True


def _tell(draft: Draft, occasion: str, node: str) -> None:
    for index, each in enumerate(draft.spec.notify):
        if occasion in each.on:
            draft.ask(f"notify/{index}/{occasion}/{node}", Do.NOTIFY, node)
