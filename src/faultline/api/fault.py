"""A fault that stands alone: on one host as it is, in a cluster on all that its selector finds."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from faultline.api.condition import Condition
from faultline.api.model import Resource, StatusModel
from faultline.api.targets import AimedFaultSpec

FaultPhase = Literal["pending", "injecting", "active", "recovering", "ended", "refused"]


class HostShare(StatusModel):
    """What of a fault one host has: numbers, never the targets themselves."""

    host: str
    """Its name."""
    targets: int = 0
    """How many targets were chosen there."""
    injected: int = 0
    """In how many it was injected."""
    effective: int = 0
    """In how many its effect was measured."""
    ineffective: int = 0
    """In how many it was measured to have none."""
    unmeasured: int = 0
    """In how many there was nothing to measure it by."""
    refused: int = 0
    """In how many it could not be injected."""
    recovered: int = 0
    """In how many nothing of it was found any more."""
    gone: int = 0
    """How many targets ended before it did."""
    person: int = 0
    """In how many somebody must look."""
    lost: bool = False
    """Whether the host does not answer: it undoes everything by itself when its lease has ended."""
    error: str = ""
    """The first reason why something could not be done there."""


class FaultCounts(StatusModel):
    """The sums over all hosts."""

    hosts: int = 0
    """On how many hosts."""
    targets: int = 0
    """How many targets were chosen."""
    injected: int = 0
    """In how many it was injected."""
    effective: int = 0
    """In how many its effect was measured."""
    ineffective: int = 0
    """In how many it was measured to have none."""
    unmeasured: int = 0
    """In how many there was nothing to measure it by."""
    refused: int = 0
    """In how many it could not be injected."""
    recovered: int = 0
    """In how many nothing of it was found any more."""
    gone: int = 0
    """How many targets ended before it did."""
    person: int = 0
    """In how many somebody must look."""
    lost: int = 0
    """How many hosts do not answer."""


class FaultResourceStatus(StatusModel):
    """Where a fault stands."""

    phase: Annotated[FaultPhase, Field()] = "pending"
    """Where it stands as a whole."""
    effect: Literal["effective", "partly", "ineffective", "unmeasured"] | None = None
    """What was measured, as a whole: `partly` if not at all targets."""
    end: str = ""
    """How it ended: `recovered`, `target gone`, `node gone: undo queued`, `needs a person`."""
    message: str = ""
    """The same in one sentence."""
    seed: str = ""
    """What its selector drew from."""
    size: int = 0
    """How many pods or nodes were to be hit when it began."""
    peers: int = 0
    """How many pods are on the other side, where it has a `peer`."""
    counts: FaultCounts = Field(default_factory=FaultCounts)
    """How many targets stand where."""
    hosts: Annotated[list[HostShare], Field(max_length=5000)] = Field(
        default_factory=list[HostShare]
    )
    """The share of each host; the targets themselves are in its Host."""
    started: float | None = None
    """When the first host was asked; this and the next are seconds since 1970."""
    effective_at: float | None = None
    """When the last target was measured to be hit."""
    until: float | None = None
    """When it is to end; a target that was injected later ends later by as much."""
    recovery_started: float | None = None
    """When it was to be undone."""
    ended: float | None = None
    """When nothing of it was found any more, anywhere."""
    observed_generation: int = 0
    """The generation of the spec that was looked at."""
    conditions: list[Condition] = Field(default_factory=list[Condition])
    """`Resolved`, `Injected`, `Effective`, `Recovered`."""


class Fault(Resource):
    """A fault that stands alone. Deleting it undoes it."""

    plural: ClassVar[str] = "faults"

    kind: Literal["Fault"] = "Fault"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: AimedFaultSpec
    """What to inject, and where."""
    status: FaultResourceStatus = Field(default_factory=FaultResourceStatus)
    """Where it stands."""
