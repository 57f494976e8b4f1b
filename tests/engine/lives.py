"""What the tests of graphs share: making a graph, and living through a run of it in a world."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.engine.simulator import Simulator
from tests.engine.world import Odds, World, experiment

from faultline.api.expansion import written_out
from faultline.api.experiment import ExperimentSpec
from faultline.api.graph_status import NodeStatus
from faultline.api.run import Run

FAULT = {"type": "fault", "fault": "network.delay", "duration": "10s"}
TASK = {"type": "task", "command": {"command": ["true"]}}


def graph(
    *nodes: dict[str, Any], last: tuple[dict[str, Any], ...] = (), **more: Any
) -> ExperimentSpec:
    raw = written_out({"nodes": list(nodes), "finally": list(last)}, {})
    quick = {"baseline": "1s", "cooldown": "1s", "guards": [], "steadyState": []}
    hypothesis = {"text": "it holds", "probes": ["guard"]}
    return experiment(faults=[], traffic=[], hypothesis=hypothesis, **quick, **raw, **more)


class Life:
    """One run in a world, with what the tests ask of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, spec: ExperimentSpec, **odds: float
    ) -> None:
        self.world = World(random.Random(1), Odds(**odds))
        self.simulator = Simulator(self.world, spec, monkeypatch)

    def live(self, each: Any = lambda _: None) -> Run:
        return self.simulator.drive(each)

    def node(self, name: str) -> NodeStatus:
        return next(node for node in self.simulator.run.status.nodes if node.name == name)

    def outcomes(self) -> dict[str, str | None]:
        return {node.name: node.outcome for node in self.simulator.run.status.nodes}
