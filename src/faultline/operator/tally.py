"""What hosts say of one fault, in numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from faultline.api.fault import FaultCounts, HostShare
from faultline.api.host import Actual, Desired

NUMBERS = ("targets", "injected", "effective", "ineffective", "unmeasured", "refused", "recovered",
           "gone", "person")  # fmt: skip
LONGEST = 300  # letters of a host's complaint


@dataclass(frozen=True, slots=True)
class Entry:
    """One fault on one target: what is wanted, and what the host says of it."""

    desired: Desired
    actual: Actual | None = None

    @property
    def closed(self) -> bool:
        """Whether its host has said how it ended."""
        return self.actual is not None and self.actual.stage in ("ended", "refused")

    @property
    def begun(self) -> bool:
        """Whether its host has said that it is injected, or will not be."""
        return self.actual is not None and self.actual.stage != "injecting"


@dataclass(frozen=True)
class Part:
    """What one host has of one fault."""

    entries: tuple[Entry, ...]

    @cached_property
    def share(self) -> HostShare:
        """The same in numbers; the host's name and whether it is lost are others' business."""
        numbers: dict[str, int] = dict.fromkeys(NUMBERS, 0)
        numbers["targets"] = len(self.entries)
        error = ""
        for entry in self.entries:
            for name in _counted(entry.actual):
                numbers[name] += 1
            if entry.actual is not None and not error:
                error = entry.actual.error or entry.actual.note
        return HostShare.model_validate({"host": "", "error": error[:LONGEST], **numbers})

    @cached_property
    def closed(self) -> bool:
        return all(entry.closed for entry in self.entries)

    @cached_property
    def begun(self) -> bool:
        return all(entry.begun for entry in self.entries)

    @cached_property
    def effective_at(self) -> float:
        """When the last one was measured to be effective; 0 if none was."""
        found = [e.actual.effective_at or 0.0 for e in self.entries if e.actual is not None]
        return max(found, default=0.0)

    @cached_property
    def injected_at(self) -> float:
        """When the last one was injected; 0 if none was."""
        found = [e.actual.injected_at or 0.0 for e in self.entries if e.actual is not None]
        return max(found, default=0.0)

    @cached_property
    def undone(self) -> bool:
        """Whether all of it is marked to be undone."""
        return all(entry.desired.undo for entry in self.entries)


def _counted(actual: Actual | None) -> Iterable[str]:
    if actual is None:
        return
    if actual.injected_at is not None:
        yield "injected"
    if actual.effect is not None:
        yield actual.effect
    if actual.stage == "refused":
        yield "refused"
    if actual.stage == "ended":
        match actual.end:
            case "target gone":
                yield "gone"
            case "needs a person":
                yield "person"
            case _:
                yield "recovered"


@dataclass(frozen=True)
class HostView:
    """One host, by owner of what is wanted there."""

    name: str
    version: str = ""
    alive: bool = True  # its agent renews its lease
    gone: bool = False  # its node does not exist any more
    halted: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict[str, Part])  # by uid of the owner
    open: int = 0  # faults that it has, whoever wants them
    heard: bool = True  # whether its agent has acted upon what is asked of it now
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])  # faults, and why not
    marks: int = 0  # of ours that no journal of it knows
    components: frozenset[str] = frozenset()  # programs of the control plane that run there


def counts(shares: Iterable[HostShare]) -> FaultCounts:
    """The sums."""
    sums: dict[str, int] = dict.fromkeys(NUMBERS, 0)
    hosts = lost = 0
    for share in shares:
        hosts += 1
        lost += share.lost
        for name in NUMBERS:
            sums[name] += getattr(share, name)
    return FaultCounts(hosts=hosts, lost=lost, **sums)


def effect(
    found: FaultCounts,
) -> Literal["effective", "partly", "ineffective", "unmeasured"] | None:
    """The effect as a whole; None while there is something that has not been measured yet."""
    told = found.effective + found.ineffective + found.unmeasured
    if not told or told < found.injected:
        return None
    if found.effective == found.targets:
        return "effective"
    if found.effective:
        return "partly"
    return "ineffective" if found.ineffective else "unmeasured"


def end(found: FaultCounts) -> str:
    """How it ended as a whole: what is worst."""
    if found.person:
        return "needs a person"
    if found.lost:
        return "node gone: undo queued"
    if found.gone and found.gone + found.refused == found.targets:
        return "target gone"
    return "recovered"
