"""Probes of this host: programs, processes and files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from faultline.api.expectation import Unit
from faultline.api.probe_base import Pattern, ProbeBase


class CommandProbe(ProbeBase):
    """A command as an argument list; no shell. Its value is the first number that it prints, else
    its exit code; `result` has code, output.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["command"]
    command: Annotated[list[str], Field(min_length=1)]
    """The program and its arguments."""
    env: dict[str, str] = Field(default_factory=dict[str, str])
    """Variables added to a small clean environment."""
    cwd: str = "/"
    """Its working folder."""
    user: str = ""
    """Whom to run it as; without it, as the caller."""
    code: int | Literal["any"] = 0
    """The exit code that is good."""
    pattern: Pattern = ""
    """What its output must contain."""


class LogProbe(ProbeBase):
    """New lines of a file that match. Its value is their number since the start, or per second
    since the last look.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "matches"

    type: Literal["log"]
    path: str
    """The file; followed over rotation."""
    pattern: Pattern
    """What a line must contain to count."""
    count_as: Literal["total", "rate"] = "total"
    """`total`: matches since the start of the run; `rate`: matches per second since the
    measurement before."""


class ProcessProbe(ProbeBase):
    """Processes of this host. Its value is their number, their memory in bytes or their share of
    one core.
    """

    unit: ClassVar[Unit] = ""

    type: Literal["process"]
    process: str = ""
    """The name of the program."""
    pid: Annotated[int, Field(ge=1)] | None = None
    """One process."""
    pattern: Pattern = ""
    """What the command line must contain."""
    measure: Literal["count", "rss", "cpu"] = "count"
    """`count`: how many run; `rss`: memory in bytes; `cpu`: share of one core since the
    measurement before."""

    def value_unit(self) -> Unit:
        return {"count": "", "rss": "B", "cpu": "ratio"}[self.measure]  # type: ignore[return-value]

    @model_validator(mode="after")
    def _one_selector(self) -> ProcessProbe:
        if (bool(self.process), self.pid is not None, bool(self.pattern)).count(True) != 1:
            raise ValueError("expected exactly one of process, pid and pattern")
        return self
