"""Objects of the API server as the operator keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from pydantic import ValidationError

from faultline.api.document import Problem, problems_of
from faultline.api.fault import FaultResourceStatus
from faultline.api.halt import HaltSpec, HaltStatus
from faultline.api.targets import AimedFaultSpec
from faultline.errors import UnknownName
from faultline.injection import registry
from faultline.kubeapi.model import Object, metadata, version_of
from faultline.kubefaults import registry as kubefaults
from faultline.kubefaults.notes import annotations_of
from faultline.operator.admission.requesters import ANNOTATION
from faultline.operator.model import FaultView

FINALIZER = "faultline.dev/undo"
AGENT = "agent-"  # what the name of an agent's Lease begins with; the rest is its host


@dataclass(frozen=True, slots=True)
class FaultObject:
    """A Fault: what the reconciler sees, and what a write of it needs."""

    view: FaultView
    version: str
    spec: Object
    finalizers: tuple[str, ...]
    requester: str = ""  # who asked for it, as our webhook has written it

    @property
    def whole(self) -> Object:
        """The parts of it that are signed, as an object."""
        notes = {ANNOTATION: self.requester}
        meta: Object = {"namespace": self.view.namespace, "annotations": notes}
        return {"kind": "Fault", "metadata": meta, "spec": self.spec}


@dataclass(frozen=True, slots=True)
class HaltObject:
    """A Halt."""

    name: str
    uid: str
    version: str
    spec: HaltSpec
    status: HaltStatus


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """The Lease of an agent: when it was last renewed, by our own clock."""

    at: float
    lasts: float
    held: bool

    def alive(self, now: float) -> bool:
        return self.held and now - self.at < self.lasts


def fault_of(found: Object) -> FaultObject:
    """A Fault, also one that says nothing that can be done."""
    meta = metadata(found)
    spec, problem = _spec(cast(Object, found.get("spec") or {}))
    finalizers = tuple(cast("list[str]", meta.get("finalizers") or []))
    view = FaultView(
        namespace=str(meta["namespace"]),
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        generation=int(meta.get("generation") or 0),
        deleting=bool(meta.get("deletionTimestamp")),
        finalizer=FINALIZER in finalizers,
        spec=spec,
        problem=problem,
        status=_status(found),
    )
    asked, by = cast(Object, found.get("spec") or {}), annotations_of(found).get(ANNOTATION, "")
    return FaultObject(view, version_of(found), asked, finalizers, by)


def _spec(given: Object) -> tuple[AimedFaultSpec | None, str]:
    spec, problems = read(given)
    return spec, "; ".join(map(str, problems))


def read(given: object) -> tuple[AimedFaultSpec | None, list[Problem]]:
    """What a Fault asks for, or everything that is wrong with it; paths begin with `spec`."""
    try:
        spec = AimedFaultSpec.model_validate(given)
    except ValidationError as error:
        found = problems_of(error, given)
        return None, [Problem(f"spec.{one.path}", one.expected, one.given) for one in found]
    problems = _problems(spec)
    return (None if problems else spec), problems


def _problems(spec: AimedFaultSpec) -> list[Problem]:
    """What the registry of faults says against it."""
    try:
        _params(spec.fault).model_validate(spec.params)
    except UnknownName as error:
        return [Problem("spec.fault", f"{error.message}; {error.hint}")]
    except ValidationError as error:
        return [
            Problem(f"spec.params.{one.path}", one.expected, one.given)
            for one in problems_of(error, spec.params)
        ]
    return []


@cache
def _params(fault: str) -> Any:
    ours = kubefaults.faults()
    if fault in ours or fault.partition(".")[0] in {name.partition(".")[0] for name in ours}:
        return kubefaults.get(fault).params_type()
    return registry.get(fault).params_type()


def _status(found: Object) -> FaultResourceStatus:
    try:
        return FaultResourceStatus.model_validate(found.get("status") or {})
    except ValidationError:  # of another version: what hosts have is found there
        return FaultResourceStatus()


def halt_of(found: Object) -> HaltObject | None:
    """A Halt; none while it is being deleted."""
    meta = metadata(found)
    if meta.get("deletionTimestamp"):
        return None
    try:
        spec = HaltSpec.model_validate(found.get("spec") or {})
        status = HaltStatus.model_validate(found.get("status") or {})
    except ValidationError:  # whatever it says, it is a halt
        spec, status = HaltSpec(), HaltStatus()
    return HaltObject(str(meta["name"]), str(meta["uid"]), version_of(found), spec, status)


def lease_of(found: Object, clock: Callable[[], float] = time.monotonic) -> LeaseSeen:
    """The Lease of an agent, seen now."""
    spec = cast(Object, found.get("spec") or {})
    lasts = float(spec.get("leaseDurationSeconds") or 15)
    return LeaseSeen(clock(), lasts, bool(spec.get("holderIdentity")))
