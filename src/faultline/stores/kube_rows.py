"""What is known of the objects of a cluster without keeping the whole of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from faultline.kubeapi.model import Object
from faultline.stores import summaries
from faultline.stores.kube_documents import (
    HOLDER,
    INCOMPLETE,
    created_of,
    fence_of,
    labels_of,
    name_of,
    notes_of,
    sparse,
    uid_of,
    version_of,
)
from faultline.stores.model import Summary


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of an object without keeping the whole of it."""

    summary: Summary
    holder: str
    fence: int
    incomplete: bool
    raw: Object | None  # the whole, where it is small

    @property
    def order(self) -> tuple[float, str]:
        return self.summary.created, self.summary.name


def row(kind: str, raw: Object, *, whole: bool = False) -> Row:
    """What is to be known of an object, whatever is in it."""
    spec = _mapping(raw.get("spec"))
    status = {**(bare_status(kind) or {}), **_mapping(raw.get("status"))}
    notes = notes_of(raw)
    told = Summary(
        kind=kind, name=name_of(raw), uid=uid_of(raw), version=version_of(raw),
        created=created_of(raw), started=_number(status.get("started")),
        ended=_number(status.get("ended")), experiment=summaries.plain(spec.get("experiment")),
        creator=summaries.plain(spec.get("creator")), phase=summaries.plain(status.get("phase")),
        verdict=summaries.plain(status.get("verdict")),
        reason=summaries.plain(status.get("reason")), labels=labels_of(raw),
    )  # fmt: skip
    return Row(
        told, notes.get(HOLDER, ""), fence_of(raw), INCOMPLETE in notes, raw if whole else None
    )


def _mapping(value: object) -> Object:
    return cast(Object, value) if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


@cache
def bare_status(kind: str) -> Object | None:
    """The status of what nobody has written any for; None for what has none then. To be read."""
    from faultline.api.kinds import KINDS

    found = KINDS[kind].model_fields.get("status") if kind in KINDS else None
    status: Any = None if found is None else found.get_default(call_default_factory=True)
    return None if status is None else sparse(status, status.to_json())
