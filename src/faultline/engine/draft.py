"""A run's status while it is being decided upon: a copy, with the words that reconcilers use."""

from __future__ import annotations

from typing import Literal

from faultline.api.experiment import ExperimentSpec, FaultNode
from faultline.api.graph import (
    FaultStep,
    NodeBase,
    ProbeStep,
    SearchStep,
    TrafficStep,
    children,
    walk,
)
from faultline.api.graph_status import NodeState, NodeStatus
from faultline.api.repeat import Timing
from faultline.api.run import (
    ActionStatus,
    Failure,
    FaultStatus,
    Phase,
    PhaseStatus,
    Point,
    ProbeStatus,
    Run,
    RunStatus,
    Stage,
)
from faultline.api.selector import Choice
from faultline.engine.asked import aimed, as_then, of_step
from faultline.engine.model import Action, Do, Now
from faultline.errors import Bug

AbortedBy = Literal["guard", "user", "halt", "reboot", "engine"]


class Draft:
    """The status that is being made, with the clock that never runs backwards."""

    def __init__(self, run: Run, now: Now) -> None:
        self.run = run
        self.spec: ExperimentSpec = run.spec.resolved
        self.status = copied(run.status)
        self.now = now
        self._wakes: list[int] = []
        self._actions = {action.id: action for action in self.status.actions}
        self._steps: dict[str, NodeBase] = {}
        self._last: set[str] = set()
        self._nodes: dict[str, NodeStatus] = {}
        self.index_nodes()

    @property
    def ns(self) -> int:
        """CLOCK_BOOTTIME as the run has seen it."""
        return self.status.clock_ns

    # ------------------------------------------------------------------ the graph

    def index_nodes(self) -> None:
        """Find nodes by name; called again when they have been written down."""
        self._nodes = {node.name: node for node in self.status.nodes}
        if self._nodes and not self._steps:
            last = [step for _, step in walk(self.spec.finally_)]
            self._last = {step.name for step in last}
            self._steps = {step.name: step for _, step in walk(self.spec.nodes)}
            self._steps |= {step.name: step for step in last}

    def node(self, name: str) -> NodeStatus:
        return self._nodes[name]

    def step_of(self, name: str) -> NodeBase:
        return self._steps[name]

    def inner(self, name: str) -> list[NodeBase]:
        return children(self._steps[name])

    def is_last(self, name: str) -> bool:
        """Whether it is one of the nodes that are carried out whatever happened."""
        return name in self._last

    def holders(self, node: NodeStatus) -> list[NodeStatus]:
        """The nodes that hold a node, from the inside out."""
        found: list[NodeStatus] = []
        while node.parent:
            node = self.node(node.parent)
            found.append(node)
        return found

    def probe(self, name: str) -> ProbeStatus:
        return next(probe for probe in self.status.probes if probe.name == name)

    def asked_probes(self) -> set[str]:
        """The probes that a node which runs now looks at."""
        found: set[str] = set()
        for node in self.status.nodes:
            if node.state not in (NodeState.RUNNING, NodeState.RELEASED):
                continue
            step = self._steps[node.name]
            if isinstance(step, ProbeStep):
                found.add(step.probe)
            elif isinstance(step, SearchStep):
                found.update(step.search.probes)
            elif isinstance(step, FaultStep) and step.impact:
                found.add(step.impact)
        return found

    def tried_probes(self) -> set[str]:
        """The probes of searches whose trial acts now."""
        found: set[str] = set()
        for fault in self.status.faults:
            step = self._steps.get(fault.node)
            if isinstance(step, SearchStep) and fault.stage is not Stage.ENDED:
                found.update(step.search.probes)
        return found

    def loads_of_nodes(self) -> set[str]:
        """Traffic that a node starts; all other runs throughout."""
        steps = (step for _, step in walk(self.spec.nodes)) if self.spec.nodes else ()
        return {step.traffic for step in steps if isinstance(step, TrafficStep)}

    def fault_node(self, fault: FaultStatus) -> FaultNode:
        """What was asked for: as a fault of the experiment stands there, else by its node."""
        if not fault.node:
            named = fault.of or fault.name
            node = next(node for node in self.spec.faults if node.name == named)
            return as_then(self.run, aimed(node, fault), named)
        step = self._steps[fault.node]
        if not isinstance(step, FaultStep | SearchStep):
            raise Bug(f"node {fault.node} is no fault")
        return as_then(self.run, of_step(step, fault.name, fault.params, fault.aim), step.name)

    def choice(self, name: str) -> Choice | None:
        """What the selector of a fault of the document chose; None if it has none."""
        return next((each for each in self.status.choices if each.node == name), None)

    def then(self, node: str) -> Timing | None:
        """When a node began in the run that is repeated, and how long it lasted."""
        repeat = self.run.spec.repeat
        return repeat.timings.get(node) if repeat is not None else None

    @property
    def paused(self) -> bool:
        """Whether nothing new may begin."""
        return self.status.pause_ns is not None

    # ------------------------------------------------------------------ what happened

    def point(self, event: str, text: str, node: str = "", now: Now | None = None) -> None:
        when = now or self.now
        self.status.timeline.append(
            Point(at=when.at, boot_ns=when.boot_ns, event=event, node=node, text=text)
        )

    def enter(self, phase: Phase) -> None:
        """Go on to a later phase; going back is not possible."""
        if phase.rank <= self.status.phase.rank:
            return
        if self.status.phases:
            self.status.phases[-1].ended = self.now.at
        ended = self.now.at if phase is Phase.ENDED else None
        self.status.phases.append(PhaseStatus(phase=phase, started=self.now.at, ended=ended))
        self.status.phase, self.status.phase_ns = phase, self.ns
        self.point("phase", str(phase))

    def advance(self, fault: FaultStatus, stage: Stage) -> None:
        """Move a fault on to a later stage; going back is not possible."""
        if stage.rank > fault.stage.rank:
            fault.stage = stage

    def stop(self, why: str) -> None:
        """End the run early: what is not yet injected will not be, what is will be undone now."""
        if not self.status.stopped:
            self.status.stopped = why
            self.point("stopped", why)

    def abort(self, by: AbortedBy, why: str) -> None:
        """Stop because somebody or something wants it."""
        if not self.status.aborted:
            self.status.aborted, self.status.aborted_by = why, by
            self.point("aborted", why, node=by if by != "guard" else "")
            self.stop(why)

    def fail(self, failure: Failure, node: str = "") -> None:
        """Note an error of ours or a refusal."""
        noted = failure.model_copy(update={"node": node or failure.node})
        self.status.failures.append(noted)
        self.point("error", failure.message, node=noted.node)

    # ------------------------------------------------------------------ actions

    def ask(self, action_id: str, do: Do, node: str = "") -> ActionStatus:
        """Want an action, once: the same id is the same action."""
        known = self._actions.get(action_id)
        if known is None:
            known = ActionStatus(id=action_id, kind=str(do), node=node, started_ns=self.ns)
            self._actions[action_id] = known
            self.status.actions.append(known)
        return known

    def find(self, action_id: str) -> ActionStatus | None:
        return self._actions.get(action_id)

    def attempts(self, do: Do, node: str) -> list[ActionStatus]:
        """The actions of this kind for this node so far, oldest first."""
        return [a for a in self.status.actions if a.kind == str(do) and a.node == node]

    def in_order(self, first: ActionStatus, second: ActionStatus) -> bool:
        """Whether the second was asked for after the first."""
        order = list(self._actions)
        return order.index(first.id) < order.index(second.id)

    def open_actions(self) -> list[Action]:
        return [
            Action(action.id, Do(action.kind), action.node)
            for action in self.status.actions
            if action.ended_ns is None
        ]

    # ------------------------------------------------------------------ time

    def due(self, ns: int) -> bool:
        """Whether an instant has come; if not, the run is looked at again then."""
        if ns <= self.ns:
            return True
        self._wakes.append(ns)
        return False

    def since(self, ns: int) -> int:
        """The beginning of a time-out: not before the engine that is to keep it was there."""
        return max(ns, self.status.resumed_ns)

    def wake(self) -> int | None:
        return min(self._wakes, default=None)


def copied(status: RunStatus) -> RunStatus:
    """A copy that may be changed: points and samples are never changed, so they are shared."""
    return status.model_copy(
        update={
            "timeline": list(status.timeline),
            "phases": [phase.model_copy() for phase in status.phases],
            "faults": [fault.model_copy() for fault in status.faults],
            "probes": [
                probe.model_copy(update={"samples": list(probe.samples)}) for probe in status.probes
            ],
            "traffic": [
                one.model_copy(update={"seconds": list(one.seconds)}) for one in status.traffic
            ],
            "budgets": [
                one.model_copy(update={"points": list(one.points)}) for one in status.budgets
            ],
            "failures": list(status.failures),
            "actions": [action.model_copy() for action in status.actions],
            "nodes": [node.model_copy() for node in status.nodes],
            "pauses": list(status.pauses),
            "points": status.points.model_copy(),
        }
    )
