"""The node that searches: one trial after the other, each a fault of its own."""

from __future__ import annotations

from faultline.api.graph import SearchStep
from faultline.api.graph_status import NodeStatus
from faultline.engine.draft import Draft


def begin(draft: Draft, step: SearchStep, node: NodeStatus) -> None:
    raise NotImplementedError


def run(draft: Draft, step: SearchStep, node: NodeStatus) -> None:
    raise NotImplementedError
