"""The faults of a run as Fault objects: made, followed, deleted.

The name of a Fault follows from the run and the node, so asking twice is asking once. It carries a
finalizer of ours: what the operator has said of its end stays there until the run has written it
down, whoever deletes it and whenever an engine dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, cast

from pydantic import ValidationError

from faultline.api.document import problems_of
from faultline.api.fault import FaultResourceStatus
from faultline.api.model import API_VERSION
from faultline.api.target import TargetSpec
from faultline.api.targets import AimedFaultSpec
from faultline.changes.model import Change, End, Record, State, Step
from faultline.engine.ports import FaultOrder
from faultline.errors import (
    ApplyFailed,
    Conflict,
    InvalidDocument,
    RecoveryIncomplete,
    Refused,
    Unsupported,
)
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.client import Client
from faultline.kubeapi.following import follow, read
from faultline.kubeapi.model import ApiError, Kind, Object, metadata, part, parts
from faultline.operator.model import LOST, UNDO
from faultline.operator.reconcile import OVER
from faultline.operator.running.clocks import BOOT
from faultline.operator.writing import FAULTS, HOSTS

RUNS: Final = Kind("Run", "runs", API_VERSION)
FINALIZER: Final = "faultline.dev/run"
"""It stays until its run knows how it ended."""
RUN: Final = "faultline.dev/run"
"""The label with the name of the run."""
BEGIN: Final = 300.0
"""Seconds for which an injection is followed; the run gives it up sooner, as it says itself."""
LOOK: Final = 5.0
"""Seconds for which one look at the effect waits for an answer."""
_TRIES = 10  # to write what others write too
_HOSTS = 8  # of so many hosts what they measured is read

Resolve = Callable[[AimedFaultSpec, str, str, str], str]
"""What the selector of a fault means now, in words: the fault, its namespace and name, and what
chance is drawn from. Raises what injecting would refuse.
"""

_STATES = {
    "pending": State.PREPARED, "injecting": State.APPLYING, "active": State.ACTIVE,
    "recovering": State.UNDOING, "ended": State.ENDED, "refused": State.ENDED,
}  # fmt: skip
_METHOD = "each target by its own host, as the status of the Fault counts them"


@dataclass(frozen=True, slots=True)
class ClusterFaults:
    """The faults of runs of one namespace."""

    client: Client
    namespace: str
    resolve: Resolve

    # ------------------------------------------------------------------ before

    def changes(self, order: FaultOrder) -> list[tuple[str, str]]:
        spec = self._spec(order)
        text = self.resolve(spec, self.namespace, order.uid, order.uid)
        undo = f"kubectl -n {self.namespace} delete fault {order.uid}"
        return [(f"{order.fault}: {text}", undo)]

    def _spec(self, order: FaultOrder) -> AimedFaultSpec:
        selector = dict(order.selector or {})
        if not selector:
            raise Unsupported(
                f"{order.fault} has no selector: in a cluster nothing acts on the operator itself",
                hint="say what it hits: selector: {pods: {labels: {app: NAME}}}",
            )
        if not selector.get("seed") and order.seed is not None:
            selector["seed"] = str(order.seed)
        made: Object = {
            "fault": order.fault,
            "params": order.params,
            "duration": str(order.duration),
            "allow": sorted(order.allow),
            "selector": selector,
        }
        made |= {"peer": order.peer} if order.peer is not None else {}
        made |= {"flap": order.flap} if order.flap is not None else {}
        target = TargetSpec(**order.target)
        if target != TargetSpec():
            made["target"] = target.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        try:
            return AimedFaultSpec.model_validate(made)
        except ValidationError as error:
            found = "; ".join(map(str, problems_of(error, made)))
            raise InvalidDocument(f"{order.fault}: {found}") from error

    # ------------------------------------------------------------------ there

    def inject(self, order: FaultOrder) -> Record:
        found = self._made(order)
        name = order.uid
        if not _begun(found):
            found = self._follow(name, _begun, BEGIN) or found
        meta, status = metadata(found), _status(found)
        if status.phase == "refused":
            raise Refused(status.message or "the operator refused it")
        if meta.get("deletionTimestamp"):
            raise ApplyFailed(f"Fault {self.namespace}/{name} was deleted meanwhile")
        if not _begun(found):
            raise ApplyFailed(
                f"Fault {self.namespace}/{name} is {status.phase}: {status.message or 'no answer'}",
                hint="what the operator says of it: kubectl describe fault",
            )
        return self._record(found)

    def _made(self, order: FaultOrder) -> Object:
        owner = self.client.get(RUNS, order.run, self.namespace)
        uid = str(metadata(owner)["uid"])
        spec = self._spec(order)
        made: Object = {
            "apiVersion": API_VERSION,
            "kind": "Fault",
            "metadata": {
                "name": order.uid,
                "labels": {RUN: order.run} if len(order.run) < 64 else {},
                "finalizers": [FINALIZER],
                "ownerReferences": [
                    {"apiVersion": API_VERSION, "kind": "Run", "name": order.run, "uid": uid,
                     "controller": True, "blockOwnerDeletion": False}
                ],
            },
            "spec": spec.model_dump(
                mode="json", by_alias=True, exclude_defaults=True, exclude_none=True
            ),
        }  # fmt: skip
        try:
            return self.client.create(FAULTS, made, self.namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        found = self.client.get(FAULTS, order.uid, self.namespace)
        owners = cast("list[Object]", metadata(found).get("ownerReferences") or [])
        if uid not in {each.get("uid") for each in owners}:
            raise Conflict(
                f"there is a Fault {self.namespace}/{order.uid} that is not of run {order.run}",
                holder=order.uid,
            )
        return found

    def observe(self, uid: str) -> Reading:
        found = self._follow(uid, _measured, LOOK)
        if found is None:
            return Reading.unmeasured("", _METHOD, f"the Fault {uid} is there no more")
        status = _status(found)
        spec = cast(Object, found.get("spec") or {})
        given = cast(Object, spec.get("params") or {}).items()
        asked = " ".join([str(spec.get("fault")), *(f"{name} {value}" for name, value in given)])
        if status.effect is None:
            why = status.message or f"it is {status.phase}"
            return Reading.unmeasured(asked, _METHOD, why)
        return self._reading(found, status, asked)

    def _reading(self, found: Object, status: FaultResourceStatus, asked: str) -> Reading:
        counts = status.counts
        values = {
            "targets": float(counts.targets), "hosts": float(counts.hosts),
            "n": float(counts.effective),
        }  # fmt: skip
        texts, numbers = self._told(found, status)
        if numbers:
            values |= {"asked": numbers[0][0], "measured": median(each for _, each in numbers)}
        measured = f"{counts.effective} of {counts.targets} targets effective"
        measured += f" on {counts.hosts} hosts" + (f" ({texts[0]})" if texts else "")
        if status.effect == "effective":
            return Reading(Effect.EFFECTIVE, asked, measured, _METHOD, values=values)
        if status.effect == "unmeasured":
            return Reading(Effect.UNMEASURED, asked, "", _METHOD, status.message, values)
        return Reading(Effect.INEFFECTIVE, asked, measured, _METHOD, status.message, values)

    def _told(
        self, found: Object, status: FaultResourceStatus
    ) -> tuple[list[str], list[tuple[float, float]]]:
        """What some of the hosts say: asked against measured, in words and numbers."""
        owner, texts, numbers = metadata(found)["uid"], list[str](), list[tuple[float, float]]()
        for share in status.hosts[:_HOSTS]:
            host = read(self.client, HOSTS, share.host, "") or {}
            desired = parts(part(host, "spec"), "desired")
            ours = {each["uid"] for each in desired if each.get("ownerUid") == owner}
            for each in parts(part(host, "status"), "actual"):
                if each.get("uid") not in ours:
                    continue
                texts += [str(each["text"])] if each.get("text") else []
                if each.get("asked") is not None and each.get("measured") is not None:
                    numbers.append((float(each["asked"]), float(each["measured"])))
        return texts, numbers

    # ------------------------------------------------------------------ gone

    def recover(self, uid: str) -> Record:
        try:
            self.client.delete(FAULTS, uid, self.namespace)
        except ApiError as error:
            if error.status != 404:
                raise
        found = self._follow(uid, _over, UNDO + LOST)
        if found is None:
            raise RecoveryIncomplete(
                f"the Fault {self.namespace}/{uid} has gone before it said how it ended",
                hint="its targets end at their deadlines; look: kubectl get hosts",
            )
        if not _over(found):
            raise RecoveryIncomplete(
                f"the Fault {self.namespace}/{uid} is still {_status(found).phase}",
                hint="its targets end at their deadlines; look: kubectl describe fault",
            )
        return self._record(found)

    def residue(self, uid: str) -> list[str]:
        found = read(self.client, FAULTS, uid, self.namespace)
        if found is None:
            return []
        record = self._record(found)
        if record.end is End.PERSON or record.state is not State.ENDED:
            return [record.note or f"the Fault is {_status(found).phase}"]
        release(self.client, found)
        return []

    def find(self, uid: str) -> Record | None:
        found = read(self.client, FAULTS, uid, self.namespace)
        return None if found is None else self._record(found)

    # ------------------------------------------------------------------ told

    def describe(self, record: Record) -> list[tuple[str, str]]:
        return [(step.change.spec["does"], step.change.spec["undo"]) for step in record.steps]

    def _follow(self, uid: str, holds: Callable[[Object], bool], seconds: float) -> Object | None:
        return follow(self.client, FAULTS, uid, self.namespace, holds, seconds)

    def _record(self, found: Object) -> Record:
        """The same as a record of a journal: what the engine knows faults by."""
        meta, status = metadata(found), _status(found)
        spec = AimedFaultSpec.model_validate(found["spec"])
        counts = status.counts
        text = f"{spec.fault} on {counts.targets} targets of {counts.hosts} hosts"
        undo = f"kubectl -n {self.namespace} delete fault {meta['name']}"
        until = status.until or time.time() + int(spec.duration) / 1e9
        state = _STATES[status.phase]
        if meta.get("deletionTimestamp") and state is not State.ENDED:
            state = State.UNDOING
        return Record(
            uid=str(meta["name"]), fault=spec.fault, params=spec.params, place={},
            steps=[Step(Change("fault", {"does": text, "undo": undo}))],
            duration=int(spec.duration), deadline=int(until * 1e9), boot_id=BOOT,
            created=status.started or time.time(), state=state,
            end=_end(status) if state is State.ENDED else None,
            note=status.message if status.end not in ("recovered", "target gone") else "",
            ended=status.ended,
        )  # fmt: skip


def release(client: Client, found: Object) -> None:
    """Let the object go: what it says is known. Raises ApiError."""
    name, where = str(metadata(found)["name"]), str(metadata(found)["namespace"])
    now: Object | None = found
    for _ in range(_TRIES):
        if now is None or FINALIZER not in (metadata(now).get("finalizers") or []):
            return
        meta = metadata(now)
        kept = [each for each in cast("list[str]", meta["finalizers"]) if each != FINALIZER]
        change: dict[str, Any] = {
            "metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": kept or None}
        }
        try:
            client.patch(FAULTS, name, change, namespace=where)
        except ApiError as error:
            if error.status != 409:  # the operator takes away its own at the same time
                if error.status == 404:
                    return
                raise
            now = read(client, FAULTS, name, where)
        else:
            return
    raise RecoveryIncomplete(f"the Fault {where}/{name} is written again and again")


def _end(status: FaultResourceStatus) -> End:
    match status.end:
        case "recovered":
            return End.RECOVERED
        case "target gone":
            return End.GONE
        case "":
            return End.NOTHING
        case _:
            return End.PERSON


def _status(found: Object) -> FaultResourceStatus:
    return FaultResourceStatus.model_validate(found.get("status") or {})


def _phase(found: Object) -> str:
    return str(part(found, "status").get("phase") or "pending")


def _begun(found: Object) -> bool:
    leaving = bool(metadata(found).get("deletionTimestamp"))
    return leaving or _phase(found) not in ("pending", "injecting")


def _over(found: Object) -> bool:
    return _phase(found) in OVER


def _measured(found: Object) -> bool:
    return bool(part(found, "status").get("effect")) or _over(found)
