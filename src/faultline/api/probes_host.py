"""Probes of this host: programs, processes and files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from faultline.api.expectation import Unit
from faultline.api.probe_base import Pattern, ProbeBase
from faultline.api.quantities import Between, Size, text
from faultline.api.secret import SecretRef


class CommandProbe(ProbeBase):
    """A command as an argument list; no shell. Its value is the first number that it prints, else
    its exit code; `result` has code, output.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["command"]
    command: Annotated[list[str], Field(min_length=1)]
    """The program and its arguments."""
    env: dict[str, str | SecretRef] = Field(default_factory=dict[str, str | SecretRef])
    """Variables added to a small clean environment: texts, or where a secret lies."""
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
    since the last look; `result.counts` has the number for each of several patterns.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "matches"

    type: Literal["log"]
    path: str
    """The file; followed over rotation."""
    pattern: Pattern = ""
    """What a line must contain to count."""
    patterns: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Pattern] = Field(
        default_factory=dict[str, str]
    )
    """Several of them by names of yours: a line counts if it contains any, and in `result.counts`
    once for each that it contains."""
    ignore: Pattern = ""
    """What a line must not contain to count."""
    count_as: Literal["total", "rate"] = "total"
    """`total`: matches since the start of the run; `rate`: matches per second since the
    measurement before."""

    @model_validator(mode="after")
    def _something_to_look_for(self) -> LogProbe:
        if bool(self.pattern) == bool(self.patterns):
            raise ValueError("expected exactly one of pattern and patterns")
        return self


class FileProbe(ProbeBase):
    """A file of this host. Its value is its size in bytes, the seconds since it was last written,
    whether it is there (1 or 0), or how many of its lines match.
    """

    unit: ClassVar[Unit] = ""

    type: Literal["file"]
    path: Annotated[str, Field(pattern=r"^/")]
    """The file."""
    measure: Literal["size", "age", "exists", "matches"] = "exists"
    """`size`: bytes; `age`: seconds since it was last written, by the clock of this host; `exists`:
    1 or 0; `matches`: lines that contain `pattern`."""
    pattern: Pattern = ""
    """What one of its lines must contain; with `measure: matches`, which lines count."""
    largest: Annotated[Size, Between("1B", "1TiB")] = text("64MiB")
    """A larger file is not searched; it is then not measured."""

    def value_unit(self) -> Unit:
        return {"size": "B", "age": "s"}.get(self.measure, "")  # type: ignore[return-value]

    @model_validator(mode="after")
    def _something_to_count(self) -> FileProbe:
        if self.measure == "matches" and not self.pattern:
            raise ValueError("expected a pattern with `measure: matches`")
        return self


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
