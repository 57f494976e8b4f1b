"""One fault as a document asks for it, and where it acts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.api.quantities import Between, Duration, text
from faultline.api.selector import Selector
from faultline.api.target import TargetSpec

__all__ = ["AimedFaultSpec", "FaultSpec", "TargetSpec"]


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


class AimedFaultSpec(FaultSpec):
    """One fault for a duration, on one target or on several that a selector finds."""

    selector: Selector | None = None
    """Instead of a target: which of a set it acts on, each with a proof of its own. Resolved when
    the run begins. With `nodes` the target may stand beside it: what is hit on each node."""

    @model_validator(mode="after")
    def _one_way(self) -> AimedFaultSpec:
        aimed = self.selector is not None and self.selector.nodes is None
        if aimed and self.target != TargetSpec():
            raise ValueError("expected at most one of target and selector, except selector.nodes")
        return self
