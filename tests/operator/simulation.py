"""A cluster in memory: an API server, agents and an operator that can be killed at every step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from faultline.api.fault import FaultResourceStatus
from faultline.api.host import Actual, Desired, HostSpec, HostStatus
from faultline.api.targets import AimedFaultSpec
from faultline.operator.cluster import Cluster, Node, Owner, Pod, Running
from faultline.operator.hosts import asked, view_of
from faultline.operator.model import Decision, Facts, FaultView, Notice
from faultline.operator.reconcile import reconcile
from faultline.operator.tally import HostView

LEASE = 10.0  # seconds without a sign of an agent after which it is lost


class Killed(Exception):
    """The operator died here."""


@dataclass
class SimHost:
    """A host with its agent: two documents, and what is really there."""

    name: str
    spec: HostSpec = field(default_factory=HostSpec)
    status: HostStatus = field(default_factory=HostStatus)
    real: dict[str, Actual] = field(default_factory=dict[str, Actual])  # the journal
    up: bool = True
    connected: bool = True
    seen: float = 0.0  # when its lease was renewed
    gone: bool = False  # the node has been removed
    version: int = 0  # grows with every write of either document


@dataclass
class World:
    """All that is durable."""

    rng: random.Random
    now: float = 1000.0
    hosts: dict[str, SimHost] = field(default_factory=dict[str, SimHost])
    pods: dict[str, Pod] = field(default_factory=dict[str, Pod])
    faults: dict[str, FaultView] = field(default_factory=dict[str, FaultView])
    ended: dict[str, FaultResourceStatus] = field(default_factory=dict[str, FaultResourceStatus])
    events: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    halted: str | None = None
    injected: int = 0
    writes: int = 0
    stuck: float = 0.0  # the share of undo that needs a person
    dull: float = 0.0  # the share of faults without effect
    refusing: float = 0.0
    lag: float = 0.0  # the share of objects of which the operator has not heard lately
    known_faults: dict[str, FaultView] = field(default_factory=dict[str, FaultView])
    known_hosts: dict[str, SimHost] = field(default_factory=dict[str, SimHost])

    # ------------------------------------------------------------------ what there is

    def add_host(self, name: str, pods: int, owner: str = "web") -> None:
        self.hosts[name] = SimHost(name, seen=self.now)
        for number in range(pods):
            self.add_pod(f"{owner}-{name}-{number}", name, owner)

    def add_pod(self, name: str, host: str, owner: str = "web") -> Pod:
        uid = f"uid-{name}"
        made = Pod("shop", name, uid, host, labels={"app": owner}, created=self.now,
                   owner=Owner("ReplicaSet", owner, f"rs-{owner}"),
                   containers=(Running("main", f"c-{name}"),))  # fmt: skip
        self.pods[uid] = made
        return made

    def remove_pod(self, uid: str) -> None:
        self.pods.pop(uid, None)

    def make_fault(self, name: str, **fields: Any) -> str:
        spec = AimedFaultSpec.model_validate(
            {"fault": "network.delay", "duration": "60s",
             "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"}, **fields}
        )  # fmt: skip
        uid = f"{len(self.faults) + len(self.ended):08d}-{name}"
        self.faults[uid] = FaultView("shop", name, uid, spec=spec)
        return uid

    def delete_fault(self, uid: str) -> None:
        fault = self.faults.get(uid)
        if fault is None:
            return
        if fault.finalizer:
            # The API server counts that as a new generation.
            generation = fault.generation + (not fault.deleting)
            self.faults[uid] = replace(fault, deleting=True, generation=generation)
        else:
            self.ended[uid] = self.faults.pop(uid).status

    def cluster(self) -> Cluster:
        nodes = {h.name: Node(h.name) for h in self.hosts.values() if not h.gone}
        agents = {h.name: self.alive(h) for h in self.hosts.values() if not h.gone}
        return Cluster(dict(self.pods), nodes, agents, ours="faultline")

    def alive(self, host: SimHost) -> bool:
        return self.now - host.seen < LEASE

    def views(self) -> dict[str, HostView]:
        """As the operator knows them: leases and nodes are watched apart."""
        return {
            name: replace(
                view_of(name, host.spec, host.status),
                alive=name in self.hosts and self.alive(self.hosts[name]),
                gone=name not in self.hosts or self.hosts[name].gone,
            )
            for name, host in self.known_hosts.items()
        }

    def hear(self) -> None:
        """What watches bring: not of everything, and never what is older than what is known."""
        for known, real in ((self.known_faults, self.faults), (self.known_hosts, self.hosts)):
            for name in {*known, *real}:
                if self.rng.random() < self.lag:
                    continue
                found = real.get(name)
                if found is None:
                    known.pop(name, None)
                else:
                    known[name] = replace(found)

    # ------------------------------------------------------------------ agents

    def agents(self) -> None:
        for host in self.hosts.values():
            if host.up:
                self._agent(host)

    def _agent(self, host: SimHost) -> None:
        if host.connected:
            host.seen = self.now
            self._heed(host)
        elif not self.alive(host):
            for uid, actual in host.real.items():
                self._undo(host, uid, actual, "its lease has ended")
        for uid, actual in host.real.items():
            length = self._length.get(uid, 60.0)
            if actual.stage == "active" and self.now >= (actual.injected_at or 0) + length:
                self._undo(host, uid, actual)
            elif actual.stage == "active" and self._pod_gone(uid):
                host.real[uid] = actual.model_copy(
                    update={"stage": "ended", "end": "target gone", "ended_at": self.now}
                )
        if host.connected:
            status = HostStatus(actual=[each.model_copy() for each in host.real.values()])
            if status != host.status:
                host.status, host.version = status, host.version + 1

    _length: dict[str, float] = field(default_factory=dict[str, float])
    _pod_of: dict[str, str] = field(default_factory=dict[str, str])

    def _pod_gone(self, uid: str) -> bool:
        return self._pod_of.get(uid, "") not in ("", *self.pods)

    def _heed(self, host: SimHost) -> None:
        wanted = {each.uid: each for each in host.spec.desired}
        for uid, each in wanted.items():
            if each.undo or host.spec.halted:
                self._leave(host, each)
            elif uid not in host.real:
                self._inject(host, each)
        for uid in [*host.real]:
            actual = host.real[uid]
            if uid not in wanted:
                if actual.stage == "active":
                    self._undo(host, uid, actual)
                elif actual.end != "needs a person":
                    del host.real[uid]

    def _inject(self, host: SimHost, each: Desired) -> None:
        if self.now >= each.asked_at + each.duration.seconds:
            host.real[each.uid] = Actual(uid=each.uid, stage="refused", error="too late")
            return
        if self.rng.random() < self.refusing:
            host.real[each.uid] = Actual(uid=each.uid, stage="refused", error="not here")
            return
        if each.pod is not None:
            self._pod_of[each.uid] = each.pod.uid
        self._length[each.uid] = each.duration.seconds
        self.injected += 1
        effect = "ineffective" if self.rng.random() < self.dull else "effective"
        host.real[each.uid] = Actual(uid=each.uid, stage="active", effect=effect,
                                     injected_at=self.now, effective_at=self.now)  # fmt: skip

    def _leave(self, host: SimHost, each: Desired) -> None:
        actual = host.real.get(each.uid)
        if actual is None:
            host.real[each.uid] = Actual(uid=each.uid, stage="refused", error="to be undone")
        elif actual.stage == "active":
            self._undo(host, each.uid, actual)

    def _undo(self, host: SimHost, uid: str, actual: Actual, why: str = "") -> None:
        if actual.stage != "active":
            return
        end = "needs a person" if self.rng.random() < self.stuck else "recovered"
        host.real[uid] = actual.model_copy(
            update={"stage": "ended", "end": end, "ended_at": self.now, "error": why}
        )

    # ------------------------------------------------------------------ the operator

    def operator(self, die: float = 0.0) -> None:
        """One look at everything; it may die before any of its writes."""
        self.hear()
        wanted: dict[str, Decision] = {}
        try:
            for uid in sorted(self.known_faults):
                facts = Facts(self.now, self.views(), self.cluster(), self.halted)
                decision = reconcile(self.known_faults[uid], facts)
                wanted[uid] = decision
                self._write_fault(uid, decision, die)
            for name in sorted(self.known_hosts):
                self._write_host(name, wanted, die)
        except Killed:  # the next one lists everything
            lag, self.lag = self.lag, 0.0
            self.hear()
            self.lag = lag

    def _may_die(self, die: float) -> None:
        if self.rng.random() < die:
            raise Killed

    def _write_fault(self, uid: str, decision: Decision, die: float) -> None:
        """As the operator does: one write of a fault in a round, of what it has read."""
        known = self.known_faults[uid]
        if decision.finalizer and not known.finalizer:
            changed = replace(known, finalizer=True)
        elif decision.status != known.status:
            changed = replace(known, status=decision.status)
        elif known.finalizer and not decision.finalizer:
            changed = replace(known, finalizer=False)
        else:
            return
        self._may_die(die)
        if self.faults.get(uid) != known:
            return  # a conflict
        if changed.finalizer and not known.finalizer:
            assert not known.deleting, "no finalizer is put on what is being deleted"
        self.writes += 1
        if changed.status != known.status:
            self.events += [(uid, each.reason) for each in decision.notices]
        self.faults[uid] = self.known_faults[uid] = changed
        if changed.deleting and not changed.finalizer:
            self.ended[uid] = self.faults.pop(uid).status

    def _write_host(self, name: str, wanted: dict[str, Decision], die: float) -> None:
        known = self.known_hosts[name]
        here = {uid: each.wanted.get(name, {}) for uid, each in wanted.items()}
        halted = "halted" if self.halted is not None else ""
        spec = asked(known.spec, here, self.known_faults.keys(), halted)
        if spec == known.spec:
            return
        self._may_die(die)
        host = self.hosts.get(name)
        if host is None or host.version != known.version:
            return  # a conflict
        host.spec, host.version = spec, host.version + 1
        self.known_hosts[name] = replace(host)
        self.writes += 1

    # ------------------------------------------------------------------ what must hold

    def check(self) -> None:
        for fault in self.faults.values():
            _counted(fault.status)
            if fault.status.phase in ("ended", "refused"):
                assert fault.status.ended is not None
        for status in self.ended.values():
            _counted(status)

    def desired(self, uid: str) -> list[Desired]:
        return [e for h in self.hosts.values() for e in h.spec.desired if e.owner_uid == uid]

    def step(self, seconds: float = 1.0, die: float = 0.0) -> None:
        self.operator(die)
        self.agents()
        self.now += seconds
        self.check()

    def until(self, uid: str, phase: str, limit: int = 400, die: float = 0.0) -> FaultView:
        for _ in range(limit):
            if self.faults[uid].status.phase == phase:
                return self.faults[uid]
            self.step(die=die)
        raise AssertionError(f"{uid} is {self.faults[uid].status}, not {phase}")

    def steps(self, count: int, die: float = 0.0) -> Iterator[int]:
        for number in range(count):
            self.step(die=die)
            yield number


def _counted(status: FaultResourceStatus) -> None:
    """Counts never lie: they are the sums, and nobody ends twice."""
    counts = status.counts
    for name in ("targets", "injected", "effective", "recovered", "gone", "person", "refused"):
        assert getattr(counts, name) == sum(getattr(share, name) for share in status.hosts)
    for share in status.hosts:
        assert share.recovered + share.gone + share.person + share.refused <= share.targets
        assert share.effective + share.ineffective + share.unmeasured <= share.injected
    if status.phase == "ended" and status.end == "recovered":
        assert counts.recovered + counts.refused + counts.gone == counts.targets, status
    if status.effect == "effective":
        assert counts.effective == counts.targets


def world(hosts: int = 3, pods: int = 2, seed: int = 0, **fields: Any) -> World:
    made = World(random.Random(seed), **fields)
    for number in range(hosts):
        made.add_host(f"n{number}", pods)
    return made


__all__ = ["Notice", "SimHost", "World", "world"]
