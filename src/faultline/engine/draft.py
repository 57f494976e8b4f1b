"""A run's status while it is being decided upon: a copy, with the words that reconcilers use."""

from __future__ import annotations

from typing import Literal

from faultline.api.experiment import ExperimentSpec
from faultline.api.run import (
    ActionStatus,
    Failure,
    FaultStatus,
    Phase,
    PhaseStatus,
    Point,
    Run,
    RunStatus,
    Stage,
)
from faultline.engine.model import Action, Do, Now

AbortedBy = Literal["guard", "user", "reboot", "engine"]


class Draft:
    """The status that is being made, with the clock that never runs backwards."""

    def __init__(self, run: Run, now: Now) -> None:
        self.run = run
        self.spec: ExperimentSpec = run.spec.resolved
        self.status = copied(run.status)
        self.now = now
        self._wakes: list[int] = []
        self._actions = {action.id: action for action in self.status.actions}

    @property
    def ns(self) -> int:
        """CLOCK_BOOTTIME as the run has seen it."""
        return self.status.clock_ns

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
            "failures": list(status.failures),
            "actions": [action.model_copy() for action in status.actions],
        }
    )
