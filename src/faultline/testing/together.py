"""Many faults at once on one place, undone in any order: they compose, and leave nothing."""

from __future__ import annotations

import random
from contextlib import ExitStack

from faultline.changes.model import Record
from faultline.errors import Conflict, FaultlineError, Refused, TargetGone, Unsupported
from faultline.injection import registry
from faultline.injection.injector import Injector
from faultline.injection.model import Ending
from faultline.places.model import PROCESS
from faultline.testing import conformance
from faultline.testing.conformance import GOOD_ENDS, Ground


def candidates(kind: str = PROCESS) -> list[str]:
    """The faults that can be together on one place: those that last, and leave it alive."""
    return [
        fault_id
        for fault_id, fault in registry.triable().items()
        if kind in fault.places
        and fault.ending is not Ending.INSTANT
        and fault.scratch not in ("process", "disk")
        and not fault.outlives_target
    ]


def check_together(count: int, seed: int, kind: str = PROCESS) -> list[str]:
    """Inject `count` random faults on one place and recover them in a random order.

    One that this kernel cannot do, or that is refused because another holds what it needs, is
    replaced by the next. Complaints; an empty list is the proof.
    """
    return conformance.isolated(lambda: _together(count, random.Random(seed), kind))


def _together(count: int, rng: random.Random, kind: str) -> list[str]:
    wanted = candidates(kind)
    rng.shuffle(wanted)
    with ExitStack() as stack:
        ground = stack.enter_context(conformance.prepared("network.loss", kind))
        injector = stack.enter_context(Injector(ground.state))
        ground.look()
        active: list[Record] = []
        for fault_id in (each for each in wanted if ground.can_name(each)):
            if len(active) == count:
                break
            record = _inject(injector, ground, fault_id)
            if record is not None:
                active.append(record)
        names = " ".join(record.fault for record in active)
        ground.want(len(active) == count, f"only {len(active)} faults could be together: {names}")
        rng.shuffle(active)
        for record in active:
            end = injector.recover(record.uid).end
            ground.want(end in GOOD_ENDS, f"{record.fault} ended as {end} among {names}")
            left = injector.residue(record.uid)
            ground.want(not left, f"{record.fault} left {left} among {names}")
        ground.same(f"after {names}")
    return ground.complaints


def _inject(injector: Injector, ground: Ground, fault_id: str) -> Record | None:
    try:
        order = ground.order_for(fault_id)
        return injector.inject(order)
    except (Conflict, Refused, TargetGone, Unsupported):
        return None  # gone is what another one of them holds down: a link, a process
    except FaultlineError as error:
        ground.complaints.append(f"{fault_id}: {type(error).__name__}: {error}")
        return None
