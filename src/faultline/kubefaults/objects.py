"""Faults of any object: labels, finalizers, and whatever the fault itself names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field as Bounds
from pydantic import model_validator

from faultline.api.params import Params
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubefaults import back, policy
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, Path, read
from faultline.kubefaults.model import (
    FieldsFault,
    ObjectFault,
    View,
    deletion,
    field_of,
    fields_hold,
    is_going,
    words,
)

HOLD = "faultline.dev/hold"
_NEVER = (
    *("apiVersion", "kind", "status", "metadata.name", "metadata.namespace", "metadata.uid"),
    *("metadata.resourceVersion", "metadata.managedFields", "metadata.ownerReferences"),
    *("metadata.creationTimestamp", "metadata.generation"),
)
"""Fields that are the identity of an object, or not ours."""
_LARGEST = 60_000  # characters of a manifest that is remembered


class LabelParams(Params):
    """Parameters of `object label` and `object annotation`."""

    key: Annotated[str, Bounds(max_length=317)] = ""
    """Which one."""
    value: Annotated[str, Bounds(max_length=1000)] | None = None
    """What it is to be; without it that one is taken away."""
    add: dict[str, Annotated[str, Bounds(max_length=1000)]] = Bounds(default_factory=dict[str, str])
    """Several at once, with their values."""
    remove: Annotated[list[str], Bounds(max_length=100)] = Bounds(default_factory=list[str])
    """Several that are taken away; those that are not there do not matter."""

    @model_validator(mode="after")
    def _something(self) -> LabelParams:
        if not (self.key or self.add or self.remove):
            raise ValueError("expected key, add or remove")
        if both := sorted({*self.add} & {*self.remove, self.key} | {*self.remove} & {self.key}):
            raise ValueError(f"expected each name once, and not twice: {', '.join(both)}")
        return self

    @property
    def wanted(self) -> dict[str, str | None]:
        """What each is to be."""
        made: dict[str, str | None] = {**self.add, **dict.fromkeys(self.remove)}
        return {**made, self.key: self.value} if self.key else made


class ObjectLabel(FieldsFault[LabelParams]):
    """Change, add or take away labels: a pod leaves its service, a node its pool.

    A pod that loses the label by which its owner counts it is replaced, and stays beside its
    replacement until it has the label again.
    """

    id = "object.label"
    kinds = ()
    does = "Writes the labels that are named, each as a field of its own."
    cannot = "Know who selects by it."
    measures = "Whether the labels are still so."
    restores = "Each label as it was, unless somebody has changed it since; others are not written."
    example: ClassVar = {"key": "app", "value": "nobody"}

    def fields(self, view: View, target: Object, params: LabelParams) -> list[Field]:
        if long := [name for name, value in params.wanted.items() if len(value or "") > 63]:
            raise Refused(f"a label has at most 63 letters: {', '.join(long)}")
        wanted = params.wanted.items()
        return [field_of(target, ("metadata", "labels", key), value) for key, value in wanted]


class ObjectAnnotation(FieldsFault[LabelParams]):
    """Change, add or take away annotations: what controllers are told beside the specification."""

    id = "object.annotation"
    kinds = ()
    does = "Writes the annotations that are named, each as a field of its own."
    cannot = "Touch annotations of Faultline itself."
    measures = "Whether the annotations are still so."
    restores = "Each as it was, unless somebody has changed it since; others are not written."
    example: ClassVar = {"key": "note", "value": "wild"}

    def fields(self, view: View, target: Object, params: LabelParams) -> list[Field]:
        if any("faultline.dev/" in key for key in params.wanted):
            raise Refused("annotations of Faultline itself are never written")
        wanted = params.wanted.items()
        return [field_of(target, ("metadata", "annotations", key), value) for key, value in wanted]


class FinalizerParams(Params):
    """Parameters of `object finalizer`."""

    add: Annotated[list[str], Bounds(max_length=20)] = Bounds(default_factory=list[str])
    """Finalizers that are added, as DOMAIN/NAME."""
    remove: Annotated[list[str], Bounds(max_length=20)] = Bounds(default_factory=list[str])
    """Finalizers of others that are taken away."""

    @model_validator(mode="after")
    def _something(self) -> FinalizerParams:
        if not (self.add or self.remove):
            raise ValueError("expected add, remove or both")
        return self


class ObjectFinalizer(FieldsFault[FinalizerParams]):
    """Add or take away finalizers by name: what holds an object back, or lets it go too early.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
    """

    id = "object.finalizer"
    kinds = ()
    does = "Adds and removes these entries of metadata.finalizers, and none of the others."
    cannot = "Bring back what ends because its finalizer was taken: that needs `allow: [finalizer]`"
    measures = "Whether the finalizers are so."
    restores = (
        "What was added is removed; what was taken is added again, if the object still lives."
    )
    example: ClassVar = {"add": "example.org/held"}

    def fields(self, view: View, target: Object, params: FinalizerParams) -> list[Field]:
        present: Any = read(target, ("metadata", "finalizers")) or []
        if target["kind"] == "Namespace":
            view.guard("hold-namespace", "a namespace that cannot end holds up all that is in it")
        if gone := [name for name in params.remove if name in present]:
            view.guard("finalizer", f"whoever relies on {', '.join(gone)} would not be waited for")
        path = ("metadata", "finalizers", "[]")
        return [Field(path, None, name) for name in params.add if name not in present] + [
            Field(path, name, None) for name in params.remove if name in present
        ]


class HoldParams(Params):
    """Parameters of `object hold`: none."""


class ObjectHold(FieldsFault[HoldParams]):
    """Let an object not go: whoever deletes it sees it ending for ever."""

    id = "object.hold"
    kinds = ()
    does = "Adds a finalizer that nobody else removes."
    cannot = "Keep running what the object stands for."
    measures = "Whether the finalizer is there."
    restores = "The finalizer is removed; what was deleted meanwhile goes at once."

    def fields(self, view: View, target: Object, params: HoldParams) -> list[Field]:
        if target["kind"] == "Namespace":
            view.guard("hold-namespace", "a namespace that cannot end holds up all that is in it")
        return [Field(("metadata", "finalizers", "[]"), None, HOLD)]


class DeleteParams(Params):
    """Parameters of `object delete`."""

    back: bool = True
    """Whether it is made anew when the fault ends, if nobody else has made another one."""
    dependents: Literal["delete", "keep"] = "delete"
    """What becomes of objects that belong to it: a Deployment that is made anew takes those that
    were kept as its own again."""


class ObjectDelete(ObjectFault[DeleteParams]):
    """Delete an object, and make it anew when the fault ends.

    What somebody owns is left to its owner. What comes back is another object of that name: its
    uid, its status and what belonged to it are not those that it had.
    """

    id = "object.delete"
    kinds = ()
    does = "Deletes this very object (by uid)."
    cannot = (
        "Make anew what no manifest holds or what is a secret: "
        f"{', '.join(sorted(back.NEVER))}. Those are refused unless `lasting` is allowed."
    )
    measures = "Whether the object of this uid is gone, or ending."
    restores = f"The object is made anew from its manifest; {back.LOST}."

    def plan(self, view: View, target: Object, params: DeleteParams) -> list[Change]:
        policy.check(view, target, namespaced=view.kind_of(target).namespaced)
        meta = metadata(target)
        if meta.get("ownerReferences") or not params.back or target["kind"] in back.NEVER:
            (made,) = deletion(view, target, "delete", None, "lasting")
            return [replace(made, extra={"dependents": params.dependents})]
        kept = back.manifest(target)
        if (size := len(json.dumps(kept))) > _LARGEST:
            raise Refused(f"{words(target)} is too large to be remembered: {size} characters")
        where, name, uid = str(meta.get("namespace") or ""), str(meta["name"]), str(meta["uid"])
        extra = {"dependents": params.dependents}
        return [Change("delete", view.kind_of(target), where, name, uid, object=kept, extra=extra)]

    def observe(
        self, view: View, target: Object, params: DeleteParams, changes: Sequence[Change]
    ) -> Reading:
        return is_going(view, changes, "deleted")


class PatchParams(Params):
    """Parameters of `object patch`."""

    patch: dict[str, Any]
    """What is to be set, as in the object itself; null takes a field away (RFC 7386)."""

    @model_validator(mode="after")
    def _something(self) -> PatchParams:
        if not self.patch:
            raise ValueError("expected at least one field")
        return self


class ObjectPatch(FieldsFault[PatchParams]):
    """Set any fields of an object, as the fault names them.

    Kinds that hold rights or secrets, or the cluster together, need `allow: [any-kind]`.
    """

    id = "object.patch"
    kinds = ()
    does = "Writes the fields of the patch, and nothing else; a list is one field."
    cannot = "Touch the identity or the status of an object."
    measures = "Whether the fields are still so."
    restores = "Each field as it was, unless somebody has changed it since."

    def fields(self, view: View, target: Object, params: PatchParams) -> list[Field]:
        return _difference(view, target, params.patch)


def _difference(view: View, target: Object, patch: Object) -> list[Field]:
    """What is different in an object that is there; raises Refused for what is never written."""
    policy.check(view, target, namespaced=view.kind_of(target).namespaced)
    found = [field_of(target, path, value) for path, value in _leaves(patch, target)]
    for each in found:
        if any(each.words == name or each.words.startswith(f"{name}.") for name in _NEVER):
            raise Refused(f"{each.words} of an object is never written")
        if any("faultline.dev/" in step for step in each.path):
            raise Refused(f"{each.words}: what Faultline itself has written stays")
    policy.pods(view, patch)
    return found


def _leaves(patch: Object, target: Object, above: Path = ()) -> list[tuple[Path, Any]]:
    """The fields of a merge patch, one by one, unless the object has something else there."""
    found: list[tuple[Path, Any]] = []
    for name, value in patch.items():
        path = (*above, name)
        present = read(target, path)
        if isinstance(value, dict) and value and (present is None or isinstance(present, dict)):
            found += _leaves(cast(Object, value), target, path)
        else:
            found.append((path, cast(Any, value)))
    return found


class ApplyParams(Params):
    """Parameters of `object apply`."""

    object: dict[str, Any]
    """The object: `apiVersion`, `kind` and the rest, without namespace. Its `metadata.name` is that
    of one that is to be there; without it the fault gives a name."""

    @model_validator(mode="after")
    def _whole(self) -> ApplyParams:
        if missing := [name for name in ("apiVersion", "kind") if not self.object.get(name)]:
            raise ValueError(f"expected {' and '.join(missing)} in the object")
        if metadata(self.object).get("namespace"):
            raise ValueError("expected no namespace in the object: it is that of the target")
        return self


class ObjectApply(ObjectFault[ApplyParams]):
    """Have one object in a namespace, for as long as the fault lasts: `kubectl apply`, taken back.

    One that is there already gets the fields that are given, and nothing else of it is written.
    """

    id = "object.apply"
    kinds = ("Namespace",)
    does = "Creates the object, or sets the fields that are different in the one that is there."
    cannot = (
        "Make what holds rights or secrets unless `any-kind` is allowed, pods with rights on their "
        "node unless `privileged-pod` is, or anything of Faultline itself."
    )
    measures = "Whether the object is there and its fields are so."
    restores = (
        "What was created is deleted, if it is still the one we made; else each field as it was, "
        "unless somebody has changed it since."
    )

    def plan(self, view: View, target: Object, params: ApplyParams) -> list[Change]:
        where = str(metadata(target)["name"])
        given = params.object
        kind = view.kind_of(given)
        policy.check(view, given, where, namespaced=kind.namespaced)
        policy.pods(view, given)
        name = str(metadata(given).get("name") or f"faultline-{view.fault}")
        there = _there(view, kind, name, where if kind.namespaced else "")
        if there is not None:
            meta = {k: v for k, v in metadata(given).items() if k in ("labels", "annotations")}
            patch = {k: v for k, v in given.items() if k not in ("apiVersion", "kind", "metadata")}
            return [self._patch(view, {**there, **_kind(given)}, {**patch, "metadata": meta})]
        made = {**given, "metadata": {**metadata(given), "name": name}}
        return [view.create(made, where if kind.namespaced else "")]

    def _patch(self, view: View, there: Object, patch: Object) -> Change:
        found = [each for each in _difference(view, there, patch) if each.before != each.after]
        if not found:
            raise Refused(f"{words(there)} is so already: nothing would change")
        return view.patch(there, found)

    def observe(
        self, view: View, target: Object, params: ApplyParams, changes: Sequence[Change]
    ) -> Reading:
        if changes[0].do == "patch":
            return fields_hold(view, changes)
        method = "it is read back from the API server"
        if view.now(changes[0]) is None:
            reason = "somebody has deleted it"
            return Reading(Effect.INEFFECTIVE, "created", "not there", method, reason)
        return Reading(Effect.EFFECTIVE, "created", "it is there", method)


def _kind(each: Object) -> Object:
    return {"apiVersion": each["apiVersion"], "kind": each["kind"]}


def _there(view: View, kind: Kind, name: str, where: str) -> Object | None:
    try:
        return view.client.get(kind, name, where)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
