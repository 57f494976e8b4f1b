"""Where a fault acts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from faultline.api.model import Model

KINDS = ("container", "pod", "pid", "process", "cgroup")


class TargetSpec(Model):
    """Where a fault acts; at most one of these. Nothing means the host."""

    container: str = ""
    """A container of this host: its id, an unambiguous beginning of it, its name, or KEY=VALUE of a
    label."""
    pod: Annotated[str, Field(pattern=r"^$|^[^/ ]+/[^/ ]+(/[^/ ]+)?$")] = ""
    """A pod of this node: NAMESPACE/NAME, or NAMESPACE/NAME/CONTAINER."""
    pid: Annotated[int, Field(ge=0, le=2**22)] = 0
    """A process with its descendants."""
    start: Annotated[int, Field(ge=0)] = 0
    """With `pid`: when it was started, in clock ticks since boot (proc_pid_stat(5), field 22), so
    that no other process that has got this number is hit."""
    process: str = ""
    """The same by a regular expression that is found in the command line of exactly one."""
    cgroup: str = ""
    """A control group, as in /proc/PID/cgroup or as a folder below /sys/fs/cgroup."""

    @model_validator(mode="after")
    def _one(self) -> TargetSpec:
        named = [name for name in KINDS if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"expected at most one of {', '.join(named)}")
        if self.start and not self.pid:
            raise ValueError("expected start only with pid")
        return self
