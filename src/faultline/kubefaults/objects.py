"""Faults of any object: labels, finalizers, and whatever the fault itself names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field as Bounds
from pydantic import model_validator

from faultline.api.params import Params
from faultline.errors import Refused
from faultline.injection.reading import Reading
from faultline.kubeapi.model import Object, metadata
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
_OPEN = frozenset(
    {
        *("ConfigMap", "Service", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"),
        *("Ingress", "NetworkPolicy", "HorizontalPodAutoscaler", "Pod", "Endpoints"),
    }
)
"""Kinds that hold no rights and no secrets."""
_NEVER = (
    *("apiVersion", "kind", "status", "metadata.name", "metadata.namespace", "metadata.uid"),
    *("metadata.resourceVersion", "metadata.managedFields", "metadata.ownerReferences"),
    *("metadata.creationTimestamp", "metadata.generation"),
)
"""Fields that are the identity of an object, or not ours."""


class LabelParams(Params):
    """Parameters of `object label`."""

    key: Annotated[str, Bounds(min_length=1, max_length=317)]
    """Which label."""
    value: Annotated[str, Bounds(max_length=63)] | None = None
    """What it is to be; without it the label is taken away."""


class ObjectLabel(FieldsFault[LabelParams]):
    """Change or take away one label: a pod leaves its service, a node its pool.

    A pod that loses the label by which its owner counts it is replaced, and stays beside its
    replacement until it has the label again.
    """

    id = "object.label"
    kinds = ()
    does = "Writes one label."
    cannot = "Know who selects by it."
    measures = "Whether the label is still so."
    restores = "The label as it was, unless somebody has changed it since."
    example: ClassVar = {"key": "app", "value": "nobody"}

    def fields(self, view: View, target: Object, params: LabelParams) -> list[Field]:
        return [field_of(target, ("metadata", "labels", params.key), params.value)]


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
    """Parameters of `object delete`: none."""


class ObjectDelete(ObjectFault[DeleteParams]):
    """Delete an object. Nothing brings it back but whoever owns it."""

    id = "object.delete"
    kinds = ()
    does = "Deletes this very object (by uid)."
    cannot = "Bring it back: an object without an owner is refused unless `lasting` is allowed."
    measures = "Whether the object of this uid is gone, or ending."
    restores = "Nothing."

    def plan(self, view: View, target: Object, params: DeleteParams) -> list[Change]:
        return deletion(view, target, "delete", None, "lasting")

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

    Only kinds that hold no rights are open; others need `allow: [any-kind]`.
    """

    id = "object.patch"
    kinds = ()
    does = "Writes the fields of the patch, and nothing else; a list is one field."
    cannot = "Touch the identity or the status of an object."
    measures = "Whether the fields are still so."
    restores = "Each field as it was, unless somebody has changed it since."

    def fields(self, view: View, target: Object, params: PatchParams) -> list[Field]:
        if target["kind"] not in _OPEN:
            view.guard("any-kind", f"{words(target)} is of a kind that may hold rights or secrets")
        found = [field_of(target, path, value) for path, value in _leaves(params.patch, target)]
        for each in found:
            if any(each.words == name or each.words.startswith(f"{name}.") for name in _NEVER):
                raise Refused(f"{each.words} of an object is never written")
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
    """Parameters of `namespace object`."""

    object: dict[str, Any]
    """What is created: `apiVersion`, `kind` and the rest, without namespace; its name is given by
    the fault."""

    @model_validator(mode="after")
    def _whole(self) -> ApplyParams:
        if missing := [name for name in ("apiVersion", "kind") if not self.object.get(name)]:
            raise ValueError(f"expected {' and '.join(missing)} in the object")
        return self


class NamespaceObject(ObjectFault[ApplyParams]):
    """Create one object in a namespace, for as long as the fault lasts."""

    id = "namespace.object"
    kinds = ("Namespace",)
    does = "Creates the object, named after the fault."
    cannot = "Create what holds rights, unless `any-kind` is allowed."
    measures = "Whether the object is there."
    restores = "The object is deleted, if it is still the one we made."

    def plan(self, view: View, target: Object, params: ApplyParams) -> list[Change]:
        if params.object["kind"] not in _OPEN:
            view.guard("any-kind", f"a {params.object['kind']} may hold rights or secrets")
        meta = {**metadata(params.object), "name": f"faultline-{view.fault}"}
        made = {**params.object, "metadata": meta}
        return [view.create(made, str(metadata(target)["name"]))]

    def observe(
        self, view: View, target: Object, params: ApplyParams, changes: Sequence[Change]
    ) -> Reading:
        if view.now(changes[0]) is None:
            return Reading.unmeasured("created", "read back", "somebody has deleted it")
        return fields_hold(view, [])
