"""One fault as a document asks for it, and where it acts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.api.quantities import Between, Duration, Percent, text
from faultline.api.selector import PodSelector, Selector
from faultline.api.selector_cluster import Glob
from faultline.api.target import TargetSpec

__all__ = ["AimedFaultSpec", "FaultSpec", "Flap", "Peer", "TargetSpec"]


class FaultSpec(Model):
    """One fault for a duration."""

    fault: Annotated[str, Field(pattern=r"^[a-z0-9]+\.[a-z0-9_-]+$")]
    """Which one, as `family.fault`: `network.delay`."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Its parameters; see `faultline explain FAMILY FAULT`."""
    duration: Annotated[Duration, Between("100ms", "7d")] = text("10m")
    """How long it lasts, from the moment at which it is injected."""
    allow: list[str] = Field(default_factory=list[str])
    """Guards that are overridden, by name."""
    target: TargetSpec = Field(default_factory=TargetSpec)
    """Where it acts: without it, on this host."""


class Peer(Model):
    """The other side of a conversation: all pods that a selector finds, as long as it lasts."""

    pods: PodSelector
    """Which pods of the cluster. Those that come later are among them, those that go are not."""
    exclude: Annotated[list[Glob], Field(max_length=100)] = Field(default_factory=list[str])
    """Names that are not meant, or patterns of them: NAME or NAMESPACE/NAME."""


class Flap(Model):
    """A fault that comes and goes."""

    present: Annotated[Duration, Between("1s", "1d")]
    """How long it is there."""
    absent: Annotated[Duration, Between("1s", "1d")]
    """How long it is not."""
    jitter: Annotated[Percent, Between("0%", "90%")] = text("0%")
    """By how much each time is longer or shorter than `present`, by chance; the next one begins
    when it would have begun anyway."""


class AimedFaultSpec(FaultSpec):
    """One fault for a duration, on one target or on several that a selector finds."""

    selector: Selector | None = None
    """Instead of a target: which of a set it acts on, each with a proof of its own. Resolved when
    the run begins. With `nodes` the target may stand beside it: what is hit on each node."""
    peer: Peer | None = None
    """In a cluster, of a fault of the network that takes addresses: only what the targets send to
    these pods, or with `direction: in` get from them, or with `both` either. Their addresses, and
    those of services that lead to them alone, are kept up to date while the fault is there."""
    flap: Flap | None = None
    """In a cluster, of a fault of its objects: it comes and goes instead of staying."""

    @model_validator(mode="after")
    def _one_way(self) -> AimedFaultSpec:
        aimed = self.selector is not None and self.selector.nodes is None
        if aimed and self.target != TargetSpec():
            raise ValueError("expected at most one of target and selector, except selector.nodes")
        return self
