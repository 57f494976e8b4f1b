"""The shape of a fault of Kubernetes objects: parameters, a plan of changes, and a measurement."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from faultline.api.params import Params
from faultline.errors import Bug, Refused, Unsupported
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubefaults import policy
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, Path, read
from faultline.kubefaults.rights import Right, of_changes

P = TypeVar("P", bound=Params)

PATIENCE = 20.0
"""Seconds in which controllers must have acted on what was changed."""
_STEP, _LONGEST = 0.1, 1.0  # seconds between two looks


@dataclass(frozen=True)
class View:
    """What a fault may look at: the API server, and what is chosen by chance."""

    client: Client
    fault: str  # the uid of the fault
    chance: random.Random = field(default_factory=random.Random)
    allow: frozenset[str] = frozenset()  # guards that are overridden, by name
    seconds: float = 600.0  # for how long it is to last: loads end by themselves then
    seed: str = ""  # what is drawn at later steps comes from this; without it from the uid
    stop: Callable[[], bool] = lambda: False  # whether nobody waits for an effect any more

    def kind_of(self, each: Object) -> Kind:
        """The kind of an object that names it."""
        try:
            return self.client.exact(str(each["kind"]), str(each["apiVersion"]))
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            raise Unsupported(error.message) from error

    def guard(self, name: str, why: str) -> None:
        """Refuse, unless it is overridden by name."""
        if name not in self.allow:
            raise Refused(why, hint=f"if that is meant: allow: [{name}]")

    def patch(self, each: Object, fields: Sequence[Field], part: str = "") -> Change:
        """The change that sets these fields of an object."""
        meta = metadata(each)
        where = str(meta.get("namespace") or "")
        kind, name, uid = self.kind_of(each), str(meta["name"]), str(meta["uid"])
        return Change("patch", kind, where, name, uid, part, tuple(fields))

    def create(self, made: Object, namespace: str = "") -> Change:
        """The change that makes an object, named after the fault."""
        name = str(metadata(made)["name"])
        return Change("create", self.kind_of(made), namespace, name, object=made)

    def now(self, change: Change) -> Object | None:
        """The object of a change at present; None if it is gone, or another one."""
        try:
            found = self.client.get(change.kind, change.name, change.namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found if change.uid in ("", str(metadata(found)["uid"])) else None

    def until(self, holds: Callable[[], bool], patience: float | None = None) -> bool:
        """Look again and again, for as long as controllers may take."""
        until, step = time.monotonic() + (PATIENCE if patience is None else patience), _STEP
        while not holds():
            if time.monotonic() >= until or self.stop():
                return False
            time.sleep(step)
            step = min(_LONGEST, step * 1.5)
        return True


class ObjectFault(ABC, Generic[P]):
    """One fault of Kubernetes objects. Its docstring is its reference page."""

    id: ClassVar[str]  # 'family.fault', what the target suffers
    kinds: ClassVar[tuple[str, ...]]  # what it takes as a target, as 'Deployment'; empty: anything
    does: ClassVar[str]  # what it does to the objects
    cannot: ClassVar[str]  # what it cannot do
    measures: ClassVar[str]  # how the effect is measured
    restores: ClassVar[str]  # what undo puts back
    example: ClassVar[dict[str, str]] = {}  # parameters of a runnable example, as text
    insists: ClassVar[bool] = False  # whether what is set back is set anew while it lasts

    @classmethod
    def params_type(cls) -> type[P]:
        """The parameter model, read from `class X(ObjectFault[XParams])`."""
        for kind in cls.__mro__:
            for base in getattr(kind, "__orig_bases__", ()):
                origin: Any = get_origin(base)
                given = get_args(base)
                ours = isinstance(origin, type) and issubclass(origin, ObjectFault)
                if ours and isinstance(given[0], type):
                    return given[0]
        raise Bug(f"{cls.__name__} does not say which parameters it takes")

    @abstractmethod
    def plan(self, view: View, target: Object, params: P) -> list[Change]:
        """The changes that make this fault at one target. Touches nothing; raises Refused."""

    @abstractmethod
    def observe(self, view: View, target: Object, params: P, changes: Sequence[Change]) -> Reading:
        """Measure the effect."""

    def demands(
        self, view: View, target: Object, params: P, changes: Sequence[Change]
    ) -> list[Right]:
        """What whoever asks for it must be allowed to do themselves."""
        return of_changes(changes)

    def remains(self, view: View, target: Object, params: P, changes: Sequence[Change]) -> str:
        """What is still met of it when all changes are undone, beyond the objects themselves; empty
        if nothing is.
        """
        return ""

    def every(self, params: P) -> float:
        """Seconds from one step to the next, of a fault that goes in steps; else 0."""
        return 0.0

    def step(
        self, view: View, params: P, changes: Sequence[Change], number: int
    ) -> Sequence[Change]:
        """The changes as they are from this step on; the plan is step 0. Pure: what is drawn
        follows from the seed and the number, so that whoever goes on draws the same.
        """
        return changes


class FieldsFault(ObjectFault[P]):
    """A fault that is fields of its target, set for a while."""

    part: ClassVar[str] = ""

    @abstractmethod
    def fields(self, view: View, target: Object, params: P) -> list[Field]:
        """The fields, before and after."""

    def plan(self, view: View, target: Object, params: P) -> list[Change]:
        policy.spared(target)
        fields = [each for each in self.fields(view, target, params) if each.before != each.after]
        if not fields:
            raise Refused(f"{words(target)} is so already: nothing would change")
        return [view.patch(target, fields, self.part)]

    def observe(self, view: View, target: Object, params: P, changes: Sequence[Change]) -> Reading:
        """Whether the fields have our values; a fault that can see more says so."""
        return fields_hold(view, changes)


def fields_hold(view: View, changes: Sequence[Change]) -> Reading:
    """Whether all fields of the changes still have the values that were asked for."""
    asked = "; ".join(f"{each.words}: {each.after}" for c in changes for each in c.fields)
    method = "the object is read back from the API server"
    lost: list[str] = []
    for change in changes:
        now = view.now(change)
        if now is None:
            return Reading.unmeasured(asked, method, f"{change.words} is there no more")
        lost += [each.words for each in change.fields if each.now(now) != each.after]
    if lost:
        reason = f"set back by somebody: {', '.join(lost)}"
        return Reading(Effect.INEFFECTIVE, asked, "set back", method, reason)
    return Reading(Effect.EFFECTIVE, asked, "all fields have these values", method)


def level(asked: str, wanted: float, measured: float, method: str, reason: str) -> Reading:
    """A count that must be just so."""
    values = {"asked": wanted, "measured": measured}
    if measured == wanted:
        return Reading(Effect.EFFECTIVE, asked, f"{measured:g}", method, values=values)
    return Reading(Effect.INEFFECTIVE, asked, f"{measured:g}", method, reason, values)


def deletion(
    view: View, target: Object, do: Literal["delete", "evict"], grace: int | None, guard: str
) -> list[Change]:
    """The deletion of this very object; refused where nobody would make another one."""
    meta = metadata(target)
    if not meta.get("ownerReferences"):
        view.guard(guard, f"{words(target)} has no owner: nobody makes another one")
    kind, where = view.kind_of(target), str(meta.get("namespace") or "")
    return [Change(do, kind, where, str(meta["name"]), str(meta["uid"]), grace=grace)]


def is_going(view: View, changes: Sequence[Change], asked: str) -> Reading:
    """Whether the one object of the changes is gone, or ending."""
    (change,) = changes
    method = "the object of this uid, read from the API server"

    def gone() -> bool:
        now = view.now(change)
        return now is None or bool(metadata(now).get("deletionTimestamp"))

    if not view.until(gone):
        return Reading(Effect.INEFFECTIVE, asked, "it is still there", method, "nothing ended it")
    now = view.now(change)
    return Reading(Effect.EFFECTIVE, asked, "gone" if now is None else "it is ending", method)


def field_of(target: Object, path: Path, after: Any) -> Field:
    """A field as it is now, and what it is to be."""
    return Field(path, read(target, path), after)


def words(target: Object) -> str:
    """An object, for people."""
    meta = metadata(target)
    where = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{target.get('kind', 'object')} {where}{meta.get('name')}"
