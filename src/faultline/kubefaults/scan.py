"""What faults have left in a cluster, found without any record: by their notes and their label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from faultline.errors import InvalidDocument
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubefaults import notes
from faultline.kubefaults.change import Change, of_note
from faultline.kubefaults.notes import OWNER

_NEVER = frozenset({"Event"})
"""Kinds of which there are very many, and which go by themselves."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One mark of a fault on one object."""

    fault: str  # its uid, as in every mark
    change: Change | None  # what undoes it; None if the note was damaged
    words: str  # the object
    owner: str = ""  # who wanted it
    until: float = 0.0  # when it was to end, seconds since 1970; 0 if it does not say
    problem: str = ""


def listed(client: Client, only: Sequence[str] = ()) -> list[Kind]:
    """The kinds that can be listed and changed, each once; with `only` those of these names."""
    found: list[Kind] = []
    for version in client.preferred():
        for kind in client.served(version):
            able = "list" in kind.verbs and {"patch", "delete"} & {*kind.verbs}
            named = kind.kind in only if only else kind.kind not in _NEVER
            if able and named and not kind.group.endswith("faultline.dev"):
                found.append(kind)
    # The oldest group shows what others have, too.
    elsewhere = {kind.kind for kind in found if kind.group != "extensions"}
    return [each for each in found if each.group != "extensions" or each.kind not in elsewhere]


def scan(
    client: Client, kinds: Sequence[Kind], unread: Callable[[Kind, ApiError], None]
) -> Iterator[Trace]:
    """Everything of ours on objects of these kinds; `unread` is told which could not be listed.

    Raises ApiError if the server does not answer.
    """
    for kind in kinds:
        try:
            for each in client.every(kind):
                yield from _of(kind, each)
        except ApiError as error:
            if not error.refused:
                raise
            unread(kind, error)


def one(client: Client, kind: Kind, namespace: str, name: str) -> list[Trace]:
    """Everything of ours on one object; raises ApiError."""
    try:
        return [*_of(kind, client.get(kind, name, namespace))]
    except ApiError as error:
        if error.status == 404:
            return []
        raise


def _of(kind: Kind, each: Object) -> Iterator[Trace]:
    meta = metadata(each)
    where = str(meta.get("namespace") or "")
    words = f"{kind.kind} {f'{where}/' if where else ''}{meta['name']}"
    for fault in notes.holders(each):
        about = notes.about(each, fault)
        owner, until = str(about.get("owner") or ""), float(about.get("until") or 0)
        try:
            yield Trace(fault, of_note(kind, each, fault), words, owner, until)
        except InvalidDocument as error:
            yield Trace(fault, None, words, owner, until, error.message)
    fault, told = notes.labels_of(each).get(OWNER), notes.made_for(each)
    if fault and told is not None and not meta.get("deletionTimestamp"):
        made = Change("create", kind, where, str(meta["name"]))
        owner, until = str(told.get("owner") or ""), float(told.get("until") or 0)
        yield Trace(fault, made, words, owner, until)
