"""Resources as objects of the API server, and back.

What Kubernetes cannot express lies beside it in annotations of ours, which nobody else sees: labels
whose values are no label values there, the uid and the time of a resource that comes from another
store, and who carries it out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from faultline.errors import InvalidDocument
from faultline.kubeapi.model import Object, metadata
from faultline.stores import documents
from faultline.stores.model import R

if TYPE_CHECKING:
    from faultline.api.model import Metadata, Resource
    from faultline.stores.series import Series

OURS = "faultline.dev/"
UID, CREATED = f"{OURS}uid", f"{OURS}created"  # those that it had in another store
BESIDE = f"{OURS}beside"  # labels and annotations that cannot be some here, as JSON
HOLDER = f"{OURS}holder"  # the Lease object of the engine that carries it out
FENCE = f"{OURS}fence"
INCOMPLETE = f"{OURS}incomplete"  # its status is still to be written
SERIES = f"{OURS}series"  # the version from which only series were written
_HIDDEN = frozenset({UID, CREATED, BESIDE, HOLDER, FENCE, INCOMPLETE, SERIES})
_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(
    r"(?=.{1,253}/)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/"
)


# ---------------------------------------------------------------------- metadata


def notes_of(raw: Object) -> dict[str, str]:
    """All of them, ours too."""
    return cast("dict[str, str]", metadata(raw).get("annotations") or {})


def name_of(raw: Object) -> str:
    return str(metadata(raw).get("name"))


def version_of(raw: Object) -> int:
    """A number, though the server promises no more than a text: what every server has is one."""
    text = str(metadata(raw).get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def uid_of(raw: Object) -> str:
    """Its uid as ours: that of its first store."""
    return notes_of(raw).get(UID) or str(metadata(raw).get("uid") or "")


def created_of(raw: Object) -> float:
    """Seconds since 1970; the server keeps whole ones."""
    told = notes_of(raw).get(CREATED)
    if told is not None:
        try:
            return float(told)
        except ValueError:  # somebody has edited it
            pass
    text = metadata(raw).get("creationTimestamp")
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def fence_of(raw: Object) -> int:
    text = notes_of(raw).get(FENCE, "0")
    return int(text) if text.isdigit() else 0


def time_text(seconds: float) -> str:
    """As the server writes it, RFC 3339 with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def key_fits(key: str) -> bool:
    """Whether the server takes it as the key of a label or annotation."""
    prefix = _PREFIX.match(key)
    rest = key[prefix.end() :] if prefix else key
    return _PART.fullmatch(rest) is not None


def label_fits(key: str, value: str) -> bool:
    """Whether the server takes it as a label."""
    return key_fits(key) and (not value or _PART.fullmatch(value) is not None)


def envelope(meta: Metadata) -> Object:
    """Labels and annotations as the server takes them, with what it does not beside."""
    labels = {key: value for key, value in meta.labels.items() if label_fits(key, value)}
    notes = {key: value for key, value in meta.annotations.items() if key_fits(key)}
    beside = {
        "labels": {key: value for key, value in meta.labels.items() if key not in labels},
        "annotations": {key: text for key, text in meta.annotations.items() if key not in notes},
    }
    if any(beside.values()):
        notes[BESIDE] = json.dumps(beside)
    return {"labels": labels, "annotations": notes}


def labels_of(raw: Object) -> dict[str, str]:
    return {**cast("dict[str, str]", metadata(raw).get("labels") or {}), **_beside(raw)["labels"]}


def _beside(raw: Object) -> dict[str, dict[str, str]]:
    empty: dict[str, dict[str, str]] = {"labels": {}, "annotations": {}}
    try:
        told: object = json.loads(notes_of(raw).get(BESIDE, "{}"))
    except ValueError:
        return empty
    if not isinstance(told, dict):
        return empty
    return {**empty, **cast("dict[str, dict[str, str]]", told)}


def _envelope_of(raw: Object) -> Object:
    notes = {key: text for key, text in notes_of(raw).items() if key not in _HIDDEN}
    return {
        "name": name_of(raw),
        "uid": uid_of(raw),
        "resourceVersion": version_of(raw),
        "generation": int(metadata(raw).get("generation") or 0),
        "creationTimestamp": created_of(raw),
        "labels": labels_of(raw),
        "annotations": {**notes, **_beside(raw)["annotations"]},
    }


def metadata_of(raw: Object) -> Metadata:
    """What it is in documents; raises InvalidDocument."""
    from faultline.api.document import read
    from faultline.api.model import Metadata

    return read(Metadata, _envelope_of(raw))


# ---------------------------------------------------------------------- whole documents


def resource(kind: type[R], raw: Object, series: Sequence[tuple[str, str]] = ()) -> R:
    """The document of an object; raises InvalidDocument. Series without a place are left out."""
    named = str(kind.model_fields["kind"].default)
    data: Object = {"kind": named, "metadata": _envelope_of(raw), "spec": raw.get("spec")}
    status = raw.get("status")
    if status:
        data["status"] = status
    rows = [row for row in series if has_place(status, row[0])]
    return documents.complete(kind, data, cast("list[tuple[Any, ...]]", rows))


def has_place(status: Any, path: str) -> bool:
    """Whether a status has the parts in which a series lies: it may have been written anew."""
    *above, _ = path.split("/")
    here = status
    for step in above:
        if isinstance(here, list):
            parts = cast("list[Any]", here)
            if not step.isdigit() or int(step) >= len(parts):
                return False
            here = parts[int(step)]
        elif isinstance(here, dict):
            if step not in here:
                return False
            here = cast("dict[str, Any]", here)[step]
    return isinstance(here, dict)


def new(resource: Resource, spec: Object, marks: dict[str, str]) -> Object:
    """What is sent to the server for a new one."""
    parts = envelope(resource.metadata)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": resource.metadata.name,
            "labels": parts["labels"],
            "annotations": {**parts["annotations"], **marks},
        },
        "spec": spec,
    }


def update_of(raw: Object, resource: Resource) -> list[Object]:
    """The JSON patch that gives an object the labels, annotations and spec of a document. Only what
    differs of the spec is written: who wrote it by hand finds it as he wrote it.
    """
    parts = envelope(resource.metadata)
    kept = {key: text for key, text in notes_of(raw).items() if key in _HIDDEN - {BESIDE}}
    wanted = spec_parts(resource)
    before, written = _spec_of(type(resource), raw), cast(Object, raw.get("spec") or {})
    return [
        at_version(resource.metadata.resource_version),
        {"op": "add", "path": "/metadata/labels", "value": parts["labels"]},
        {"op": "add", "path": "/metadata/annotations", "value": {**parts["annotations"], **kept}},
        {"op": "add", "path": "/spec", "value": _changed(written, before, wanted)},
    ]


def _spec_of(kind: type[Resource], raw: Object) -> Object:
    """The spec as our models write it, with its defaults; {} if they refuse it."""
    try:
        return spec_parts(resource(kind, {**raw, "status": None}))
    except InvalidDocument:
        return {}


def _changed(written: Object, before: Object, wanted: Object) -> Object:
    """What somebody wrote, with the difference between the two others made in it."""
    made = {key: value for key, value in written.items() if key in wanted or key not in before}
    for key, value in wanted.items():
        if key in before and before[key] == value:
            continue
        here, old = written.get(key), before.get(key)
        nested = isinstance(value, dict) and isinstance(here, dict) and isinstance(old, dict)
        if nested:
            made[key] = _changed(cast(Object, here), cast(Object, old), cast(Object, value))
        else:
            made[key] = value
    return made


def at_version(version: int) -> Object:
    """The part of a JSON patch that makes the server refuse it at any other version."""
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": str(version)}


def pointer(key: str) -> str:
    """The address of an annotation in a JSON patch (RFC 6901)."""
    return f"/metadata/annotations/{key.replace('~', '~0').replace('/', '~1')}"


# ---------------------------------------------------------------------- what is left out


def spec_parts(resource: Resource) -> Object:
    """The spec as it is written."""
    spec: Any = cast(Any, resource).spec
    return finite(sparse(spec, spec.to_json()), "spec")


def status_parts(resource: Resource) -> tuple[Object | None, Series]:
    """The status as it is written, and its series, which are not."""
    from faultline.stores.series import split

    told: Any = getattr(resource, "status", None)
    if told is None:
        return None, {}
    rest, series = split(told)
    return measured(sparse(rest, rest.to_json())), series


def sparse(model: Any, data: Any) -> Any:
    """The same without texts that are empty anyway. Nobody misses them, and a server of an old
    version that was built with a new compiler takes them for null.
    """
    if isinstance(model, list):
        models = cast("list[Any]", model)
        return [sparse(one, told) for one, told in zip(models, data, strict=True)]
    if isinstance(model, dict):
        by_key = cast("dict[str, Any]", model)
        return {key: sparse(by_key[key], told) if key in by_key else told
                for key, told in data.items()}  # fmt: skip
    fields = _fields(cast("type[Any]", type(model)))
    if fields is None or not isinstance(data, dict):
        return data
    made: Object = {}
    for key, told in cast(Object, data).items():
        name, empty = fields.get(key, ("", False))
        if not (told == "" and empty):
            nested = bool(name) and isinstance(told, (dict, list))
            made[key] = sparse(getattr(model, name), told) if nested else told
    return made


@cache
def _fields(model: type[Any]) -> dict[str, tuple[str, bool]] | None:
    """The fields of a model by their name in documents: their name, and whether an empty text is
    what they have anyway. None for what is no model.
    """
    from faultline.api.model import Model

    if not issubclass(model, Model):
        return None
    return {
        field.alias or name: (name, field.default == "")
        for name, field in model.model_fields.items()
    }


# ---------------------------------------------------------------------- numbers


def finite(data: Object, where: str) -> Object:
    """The same; raises InvalidDocument if a number in it is infinite or none, which JSON lacks."""
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        path = next(_infinite(data, where))
        raise InvalidDocument(
            f"{path} is no number that Kubernetes can keep",
            problems=[(path, "a finite number")],
        ) from None
    return data


def same(one: Any, other: Any) -> bool:
    """Whether it is the same JSON: the server writes a large number without its fraction."""
    if isinstance(one, dict) and isinstance(other, dict):
        mine, theirs = cast(Object, one), cast(Object, other)
        return mine.keys() == theirs.keys() and all(same(mine[key], theirs[key]) for key in mine)
    if isinstance(one, list) and isinstance(other, list):
        some, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(some) == len(others) and all(map(same, some, others))
    if isinstance(one, float) and isinstance(other, int):
        return one == float(other)
    return bool(one == other)


def _infinite(data: Any, path: str) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        yield path
    elif isinstance(data, dict):
        for key, value in cast("dict[str, Any]", data).items():
            yield from _infinite(value, f"{path}.{key}")
    elif isinstance(data, list):
        for index, value in enumerate(cast("list[Any]", data)):
            yield from _infinite(value, f"{path}.{index}")


def measured(data: Any) -> Any:
    """A status that JSON can carry: an infinite number is not kept outside of series."""
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        return _without_infinite(data)
    return data


def _without_infinite(data: Any) -> Any:
    if isinstance(data, dict):
        made = {key: _without_infinite(value) for key, value in cast("Object", data).items()}
        return {key: value for key, value in made.items() if value is not None}
    if isinstance(data, list):
        return [_without_infinite(value) for value in cast("list[Any]", data)]
    return None if isinstance(data, float) and not math.isfinite(data) else data
