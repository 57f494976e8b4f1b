"""A world in memory for the engine: journal, keepers, probes and traffic, on a clock of its own.

It stands in for the host behind the engine's ports, so that a run of minutes takes milliseconds and
everything can go wrong at any moment. What goes wrong is decided by a seeded source of randomness.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from faultline.api.experiment import ExperimentSpec
from faultline.api.model import Metadata
from faultline.api.probe import Measurement, ProbeBase
from faultline.api.run import Environment, Run, RunSpec
from faultline.api.traffic import TrafficFigures, TrafficSecond, TrafficSpec
from faultline.changes.model import Change, End, Record, State, Step
from faultline.engine.model import SECOND, Done, Now
from faultline.engine.ports import FaultOrder, Tools
from faultline.errors import ApplyFailed, RecoveryIncomplete, Refused
from faultline.injection.reading import Effect, Reading
from faultline.units import Duration


def experiment(**changes: Any) -> ExperimentSpec:
    """A usual experiment: two faults, a probe of every role, traffic."""
    spec: dict[str, Any] = {
        "title": "a test",
        "hypothesis": {"text": "it holds", "probes": ["during", "edge"]},
        "probes": [
            {"name": "during", "type": "tcp", "host": "h", "port": 1, "mode": "during"},
            {"name": "edge", "type": "tcp", "host": "h", "port": 1, "mode": "edge"},
            {"name": "guard", "type": "tcp", "host": "h", "port": 1, "interval": "500ms"},
        ],
        "traffic": [{"type": "http", "name": "load", "url": "http://h/", "rate": 10}],
        "faults": [
            {"name": "one", "fault": "network.delay", "duration": "10s"},
            {"name": "two", "fault": "cpu.burn", "duration": "5s", "start": "3s"},
        ],
        "steadyState": ["edge"],
        "guards": ["guard"],
    }
    return ExperimentSpec.model_validate({**spec, **changes})


def new_run(spec: ExperimentSpec) -> Run:
    return Run(
        metadata=Metadata(name="r", uid="0123456789abcdef", resource_version=1),
        spec=RunSpec(experiment="e", resolved=spec),
    )


@dataclass
class Odds:
    """How often something goes wrong, from 0 to 1."""

    refuse: float = 0.0
    fail: float = 0.0
    unforeseen: float = 0.0
    hang: float = 0.0
    half: float = 0.0  # the engine dies in the middle of an injection
    ineffective: float = 0.0
    unmeasured: float = 0.0
    unrecovered: float = 0.0
    person: float = 0.0
    sticky: float = 0.0  # an undo says that it is done, and something is left
    bad: float = 0.0  # a probe fails
    blind: float = 0.0  # a probe cannot measure
    task: float = 0.0  # a task goes wrong


@dataclass
class World:
    """Everything outside the engine."""

    random: random.Random
    odds: Odds = field(default_factory=Odds)
    ns: int = 1000 * SECOND
    skew: float = 0.0
    before: float = 0.0  # seconds of the earlier boots
    boot: int = 1
    journal: dict[str, Record] = field(default_factory=dict[str, Record])
    applied: Counter[str] = field(default_factory=Counter[str])
    stuck: set[str] = field(default_factory=set[str])
    values: dict[str, Measurement] = field(default_factory=dict[str, Measurement])
    running: set[str] = field(default_factory=set[str])
    sent: list[TrafficSecond] = field(default_factory=list[TrafficSecond])
    done: dict[str, list[Done]] = field(default_factory=dict[str, list[Done]])
    did: list[str] = field(default_factory=list[str])
    seeds: dict[str, int | None] = field(default_factory=dict[str, int | None])
    orders: list[FaultOrder] = field(default_factory=list[FaultOrder])

    def now(self) -> Now:
        return Now(1e9 + self.before + self.ns / SECOND + self.skew, self.ns, f"boot-{self.boot}")

    def chance(self, odds: float) -> bool:
        return self.random.random() < odds

    def pass_time(self, ns: int) -> None:
        """The keepers undo what is past its deadline, whatever the engine does."""
        self.ns += ns
        for record in self.journal.values():
            overdue = record.state is not State.ENDED and record.deadline <= self.ns
            if overdue and self.odds.unrecovered < 1:
                self.stuck.discard(record.uid)
                self.end(record, End.RECOVERED)

    def end(self, record: Record, end: End) -> None:
        record.state, record.end = State.ENDED, end

    def reboot(self) -> None:
        """Nothing survives but the journal; leftovers are recovered at boot."""
        self.boot += 1
        self.before += self.ns / SECOND
        self.ns = 5 * SECOND
        self.running.clear()
        for record in self.journal.values():
            if record.state is not State.ENDED:
                self.end(record, End.RECOVERED)

    def active(self) -> list[Record]:
        return [r for r in self.journal.values() if r.state is not State.ENDED]

    def tools(self) -> Tools:
        @contextmanager
        def injector() -> Iterator[WorldInjector]:
            yield WorldInjector(self)

        return Tools(
            injector,
            WorldProber(self),
            WorldTraffic(self),
            lambda: Environment(hostname="w"),
            dict,
            doer=WorldDoer(self),
        )


class WorldInjector:
    def __init__(self, world: World) -> None:
        self.world = world

    def changes(self, order: FaultOrder) -> list[tuple[str, str]]:
        if self.world.chance(self.world.odds.refuse):
            raise Refused("not here")
        return [(f"{order.fault} on", f"{order.fault} off")]

    def inject(self, order: FaultOrder) -> Record:
        world = self.world
        world.orders.append(order)
        if world.chance(world.odds.refuse):
            raise Refused("a guard said no")
        record = Record(
            uid=order.uid,
            fault=order.fault,
            params=order.params,
            place={},
            steps=[Step(Change("k", {}))],
            duration=int(order.duration),
            deadline=world.ns + int(order.duration),
            boot_id=f"boot-{world.boot}",
            created=0.0,
        )
        world.applied[order.uid] += 1
        world.journal[order.uid] = record
        if world.chance(world.odds.half):
            record.state = State.APPLYING
            raise RuntimeError("cut off in the middle")
        if world.chance(world.odds.fail):
            world.end(record, End.RECOVERED)
            raise ApplyFailed("the kernel said no")
        record.state = State.ACTIVE
        if world.chance(world.odds.unforeseen):
            raise RuntimeError("nobody thought of this")
        return record

    def observe(self, uid: str) -> Reading:
        world = self.world
        if world.chance(world.odds.unforeseen):
            raise RuntimeError("nobody thought of this")
        if world.chance(world.odds.unmeasured) or world.journal[uid].state is State.ENDED:
            return Reading.unmeasured("100 ms", "tap", "no traffic matched")
        if world.chance(world.odds.ineffective):
            return Reading(Effect.INEFFECTIVE, "100 ms", "0 ms", "tap", "0 of 20 were late")
        return Reading(Effect.EFFECTIVE, "100 ms", "101 ms", "tap")

    def recover(self, uid: str) -> Record:
        world, record = self.world, self.world.journal[uid]
        if world.chance(world.odds.unforeseen):
            raise RuntimeError("nobody thought of this")
        ended = record.state is State.ENDED and record.end is not End.PERSON
        if ended and uid not in world.stuck:
            return record
        if world.chance(world.odds.unrecovered):
            raise RecoveryIncomplete("it is still there")
        (world.stuck.add if world.chance(world.odds.sticky) else world.stuck.discard)(uid)
        world.end(record, End.PERSON if world.chance(world.odds.person) else End.RECOVERED)
        return record

    def residue(self, uid: str) -> list[str]:
        record = self.world.journal[uid]
        ended = record.state is State.ENDED and record.end is not End.PERSON
        return [] if ended and uid not in self.world.stuck else [f"{record.fault} on"]

    def find(self, uid: str) -> Record | None:
        found = self.world.journal.get(uid)
        return replace(found) if found else None

    def describe(self, record: Record) -> list[tuple[str, str]]:
        return [(f"{record.fault} on", f"{record.fault} off") for _ in record.steps]


class WorldProber:
    def __init__(self, world: World) -> None:
        self.world = world

    def measure(
        self, spec: ProbeBase, timeout: Duration, kept: dict[str, Any] | None = None
    ) -> Measurement:
        world = self.world
        if spec.name in world.values:
            return world.values[spec.name].model_copy()
        if world.chance(world.odds.blind):
            return Measurement(ok=None, text="cannot see")
        return Measurement(value=0.1, ok=not world.chance(world.odds.bad), text="seen")

    def close(self) -> None:
        pass


class WorldTraffic:
    def __init__(self, world: World) -> None:
        self.world = world

    def start(self, spec: TrafficSpec, seed: int | None = None) -> None:
        self.world.running.add(spec.name)
        self.world.seeds[spec.name] = seed

    def seconds(self, name: str, after: float) -> list[TrafficSecond]:
        at = float(int(self.world.now().at))
        return [TrafficSecond(at=at, sent=10, ok=10)] if name in self.world.running else []

    def figures(self, name: str, window: Duration | None) -> TrafficFigures | None:
        return TrafficFigures(sent=10, ok=10, seconds=1.0) if name in self.world.running else None

    def stop(self, name: str) -> TrafficFigures | None:
        self.world.running.discard(name)
        return TrafficFigures(sent=10, ok=10, seconds=1.0)

    def close(self) -> None:
        self.world.running.clear()


class WorldDoer:
    """Tasks and other experiments: what `world.done` says of the node, once each, then good."""

    def __init__(self, world: World) -> None:
        self.world = world

    def do(self, run: Run, node: str, number: int) -> Done:
        world = self.world
        world.did.append(f"{node}/{number}")
        if world.chance(world.odds.task):
            return Done("error", "it went wrong", {"code": 1})
        scripted = world.done.get(node)
        return scripted.pop(0) if scripted else Done(None, "", {"code": 0})

    def cancel(self, node: str, why: str) -> None:
        self.world.did.append(f"cancel {node}")
