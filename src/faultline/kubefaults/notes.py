"""Notes: what a fault has changed, in an annotation of the very object that it has changed.

A scan of the cluster finds them without any record, and has all that is needed to undo.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from faultline.errors import Conflict, InvalidDocument, Refused
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.fields import Field

OWNER = "faultline.dev/fault"
"""The label of what a fault has made: the uid of the fault."""
NOTE = "undo.faultline.dev/"
"""What the names of these annotations begin with; the uid of the fault follows."""
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


def note(fault: str, part: str, fields: Sequence[Field]) -> Field:
    """The note of a fault, as one more field to be written; raises Refused if it is too long."""
    told = {"part": part, "fields": [asdict(each) for each in fields]}
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
