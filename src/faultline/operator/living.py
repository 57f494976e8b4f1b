"""Which further targets a fault has: while it is being chosen, and of a live set later on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from faultline.api.drawing import ordered
from faultline.api.host import Desired
from faultline.api.selector import Selector
from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError
from faultline.operator import resolving
from faultline.operator.aiming import is_of_objects
from faultline.operator.model import Facts, FaultView
from faultline.operator.resolving import Aim, Candidate
from faultline.operator.tally import Entry, Part

LEAST = 1.0
"""Seconds that must be left of a fault for another target to be hit."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a host has of the fault already."""

    key: str  # of the pod or node that it is on
    entry: Entry


def is_live(spec: AimedFaultSpec | None) -> bool:
    """Whether targets may come after the choice."""
    return spec is not None and spec.selector is not None and spec.selector.live != "freeze"


def more(
    fault: FaultView, spec: AimedFaultSpec, facts: Facts, parts: Mapping[str, Part], *, chosen: bool
) -> list[Aim]:
    """What is to be hit besides what hosts know of already."""
    if facts.cluster is None or facts.unready or facts.halted is not None or fault.deleting:
        return []
    rest = (fault.status.until or facts.now) - facts.now
    if chosen and rest < LEAST:
        return []
    try:
        selector = resolving.selector_of(spec)
        found = resolving.candidates(spec, selector, fault.namespace, facts.cluster)
    except FaultlineError:  # it could be resolved when it began; what was asked for then stands
        return []
    entries = [
        Known(_key_of(name, entry.desired), entry)
        for name, part in parts.items()
        for entry in part.entries
    ]
    if chosen and is_of_objects(spec.fault) and len(entries) >= resolving.MOST:
        return []  # all that ever was there stands in one Host until it ends
    known = {each.key for each in entries}
    new = [each for each in found.free if _key(each) not in known]
    # A host was told of some containers of a pod when the operator died: all were meant.
    half = [each for each in found.free if _key(each) in known] if not chosen else []
    if chosen and selector.live == "follow":
        taken = _following(new, entries, fault)
    else:
        taken = _filled(new, entries, fault, selector, chosen=chosen)
    return [aim for each in (*half, *taken) for aim in each.aims]


def _filled(
    new: list[Candidate],
    entries: list[Known],
    fault: FaultView,
    selector: Selector,
    *,
    chosen: bool,
) -> list[Candidate]:
    """As many as there were to be."""
    there = {each.key for each in entries if not (chosen and each.entry.closed)}
    missing = fault.status.size - len(there)
    if chosen and selector.how == "all":
        missing = len(new)
    seed = selector.seed or fault.status.seed
    groups = {each.key: each.group for each in new} if selector.spread else None
    by_key = {each.key: each for each in new}
    return [by_key[key] for key in ordered(list(by_key), seed, groups)[: max(0, missing)]]


def _following(new: list[Candidate], entries: list[Known], fault: FaultView) -> list[Candidate]:
    """For each pod that has gone the one with which its owner replaces it."""
    begun = fault.status.started or 0.0
    first = {e.key: _owner(e.entry.desired) for e in entries if e.entry.desired.asked_at <= begun}
    there = {e.key: _owner(e.entry.desired) for e in entries if not e.entry.closed}
    missing = Counter(first.values())
    missing.subtract(Counter(there.values()))
    taken: list[Candidate] = []
    for each in sorted(new, key=lambda one: one.key):
        owner = each.aims[0].owner
        if owner and missing[owner] > 0:
            missing[owner] -= 1
            taken.append(each)
    return taken


def _owner(entry: Desired) -> str:
    one = entry.object or entry.pod
    return f"{one.namespace} {one.owner}" if one is not None and one.owner else ""


def _key(candidate: Candidate) -> str:
    return candidate.aims[0].key


def _key_of(host: str, entry: Desired) -> str:
    one = entry.object or entry.pod
    return one.uid if one is not None else host
