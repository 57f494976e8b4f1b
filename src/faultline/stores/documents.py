"""Resources as the columns of a row, and back. Models are imported where one is made."""

from __future__ import annotations

import gc
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from faultline.stores.model import R, kind_name

if TYPE_CHECKING:
    from faultline.api.model import Metadata, Resource
    from faultline.stores.database import Row
    from faultline.stores.series import Series

Document = dict[str, Any]


def parts(resource: Resource, *, status: bool = True) -> tuple[Document, Document | None, Series]:
    """Spec, status without its series, and these; with `status` off the spec alone."""
    spec: Document = getattr(resource, "spec").to_json()  # noqa: B009 (each kind has its own)
    told, series = status_parts(resource) if status else (None, {})
    return spec, told, series


def status_parts(resource: Resource) -> tuple[Document | None, Series]:
    """Status without its series, and these."""
    from faultline.api.model import StatusModel
    from faultline.stores.series import split

    told: object = getattr(resource, "status", None)
    if told is None:
        return None, {}
    if not isinstance(told, StatusModel):
        raise TypeError(f"the status of a {resource.kind} is a {type(told).__name__}")
    rest, series = split(told)
    return rest.to_json(), series


def text(data: Document) -> str:
    return json.dumps(data, separators=(",", ":"))


def metadata(meta: Metadata) -> str:
    return json.dumps({"labels": meta.labels, "annotations": meta.annotations})


def _envelope(row: Sequence[Any]) -> Document:
    _, name, uid, version, generation, created, meta, *_ = row
    return {
        "name": name,
        "uid": uid,
        "resourceVersion": version,
        "generation": generation,
        "creationTimestamp": created,
        **json.loads(meta),
    }


def resource(kind: type[R], row: Row, series: list[Row]) -> R:
    """The document of a row, complete."""
    spec, status = row[7], row[8]
    data: Document = {
        "kind": kind_name(kind),
        "metadata": _envelope(row),
        "spec": json.loads(spec),
    }
    if status is not None:
        data["status"] = json.loads(status)
    return complete(kind, data, series)


def complete(kind: type[R], data: Document, series: list[Row]) -> R:
    """The document of its data and its series; raises InvalidDocument. May alter the data."""
    from pydantic import ValidationError

    from faultline.api.document import read
    from faultline.stores.series import fill, joined

    called = f"{data['kind']} {data['metadata']['name']!r}"
    if not series:
        return read(kind, data, called)
    try:
        with _nothing_collected():
            made = kind.model_validate(data)
            fill(getattr(made, "status"), series)  # noqa: B009 (each kind has its own)
        return made
    except ValidationError:
        # Slowly, with the path of what is wrong; and texts with half of a surrogate pair, which are
        # no Unicode but may be in what a target said.
        data["status"] = joined(data["status"], series)
        return read(kind, data, called)


@contextmanager
def _nothing_collected() -> Generator[None]:
    """While many objects are made that all stay, looking for garbage among them takes as long as
    making them does.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def written(resource: R, row: Sequence[Any], version: int, spec: str | None = None) -> R:
    """The document after a write, without reading its series again; `spec` if it has another one
    than the writer's.
    """
    from faultline.api.document import read
    from faultline.api.model import Metadata

    meta = read(Metadata, {**_envelope(row), "resourceVersion": version})
    changed: Document = {"metadata": meta}
    if spec is not None:
        kind = type(resource)
        stored = {"kind": row[0], "metadata": meta.to_json(), "spec": json.loads(spec)}
        changed["spec"] = getattr(read(kind, stored), "spec")  # noqa: B009
    return resource.model_copy(update=changed)
