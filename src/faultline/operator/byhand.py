"""What faults of objects have left in a cluster, and undoing it where no operator does. By whoever
has the rights: what is needed stands in the cluster itself, in records and in notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from faultline.api.host import Desired, HostSpec, HostStatus
from faultline.errors import FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.kubefaults import carrying, scan
from faultline.kubefaults.carrying import Carrier, End
from faultline.kubefaults.change import Outcome
from faultline.operator.hosts import OBJECTS
from faultline.operator.writing import FAULTS, HOSTS

LATE = 30.0
"""Seconds behind its end in which the operator may still be undoing it."""


@dataclass(frozen=True, slots=True)
class Left:
    """One fault on one object, as it is found."""

    uid: str
    words: tuple[str, ...]  # the objects
    owner: str = ""
    until: float = 0.0  # seconds since 1970; 0 if nothing says so
    record: str = ""
    problem: str = ""  # a note that somebody has damaged
    orphan: bool = False  # whether its Fault is no more

    def overdue(self, now: float) -> bool:
        """Whether it should not be there any more."""
        return self.orphan or bool(self.until and now > self.until + LATE)

    def is_of(self, name: str) -> bool:
        """Whether a person means it by this name: its uid, or NAMESPACE/NAME of its Fault."""
        return self.uid == name or self.owner == f"Fault/{name}"


def find(client: Client, unread: Callable[[Kind, ApiError], None]) -> list[Left]:
    """Everything of ours; `unread` is told what could not be listed. Raises ApiError."""
    found = {each.uid: each for each in _recorded(client, unread)}
    marks: dict[str, list[scan.Trace]] = {}
    for trace in scan.scan(client, scan.listed(client), unread):
        if trace.fault not in found:
            marks.setdefault(trace.fault, []).append(trace)
    found |= {uid: _marked(uid, traces) for uid, traces in marks.items()}
    there = _faults(client, unread)
    return [
        each
        if there is None or not each.owner.startswith("Fault/") or each.owner in there
        else Left(each.uid, each.words, each.owner, each.until, each.record, each.problem, True)
        for each in found.values()
    ]


def _marked(uid: str, traces: Iterable[scan.Trace]) -> Left:
    told = [*traces]
    record = carrying.packed(each.change for each in told if each.change is not None)
    problem = next((each.problem for each in told if each.problem), "")
    words = tuple(each.words for each in told)
    return Left(uid, words, told[0].owner, max(each.until for each in told), record, problem)


def _recorded(client: Client, unread: Callable[[Kind, ApiError], None]) -> list[Left]:
    """What stands in the Host of objects: also what leaves no mark, since the object is gone."""
    try:
        host: Object = client.get(HOSTS, OBJECTS)
    except ApiError as error:
        if error.status == 0:
            raise
        if error.status != 404:
            unread(HOSTS, error)
        return []
    try:
        desired = HostSpec.model_validate(host.get("spec") or {}).desired
        actual = HostStatus.model_validate(host.get("status") or {}).actual
    except ValidationError:  # of another version; the marks are found all the same
        return []
    asked: dict[str, Desired] = {each.uid: each for each in desired}
    made: list[Left] = []
    for each in actual:
        over = each.stage in ("refused", "ended") and each.end != "needs a person"
        if over or not each.record:
            continue
        one = asked.get(each.uid)
        words = tuple(change.words for change in carrying.unpacked(each.record))
        begun = each.injected_at or (one.asked_at if one is not None else 0.0)
        until = begun + one.duration.seconds if one is not None else 0.0
        made.append(Left(each.uid, words, one.owner if one is not None else "", until, each.record))
    return made


def _faults(client: Client, unread: Callable[[Kind, ApiError], None]) -> set[str] | None:
    """The Faults that there are; None if that cannot be seen."""
    try:
        listed = [each["metadata"] for each in client.every(FAULTS)]
    except ApiError as error:
        if error.status == 0:
            raise
        if error.status != 404:
            unread(FAULTS, error)
            return None
        return set()
    return {f"Fault/{each['namespace']}/{each['name']}" for each in listed}


def recover(client: Client, left: Left) -> End:
    """Undo it; whatever goes wrong is in the answer."""
    if left.problem:
        note = f"{left.problem}; put it right with kubectl edit, then take the annotation away"
        return End(Outcome.PERSON, f"{', '.join(left.words)}: {note}")
    try:
        return Carrier(client).unmake(left.uid, left.record)
    except FaultlineError as error:
        return End(Outcome.PERSON, f"{', '.join(left.words[:5])}: {error.message}")
