"""The one life cycle of every fault: plan, record, arm, apply, observe, recover.

Order of things, and why. The prior state is looked at and written to the journal first; then both
keepers hold the fault, with code and descriptors loaded; only then is anything touched. From the
commit on the fault belongs to the keepers: this process may die.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from faultline.changes import frozen, keepers, undo
from faultline.changes.kind import Context, kinds
from faultline.changes.lock import FaultLock
from faultline.changes.model import Change, End, Record, State, Step, StepState
from faultline.errors import (
    ApplyFailed,
    Halted,
    JournalFailed,
    NotRecorded,
    ObserveFailed,
    PlanStale,
    RecoveryIncomplete,
    TargetGone,
    Unsupported,
)
from faultline.injection import chance, guards, readdressing, registry
from faultline.injection.model import Fault
from faultline.injection.plan import (
    Order,
    Plan,
    PlannedStep,
    check_duration,
    check_uid,
    differences,
    new_uid,
)
from faultline.injection.reading import Reading
from faultline.injection.recovery import Recovery
from faultline.kernel import clock
from faultline.kernel.netlink import Netlink
from faultline.places.find import Target, find
from faultline.places.model import Place


@dataclass(frozen=True, slots=True)
class Kept:
    """Who keeps a fault, with which route socket, and whether it ends with this process."""

    watch: keepers.Keepers
    netlink: Netlink
    tied: bool


class Injector(Recovery):
    """Injects, measures and recovers faults on this host, through one store."""

    def __init__(self, state: Path | None = None) -> None:
        super().__init__(state)
        self.lease = ""  # what is injected ends with this lease too (faultline.changes.lease)
        self._ties: dict[str, keepers.Keepers] = {}

    def close(self) -> None:
        """Let go; faults that are tied to this process are undone by the keepers."""
        for watch in self._ties.values():
            watch.close()
        super().close()

    def untie(self) -> None:
        """In a forked child: close its copies of the connections that tie faults to the parent."""
        for watch in self._ties.values():
            watch.close()
        self._ties.clear()

    # ------------------------------------------------------------------ plan

    def plan(self, order: Order) -> Plan:
        """What this order would do. Looks, touches nothing."""
        fault = registry.get(order.fault)
        params = fault.params_type().read(order.params)
        place = _place(fault, order.target)
        guard = guards.Guard(order.allow)
        seed = chance.new() if order.seed is None else order.seed
        with guards.active(guard), chance.seeded(seed), place.entered():
            changes = tuple(fault.plan(place, params))
        described = [kinds()[change.kind].describe(change.spec) for change in changes]
        return Plan(
            uid=check_uid(order.uid) if order.uid else new_uid(order.fault),
            fault=order.fault,
            params=params.model_dump(mode="json", exclude_defaults=False),
            duration=check_duration(order.duration),
            place=place,
            changes=changes,
            steps=tuple(
                PlannedStep(change.kind, *texts)
                for change, texts in zip(changes, described, strict=True)
            ),
            ending=str(fault.ending),
            allow=tuple(sorted(order.allow)),
            notes=tuple(guard.notes),
            engine=guard.engine,
            others=guard.others,
            exempt=None if guard.exempt is None else tuple(guard.exempt),
            creator=order.creator or _user(),
            target=order.target,
            made=time.time(),
            seed=seed,
        )

    # ------------------------------------------------------------------ apply

    def inject(self, order: Order) -> Record:
        """Plan and apply."""
        return self.carry_out(self.plan(order))

    def apply(self, plan: Plan) -> Record:
        """Do what a plan says, or refuse if the world has moved since it was made."""
        order = Order(
            plan.fault,
            plan.params,
            plan.duration,
            plan.uid,
            frozenset(plan.allow),
            plan.creator,
            plan.target,
            plan.seed,
        )
        now = self.plan(order)
        moved = differences(_facts(plan), _facts(now))
        if moved:
            raise PlanStale(
                f"the plan {plan.uid} no longer fits: {'; '.join(moved[:3])}",
                hint="make the plan again and read it: faultline plan ...",
            )
        return self.carry_out(now)

    def carry_out(self, plan: Plan, tied: bool = False) -> Record:
        """Apply a plan that was made just now. A `tied` fault ends with this injector's process."""
        self.check_halt()
        record = Record(
            uid=plan.uid,
            fault=plan.fault,
            params=plan.params,
            place=plan.place.to_json(),
            steps=[Step(change) for change in plan.changes],
            duration=int(plan.duration),
            deadline=clock.now() + int(plan.duration),
            boot_id=plan.place.boot_id,
            created=time.time(),
            creator=plan.creator,
            note="; ".join(plan.notes),
            lease=self.lease,
        )
        with ExitStack() as held:
            watch = self._carry_out(record, plan.place, tied, held)
        if tied:
            self._ties[record.uid] = watch
        return record

    def _carry_out(
        self, record: Record, place: Place, tied: bool, held: ExitStack
    ) -> keepers.Keepers:
        """Capture, record, arm and make; the keepers are started outside of the place."""
        code = str(frozen.code_folder(self.store))
        undo.load_workers(record, code)
        with place.entered():
            netlink = held.enter_context(Netlink.open())
        made_with = undo.contexts(record, netlink, str(self.store.run), code)
        held.callback(undo.release, made_with)
        with place.entered():
            undo.capture(record, made_with)
        watch = keepers.Keepers(self.store)
        done = False
        try:
            watch.start()
            record.deadline = clock.now() + record.duration
            for ctx in made_with:
                ctx.deadline = record.deadline
            self.journal.grow()
            self.journal.add(record, undo.claims(record))
            kept = Kept(watch, netlink, tied)
            with place.entered():
                self._arm_and_make(record, made_with, kept)
            done = True
        finally:
            if not (tied and done):
                watch.close()
        return watch

    def _arm_and_make(self, record: Record, made_with: list[Context], kept: Kept) -> None:
        try:
            kept.watch.arm(record, kept.netlink)
            self.check_halt()  # once more: whoever halts after this finds the record
        except (NotRecorded, Halted):
            self.journal.end(record.uid, End.NOTHING)
            raise
        lock = FaultLock(self.store.lock(record.uid)).acquire()
        try:
            undo.apply_steps(
                record, made_with, lock, lambda index, step: self._note(record, index, step)
            )
            record.state = State.ACTIVE
            made = [step.made for step in record.steps]
            kept.watch.commit(record.uid, made, kept.tied)
            self._write(record.uid, lambda kept: setattr(kept, "state", State.ACTIVE))
        except BaseException as error:
            # Whatever it was, including Ctrl-C: the unforeseen is `maybe`, so it is undone.
            lock.release()
            self._take_back(record, made_with, error)
            raise
        finally:
            lock.close()

    def _note(self, record: Record, index: int, step: Step) -> None:
        def alter(kept: Record) -> None:
            kept.steps[index] = step
            kept.state = State.APPLYING

        if step.state is StepState.APPLYING:
            self.journal.change(record.uid, alter, durable=False)
        else:
            self._write(record.uid, alter)

    def _write(self, uid: str, alter: Callable[[Record], None]) -> None:
        """Note what is done already; it stands also where the disk has just become full.

        Both keepers hold the fault. Should they die too, the next start finds it unfinished and
        undoes it; so it does should the power fail before such a note is on disk.
        """
        with contextlib.suppress(JournalFailed):
            self.journal.change(uid, alter, durable=False)

    def _take_back(self, record: Record, made_with: list[Context], error: BaseException) -> None:
        with FaultLock(self.store.lock(record.uid)) as lock:
            end = undo.undo_steps(record, made_with, lock)
        record.end, record.ended = end, time.time()
        try:
            self.journal.end(record.uid, end, record)
            if end is not End.PERSON:  # what could not be undone they try again
                keepers.forget(self.store, record.uid)
        except JournalFailed:
            record.note = "undone; the keepers write it down when the journal can be written"
        if end is End.PERSON:
            raise RecoveryIncomplete(
                f"{record.fault} could not be applied, and not all of it could be undone: {error}",
                hint=undo.by_hand(record),
            ) from error
        if isinstance(error, OSError):
            where = f" ({error.filename})" if error.filename else ""
            raise ApplyFailed(
                f"{record.fault} could not be applied: {error.strerror}{where}",
                hint=f"what had been made is undone: {end}",
            ) from error

    # ------------------------------------------------------------------ other addresses

    def readdress(self, uid: str, sides: Mapping[str, list[str]]) -> Record:
        """Have a fault of the network go by other addresses, and write them down: `source` and
        `destination`, those of them that it was asked for with. In its filters they are changed
        one by one, the new ones first. Raises TargetGone, Unsupported, UnknownName.
        """
        record = self.journal.get(uid)
        place = Place.from_json(record.place)
        with place.entered(), Netlink.open() as netlink:
            readdressing.follow(netlink, record, sides)

        def alter(kept: Record) -> None:
            kept.params = {**kept.params, **sides}
            for index, step in readdressing.filters(kept):
                match = readdressing.matched(kept, step, sides)
                spec = {**step.change.spec, "match": {**step.change.spec["match"], **match}}
                kept.steps[index].change = Change(step.change.kind, spec)

        self._write(uid, alter)
        return self.journal.get(uid)

    # ------------------------------------------------------------------ observe

    def observe(self, uid: str) -> Reading:
        """Measure a fault at its target and write the reading down."""
        record = self.journal.get(uid)
        fault = registry.get(record.fault)
        params = fault.params_type().read(record.params)
        place = Place.from_json(record.place)
        try:
            reading = _observed(fault, place, params, record)
        except (ObserveFailed, TargetGone) as error:
            reading = Reading.unmeasured(record.fault, fault.measures, str(error))
        except OSError as error:
            reason = f"the measurement failed: {error.strerror or error}"
            reading = Reading.unmeasured(record.fault, fault.measures, reason)
        self._write(uid, lambda kept: setattr(kept, "reading", reading.to_json()))
        return reading


def _observed(fault: Fault[Any], place: Place, params: Any, record: Record) -> Reading:
    """Measured from within the place, or from here when it has ended as it was meant to."""
    try:
        with place.entered():
            return fault.observe(place, params, record)
    except TargetGone:
        if not fault.outlives_target:
            raise
    return fault.observe(place, params, record)


def _place(fault: type[Fault[Any]] | Fault[Any], target: Target) -> Place:
    """Where it shall act; raises Unsupported where this fault cannot."""
    place = find(target)
    if place.kind not in fault.places:
        able = ", ".join(sorted(fault.places))
        raise Unsupported(f"{fault.id} does not act on a {place.kind}", hint=f"it acts on: {able}")
    if fault.outlives_target:
        return replace(place, ends_with=False)
    return place


def _facts(plan: Plan) -> dict[str, Any]:
    """What a plan stands on, as it is saved: JSON has no tuples."""
    facts = {
        "boot": plan.place.boot_id,
        "network namespace": plan.place.netns_cookie,
        "target": [plan.place.pid, plan.place.start, plan.place.container],
        "user": plan.place.user,
        "change": [asdict(change) for change in plan.changes],
    }
    return json.loads(json.dumps(facts))


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
