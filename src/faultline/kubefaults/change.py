"""Reversible changes of Kubernetes objects: what is made is exactly what is taken back.

A change names fields, each with its value before and after. It is written together with a note on
the object itself, in one request that the server refuses if anybody wrote since it was read: so
there is never a change without its undo. Undoing puts back each field that still has our value; a
field that somebody changed meanwhile is left alone and reported. A whole old object is never
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from faultline.errors import ApplyFailed, FaultlineError, PlanStale, Refused, TargetGone
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata, version_of
from faultline.kubefaults import back, loads, many, notes
from faultline.kubefaults.back import found
from faultline.kubefaults.fields import Field, edit_all, shown
from faultline.kubefaults.notes import OWNER

_TRIES = 8  # writes of others that are borne before a change is given up


class Outcome(StrEnum):
    """What became of a change that was to be undone."""

    RECOVERED = "recovered"
    NOTHING = "nothing to undo"
    GONE = "target gone"
    PERSON = "needs a person"


@dataclass(frozen=True, slots=True)
class Change:
    """One alteration of one object; plain data."""

    do: Literal["patch", "create", "delete", "evict", "many", "load"]
    kind: Kind
    namespace: str
    name: str
    uid: str = ""  # of the object as it was planned; of what is created, none
    part: str = ""  # a subresource: `status`
    fields: tuple[Field, ...] = ()
    object: Object | None = None  # what is created; of what is deleted, what is made anew
    grace: int | None = None  # seconds, for what is deleted
    extra: dict[str, Any] = field(default_factory=dict[str, Any])  # of `many`, `load` and `delete`

    @property
    def words(self) -> str:
        """The object, for people."""
        where = f"{self.namespace}/" if self.kind.namespaced else ""
        return f"{self.kind.kind} {where}{self.name}"

    def describe(self) -> tuple[str, str]:
        """What is changed and how it is undone, for people."""
        match self.do:
            case "patch":
                told = "; ".join(map(str, self.fields))
                return f"{self.words}: {told}", "each field that still has our value is put back"
            case "create":
                return f"{self.words} is created", "it is deleted, if it is still the one we made"
            case "delete" if self.object is not None:
                return f"{self.words} is deleted", f"it is made anew; {back.LOST}"
            case "delete":
                return f"{self.words} is deleted", "nothing: whoever owns it makes another one"
            case "many":
                told = f"{self.extra['count']} {self.kind.plural} {self.name}-N are created"
                return f"{told} in {self.namespace}", "those with our label are deleted"
            case "load":
                told = f"{loads.words(self.extra)} for at most {self.extra['seconds']:g} s"
                return told, "it is stopped, and what it made is deleted by our label"
            case "evict":
                return f"{self.words} is evicted", "nothing: whoever owns it makes another one"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Change:
        """Read back what `to_json` gave, also from a store."""
        kind: dict[str, Any] = data["kind"]
        fields: list[dict[str, Any]] = data["fields"]
        return cls(
            data["do"],
            Kind(kind["kind"], kind["plural"], kind["version"], kind["namespaced"]),
            data["namespace"],
            data["name"],
            data["uid"],
            data["part"],
            tuple(Field(tuple(f["path"]), f["before"], f["after"]) for f in fields),
            data["object"],
            data["grace"],
            data.get("extra") or {},
        )


@dataclass(frozen=True, slots=True)
class Undone:
    """How one change ended; `left` are the fields that somebody else had changed."""

    outcome: Outcome
    detail: str = ""
    left: tuple[str, ...] = ()


# ------------------------------------------------------------------ apply


def apply(client: Client, change: Change, fault: str) -> str:
    """Make the change for the fault with this uid; the uid of the object. Harmless if it is made.

    Raises TargetGone, PlanStale if the object is no more as it was planned, Conflict if another
    fault holds one of the fields, Refused, ApplyFailed.
    """
    try:
        match change.do:
            case "patch":
                return _patch(client, change, fault)
            case "create":
                return _create(client, change, fault)
            case "delete":
                back.delete(client, change)
                return change.uid
            case "evict":
                return _evict(client, change)
            case "many":
                return many.make(client, change, fault)
            case "load":
                return loads.begin(client, change, fault)
    except ApiError as error:
        if error.reason == "Conflict" and change.do in ("delete", "evict"):
            now = back.found(client, change)
            if now is None or str(metadata(now).get("uid")) != change.uid:
                raise TargetGone(f"{change.words} is another one now") from error
        raise _translated(error, change) from error


def _patch(client: Client, change: Change, fault: str) -> str:
    for _ in range(_TRIES):
        now = client.get(change.kind, change.name, change.namespace)
        if str(metadata(now).get("uid")) != change.uid:
            raise TargetGone(f"{change.words} is another one now")
        begun = fault in notes.noted(now)
        todo = [each for each in change.fields if each.now(now) != each.after]
        if begun and not (change.part and todo):
            return change.uid
        if not begun:
            notes.nobody_else(now, change.fields, change.words)
        for each in todo if begun else change.fields:
            if each.now(now) != each.before:
                raise PlanStale(f"{change.words}: {each.words} has changed since the plan")
        note = notes.note(fault, change.part, change.fields, change.extra.get("about"))
        try:
            if not change.part:
                _write(client, change, now, [*todo, note])
            else:  # a subresource takes no annotations: the note comes first
                noted = now if begun else _write(client, change, now, [note])
                _write(client, change, noted, todo, change.part)
        except ApiError as error:
            if error.reason != "Conflict":
                raise
            continue
        return change.uid
    raise ApplyFailed(f"{change.words} is written all the time by somebody else")


def _create(client: Client, change: Change, fault: str) -> str:
    made = notes.marked(change.object or {}, fault, change.name, change.extra.get("about"))
    try:
        return str(metadata(client.create(change.kind, made, change.namespace))["uid"])
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    now = client.get(change.kind, change.name, change.namespace)
    if notes.labels_of(now).get(OWNER) != fault:
        raise Refused(f"{change.words} exists already, and is not ours")
    return str(metadata(now)["uid"])


def _evict(client: Client, change: Change) -> str:
    """Through the eviction subresource, which honours disruption budgets."""
    version = "policy/v1" if client.version() >= (1, 22) else "policy/v1beta1"
    options: Object = {"preconditions": {"uid": change.uid}}
    if change.grace is not None:
        options["gracePeriodSeconds"] = change.grace
    made: Object = {
        "apiVersion": version,
        "kind": "Eviction",
        "metadata": {"name": change.name, "namespace": change.namespace},
        "deleteOptions": options,
    }
    path = change.kind.path(change.namespace, change.name, "eviction")
    client.rest.request("POST", path, None, made).json()
    return change.uid


# ------------------------------------------------------------------ undo


def undo(client: Client, change: Change, fault: str) -> Undone:
    """Take the change back. Harmless if it is not made; raises ApiError if the server is away."""
    match change.do:
        case "delete" if change.object is not None:
            well, told = back.put(client, change)
            return Undone(Outcome.RECOVERED if well else Outcome.PERSON, told)
        case "many" | "load":
            if change.do == "load":
                loads.end(change, fault)
            left = many.unmake(client, change, fault)
            return Undone(Outcome.PERSON, left) if left else Undone(Outcome.RECOVERED)
        case "delete" | "evict":
            return Undone(Outcome.NOTHING)
        case "create":
            return _uncreate(client, change, fault)
        case "patch":
            return _unpatch(client, change, fault)


def _unpatch(client: Client, change: Change, fault: str) -> Undone:
    for _ in range(_TRIES):
        now = found(client, change)
        if now is None or str(metadata(now).get("uid")) != change.uid:
            return Undone(Outcome.GONE, f"{change.words} is there no more")
        if fault not in notes.noted(now):
            return Undone(Outcome.RECOVERED)
        _, fields = notes.noted(now)[fault]  # as they were revised since
        ours = [each for each in fields if each.now(now) == each.after]
        others = [
            f"{each.words} is {shown(each.now(now))}"
            for each in fields
            if each.now(now) not in (each.after, each.before)
        ]
        note = notes.note_on(now, fault)
        try:
            if not change.part:
                _write(client, change, now, [*ours, note], back=True)
            else:
                if ours:
                    now = _write(client, change, now, ours, change.part, back=True)
                _write(client, change, now, [note], back=True)
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound"):
                raise
            continue
        return Undone(Outcome.RECOVERED, "somebody changed it meanwhile" * bool(others), (*others,))
    where = f" -n {change.namespace}" if change.kind.namespaced else ""
    command = f"kubectl edit {change.kind.plural} {change.name}{where}"
    return Undone(Outcome.PERSON, f"{change.words} is written all the time by others: {command}")


def _uncreate(client: Client, change: Change, fault: str) -> Undone:
    now = found(client, change)
    if now is None:
        return Undone(Outcome.RECOVERED)
    if notes.labels_of(now).get(OWNER) != fault:
        return Undone(Outcome.GONE, f"{change.words} is not ours any more")
    try:
        uid = str(metadata(now)["uid"])
        client.delete(change.kind, change.name, change.namespace, uid=uid, grace=0)
    except ApiError as error:
        if error.reason not in ("Conflict", "NotFound"):
            raise
    return Undone(Outcome.RECOVERED)


def undo_all(client: Client, changes: Sequence[Change], fault: str) -> list[Undone]:
    """Undo in reverse, past one that fails; the answers in the order of `changes`."""
    ends: list[Undone] = []
    for change in reversed(changes):
        try:
            ends.append(undo(client, change, fault))
        except FaultlineError as error:
            ends.append(Undone(Outcome.PERSON, f"{change.words}: {error.message}"))
    return ends[::-1]


def present(client: Client, change: Change, fault: str) -> bool:
    """Whether anything of it is still there; raises ApiError if that cannot be seen."""
    if change.do in ("many", "load"):
        return loads.runs(change, fault) or many.there(client, change, fault) > 0
    if change.do == "delete" and change.object is not None:
        return back.missing(client, change)
    if change.do in ("delete", "evict"):
        return False
    now = found(client, change)
    if now is None:
        return False
    if change.do == "create":
        return notes.labels_of(now).get(OWNER) == fault
    return fault in notes.noted(now)


def of_note(kind: Kind, each: Object, fault: str) -> Change:
    """The change that a note on an object tells of: what a scan needs to undo it."""
    meta = metadata(each)
    part, fields = notes.noted(each)[fault]
    where = str(meta.get("namespace") or "")
    return Change("patch", kind, where, str(meta["name"]), str(meta["uid"]), part, fields)


# ------------------------------------------------------------------ requests


def revise(client: Client, change: Change, fault: str) -> list[str]:
    """Give fields that the fault holds other values, in one request with the note that says so.

    What was set back to what it was before is set anew; what somebody has made something else of
    stays, and is told. Harmless if nothing is held, or all of it is so already.
    """
    for _ in range(_TRIES):
        now = found(client, change)
        if now is None or str(metadata(now).get("uid")) != change.uid:
            return []
        _, held = notes.noted(now).get(fault, ("", ()))
        wanted = {each.path: each.after for each in change.fields}
        new = [Field(each.path, each.before, wanted.get(each.path, each.after)) for each in held]
        left = [
            f"{each.words} is {shown(each.now(now))}"
            for each in held
            if each.now(now) not in (each.after, each.before)
        ]
        edits = [
            Field(made.path, made.now(now), made.after)
            for old, made in zip(held, new, strict=True)
            if made.now(now) in (old.after, old.before) and made.now(now) != made.after
        ]
        if not edits:
            return left
        try:
            note = notes.note(fault, change.part, new, change.extra.get("about"))
            if not change.part:
                _write(client, change, now, [*edits, note])
            else:  # a subresource takes no annotations: the note comes first
                noted = _write(client, change, now, [note]) if new != list(held) else now
                _write(client, change, noted, edits, change.part)
        except ApiError as error:
            if error.reason != "Conflict":
                raise _translated(error, change) from error
            continue
        return left
    return [f"{change.words} is written all the time by somebody else"]


def _write(
    client: Client,
    change: Change,
    now: Object,
    fields: Sequence[Field],
    part: str = "",
    *,
    back: bool = False,
) -> Object:
    """Set fields of an object that must still be as it was read, or put them back."""
    version = Field(("metadata", "resourceVersion"), None, version_of(now))
    edits = [*version.edit(now, back=False), *edit_all(now, fields, back=back)]
    where = (change.kind, change.name)
    return client.patch(*where, edits, "json", namespace=change.namespace, part=part)


def _translated(error: ApiError, change: Change) -> FaultlineError:
    message = f"{change.words}: {error.message}"
    if error.status == 404:
        return TargetGone(f"{change.words} is there no more")
    if error.reason == "Conflict":
        return PlanStale(f"{change.words} is another one now: {error.message}")
    if error.status == 429:
        return Refused(f"{message} (a disruption budget)", hint="raise the budget, or pick others")
    if error.refused:
        return Refused(message, hint=error.hint)
    return ApplyFailed(message)
