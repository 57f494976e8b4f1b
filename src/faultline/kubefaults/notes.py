"""Notes: what a fault has changed, in an annotation of the very object that it has changed.

A scan of the cluster finds them without any record, and has all that is needed to undo.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from faultline.errors import Conflict, InvalidDocument, Refused
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.fields import Field

OWNER = "faultline.dev/fault"
"""The label of what a fault has made: the uid of the fault."""
NOTE = "undo.faultline.dev/"
"""What the names of these annotations begin with; the uid of the fault follows."""
ABOUT = "faultline.dev/about"
"""The annotation of what a fault has made: who wanted it, and until when."""
_LARGEST = 100_000  # characters of a note; the server takes 256 KiB of annotations in all


def annotations_of(each: Object) -> dict[str, str]:
    """The annotations of an object."""
    return cast("dict[str, str]", metadata(each).get("annotations") or {})


def labels_of(each: Object) -> dict[str, str]:
    """The labels of an object."""
    return cast("dict[str, str]", metadata(each).get("labels") or {})


def noted(each: Object) -> dict[str, tuple[str, tuple[Field, ...]]]:
    """The faults that hold fields of an object, by uid: the subresource, and these fields; raises
    InvalidDocument for a note that somebody has damaged.
    """
    found: dict[str, tuple[str, tuple[Field, ...]]] = {}
    for name, text in annotations_of(each).items():
        if not name.startswith(NOTE):
            continue
        try:
            told: Any = json.loads(text)
            fields = [Field(tuple(f["path"]), f["before"], f["after"]) for f in told["fields"]]
            found[name.removeprefix(NOTE)] = (str(told["part"]), tuple(fields))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidDocument(f"the annotation {name} is damaged: {error}") from error
    return found


def holders(each: Object) -> list[str]:
    """The faults that have a note on an object, by uid, also where it is damaged."""
    return [n.removeprefix(NOTE) for n in annotations_of(each) if n.startswith(NOTE)]


def about(each: Object, fault: str) -> dict[str, Any]:
    """What the note of a fault says of it: `owner` and `until`; nothing if it is damaged."""
    return _read(annotations_of(each).get(NOTE + fault))


def made_for(each: Object) -> dict[str, Any] | None:
    """The same of an object that a fault has made; None if none has."""
    told = _read(annotations_of(each).get(ABOUT))
    return told if told.get("name") == metadata(each).get("name") else None


def _read(text: str | None) -> dict[str, Any]:
    try:
        told: Any = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def marked(made: Object, fault: str, name: str, about: Mapping[str, Any] | None) -> Object:
    """An object that is to be made, with the label of the fault and what there is to say of it.

    Its name is part of that: of a copy that somebody makes of it, under another name, it is not.
    """
    told = json.dumps({"name": name, **(about or {})})
    meta = {
        **metadata(made), "name": name, "labels": {**labels_of(made), OWNER: fault},
        "annotations": {**annotations_of(made), ABOUT: told},
    }  # fmt: skip
    return {**made, "metadata": meta}


def note(
    fault: str, part: str, fields: Sequence[Field], about: Mapping[str, Any] | None = None
) -> Field:
    """The note of a fault, as one more field to be written; raises Refused if it is too long."""
    told = {"part": part, "fields": [asdict(each) for each in fields], **(about or {})}
    text = json.dumps(told, separators=(",", ":"))
    if len(text) > _LARGEST:
        raise Refused(f"what has to be remembered is too long: {len(text)} characters")
    return Field(("metadata", "annotations", NOTE + fault), None, text)


def note_on(now: Object, fault: str) -> Field:
    """The note that is on an object, as a field to be taken back."""
    return Field(("metadata", "annotations", NOTE + fault), None, annotations_of(now)[NOTE + fault])


def nobody_else(now: Object, fields: Sequence[Field], words: str) -> None:
    """Raise Conflict if another fault holds one of the fields."""
    for fault, (_, held) in noted(now).items():
        for other in held:
            for mine in fields:
                if mine.touches(other):
                    raise Conflict(
                        f"{words}: {mine.words} is held by another fault",
                        holder=fault,
                        hint="delete that fault, or wait for its end",
                    )
