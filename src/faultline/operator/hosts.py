"""Hosts as the operator sees them, and what it writes to them. Pure.

Everything that all faults want of a host is one write, however many they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from faultline.api.host import Actual, Desired, HostSpec, HostStatus
from faultline.kubeapi.model import Object, metadata, version_of
from faultline.operator.tally import Entry, HostView, Part

OBJECTS = "api.faultline.dev"
"""The Host of what is done to objects over the API server: no node, the operator itself is its
agent."""


@dataclass(frozen=True, slots=True)
class HostObject:
    """A Host of the API server."""

    name: str
    uid: str
    version: str
    spec: HostSpec
    view: HostView  # as if its agent answered
    generation: int = 0
    status: HostStatus | None = None  # of the Host of objects alone

    @property
    def actual(self) -> list[Actual]:
        """What became of what is wanted there, of the Host of objects."""
        return self.status.actual if self.status is not None else []

    @staticmethod
    def none(name: str) -> HostObject:
        """One that is still to be made."""
        return HostObject(name, "", "", HostSpec(), HostView(name))

    @staticmethod
    def of(found: Object) -> HostObject | None:
        """The same from an object; None if it is not one that this version can read."""
        meta = metadata(found)
        try:
            spec = HostSpec.model_validate(found.get("spec") or {})
            status = HostStatus.model_validate(found.get("status") or {})
        except ValidationError:
            return None
        name = str(meta["name"])
        generation = int(meta.get("generation") or 0)
        heard = status.observed_generation >= generation
        view = replace(view_of(name, spec, status), heard=heard)
        kept = status if name == OBJECTS else None
        return HostObject(name, str(meta["uid"]), version_of(found), spec, view, generation, kept)


def view_of(name: str, spec: HostSpec, status: HostStatus) -> HostView:
    """What it is asked for and what it says, by who wants it."""
    actual = {each.uid: each for each in status.actual}
    parts: dict[str, list[Entry]] = {}
    for each in spec.desired:
        parts.setdefault(each.owner_uid, []).append(Entry(each, actual.get(each.uid)))
    cannot = {each.fault: each.why for each in status.capabilities if not each.works}
    made = {owner: Part(tuple(entries)) for owner, entries in parts.items()}
    there = sum(each.stage in ("injecting", "active", "recovering") for each in status.actual)
    return HostView(
        name,
        halted=spec.halted,
        parts=made,
        open=there,
        cannot=cannot,
        marks=len(status.unwanted),
        components=frozenset(status.components),
    )


def owners(host: HostObject | None) -> set[str]:
    """The Faults that want something there, as NAMESPACE/NAME."""
    entries = host.spec.desired if host is not None else ()
    return {
        each.owner.removeprefix("Fault/") for each in entries if each.owner.startswith("Fault/")
    }


def asked(
    spec: HostSpec,
    wanted: Mapping[str, Mapping[str, Desired]],
    known: Collection[str],
    halted: str,
) -> HostSpec:
    """What a host is to be asked for.

    `wanted` is what faults want here, by their uids; of those that are known and not in it nothing
    is changed, they have not been looked at yet. What belongs to a fault that is not known any more
    goes; what belongs to anybody else stays.
    """
    kept: list[Desired] = []
    for each in spec.desired:
        if not each.owner.startswith("Fault/"):
            kept.append(each)
        elif each.owner_uid in wanted:
            now = wanted[each.owner_uid].get(each.uid)
            if now is not None:
                kept.append(now)
        elif each.owner_uid in known:
            kept.append(each)
    there = {each.uid for each in kept}
    for entries in wanted.values():
        kept += [each for each in entries.values() if each.uid not in there]
    return spec.model_copy(update={"desired": kept, "halted": halted})
