"""What must be true of several engines at every moment, and at the end."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

from faultline.api.graph import walk
from faultline.api.run import Phase, Point, Run, Stage
from faultline.api.schedule import Schedule
from faultline.changes.model import State
from faultline.engine.calendar import occurrences
from faultline.engine.lifecycle import SETTLED
from faultline.engine.model import Action
from faultline.stores.model import Lease

if TYPE_CHECKING:
    from tests.engine.cluster import Cluster


class Judge:
    """Sees everything that is written, told and done."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.latest: dict[str, Run] = {}
        self.heard: dict[str, list[Point]] = {}
        self.made: Counter[str] = Counter()
        self.acts: Counter[str] = Counter()

    # ------------------------------------------------------------------ at every moment

    def created(self, resource: Any) -> Any:
        if isinstance(resource, Run):
            self.made[resource.metadata.name] += 1
            assert self.made[resource.metadata.name] == 1, "a run was made twice"
            self.latest[resource.metadata.name] = resource
        return resource

    def wrote(self, resource: Any) -> Any:
        if isinstance(resource, Run):
            before = self.latest[resource.metadata.name]
            self.latest[resource.metadata.name] = resource
            self._moved(before, resource)
        return resource

    def _moved(self, before: Run, after: Run) -> None:
        old, new = before.status, after.status
        assert new.phase.rank >= old.phase.rank, "a phase went backwards"
        assert new.timeline[: len(old.timeline)] == old.timeline, "the past was changed"
        assert old.verdict in (None, new.verdict), "a verdict was changed"
        if old.phase is Phase.ENDED:
            assert new == old, "a run that has ended was changed"
        stages = {fault.name: fault for fault in old.faults}
        for fault in new.faults:
            was = stages.get(fault.name)
            assert was is None or fault.stage.rank >= was.stage.rank, "a fault went backwards"
            ended = fault.stage is Stage.ENDED and (was is None or was.stage is not Stage.ENDED)
            if ended and fault.end in SETTLED:
                self._undone(fault.uid)

    def _undone(self, uid: str) -> None:
        """Whoever says that a fault is gone is right, on whatever host it was made."""
        for host in self.cluster.hosts:
            record = host.journal.get(uid)
            assert record is None or record.state is State.ENDED, f"{uid} is said to be undone"
            assert uid not in host.stuck, f"something of {uid} is left"

    def acted(self, run: str, action: Action, lease: Lease | None) -> None:
        """Only who holds the run by the store's own reckoning may do anything for it."""
        fence = self.cluster.fence(run)
        assert lease is not None, f"{action.id} was done without a lease"
        assert lease.fence == fence, f"{action.id} was done with number {lease.fence}, not {fence}"
        self.acts[f"{run}:{action.id}"] += 1

    def told(self, run: Run, point: Point) -> None:
        """Somebody has been told: it must stay in the timeline."""
        self.heard.setdefault(run.metadata.name, []).append(point)
        assert point in self.latest[run.metadata.name].status.timeline, "told, and not written down"

    # ------------------------------------------------------------------ at the end

    def settle(self, since: float) -> None:
        """Whatever was made before an instant has come to its end."""
        for run in self.latest.values():
            if run.metadata.creation_timestamp < since:
                self._run(run)
        for host in self.cluster.hosts:
            for uid, times in host.applied.items():
                assert times == 1, f"{uid} was injected {times} times"
            for record in host.journal.values():
                over = record.state is State.ENDED or record.deadline > host.ns
                assert over, f"{record.uid} is left"
        uids = [uid for host in self.cluster.hosts for uid in host.applied]
        assert len(uids) == len(set(uids)), "a fault was injected on two hosts"

    def schedule(self, schedule: Schedule) -> None:
        """Each occurrence was decided on once: run, or left out with a reason."""
        status, name = schedule.status, schedule.metadata.name
        seen, began = status.seen or 0, schedule.metadata.creation_timestamp
        due = sum(1 for _ in itertools.takewhile(
            lambda each: each.original <= seen, occurrences(schedule, began)))  # fmt: skip
        decided = status.started + status.skipped + len(status.creating) + len(status.backlog)
        assert decided == due, f"{decided} of {due} occurrences were decided on"
        made = [run for run in self.made if run.startswith(f"{name}-")]
        begun = status.started + len(status.creating)
        assert status.started <= len(made) <= begun, f"{len(made)} runs, {status.started} told"

    def _run(self, run: Run) -> None:
        name, status = run.metadata.name, run.status
        assert status.verdict is not None, f"{name} has no verdict"
        assert status.reason
        for point in self.heard.get(name, []):
            assert point in status.timeline, f"{name}: {point.event} was told and forgotten"
        for node in status.nodes:
            assert node.over, f"{name}: {node.name} has not ended"
        steps = {step.name: step for _, step in walk(run.spec.resolved.nodes)}
        steps |= {step.name: step for _, step in walk(run.spec.resolved.finally_)}
        for host in self.cluster.hosts:
            for did, times in Counter(host.did).items():
                node, _, number = did.removeprefix(f"{name}:").partition("/")
                if did.startswith(f"{name}:") and not getattr(steps[node], "idempotent", False):
                    assert times == 1, f"{did} was done {times} times"
                    assert number
