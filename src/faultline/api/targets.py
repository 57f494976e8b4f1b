"""One fault as a document asks for it, and where it acts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.api.quantities import Between, Duration, text


class TargetSpec(Model):
    """Where a fault acts; at most one of these. Nothing means the host."""

    container: str = ""
    """A container of this host: its id, an unambiguous beginning of it, its name, or KEY=VALUE of a
    label."""
    pod: Annotated[str, Field(pattern=r"^$|^[^/ ]+/[^/ ]+(/[^/ ]+)?$")] = ""
    """A pod of this node: NAMESPACE/NAME, or NAMESPACE/NAME/CONTAINER."""
    pid: Annotated[int, Field(ge=0, le=2**22)] = 0
    """A process with its descendants."""
    process: str = ""
    """The same by a regular expression that is found in the command line of exactly one."""
    cgroup: str = ""
    """A control group, as in /proc/PID/cgroup or as a folder below /sys/fs/cgroup."""

    @model_validator(mode="after")
    def _one(self) -> TargetSpec:
        named = [name for name in type(self).model_fields if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"expected at most one of {', '.join(named)}")
        return self


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
