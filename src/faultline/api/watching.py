"""What a run keeps of its targets: their own curves, and what they logged meanwhile."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from faultline.api.model import Model, NodeName, StatusModel
from faultline.api.probe_base import Pattern, Url
from faultline.api.quantities import Between, Duration, text
from faultline.api.secret import SecretRef


class JournalSource(Model):
    """What the journal of systemd holds; at least one of these."""

    unit: str = ""
    """A unit: `nginx.service`."""
    pid: Annotated[int, Field(ge=0, le=2**22)] = 0
    """A process."""
    identifier: str = ""
    """The name that a program gives itself in the log."""
    kernel: bool = False
    """The messages of the kernel."""

    @model_validator(mode="after")
    def _any(self) -> JournalSource:
        if not (self.unit or self.pid or self.identifier or self.kernel):
            raise ValueError("expected one of unit, pid, identifier and kernel")
        return self


class LokiSource(Model):
    """A query to Grafana Loki (`GET /loki/api/v1/query_range`)."""

    url: Url
    """Its address, without the path."""
    query: str
    """A log query of LogQL: `{app="shop"} |= "error"`."""
    tenant: str = ""
    """The tenant (X-Scope-OrgID), where it has several."""
    token: SecretRef | None = None
    """A bearer token."""
    user: str = ""
    """A name for basic authentication."""
    password: SecretRef | None = None
    """The password to it."""
    timeout: Annotated[Duration, Between("100ms", "1m")] = text("10s")
    """How long an answer may take."""


class LogSpec(Model):
    """A log that is kept with the run, from its start to its end; exactly one of file, container,
    journal and loki.
    """

    name: NodeName
    """How the report calls it."""
    file: str = ""
    """A file. Each line has the time at which it was written, to the second."""
    container: str = ""
    """What the runtime keeps of a container's output: its id, an unambiguous beginning of it, its
    name, or KEY=VALUE of a label."""
    journal: JournalSource | None = None
    """The journal of systemd."""
    loki: LokiSource | None = None
    """Grafana Loki."""
    pattern: Pattern = ""
    """Only lines in which this regular expression is found."""
    lines: Annotated[int, Field(ge=1, le=5000)] = 500
    """How many lines are kept. Of more, each part of the run (before, during and after each fault)
    keeps its first and its last ones."""
    mask: bool = True
    """Whether what looks like a secret (passwords, tokens, keys) is replaced by stars."""
    hide: list[Pattern] = Field(default_factory=list[Pattern])
    """What else is replaced by stars: regular expressions; of one with a group, the group."""

    @model_validator(mode="after")
    def _one(self) -> LogSpec:
        given = [name for name in ("file", "container", "journal", "loki") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("expected exactly one of file, container, journal and loki")
        return self


class TargetSecond(StatusModel):
    """What a target did in one second; None where it could not be read. Rates are per second."""

    entry: ClassVar[bool] = True

    at: float
    """Its beginning, seconds since 1970."""
    span: float = 1.0
    """How many seconds it stands for: a long run keeps coarser steps."""
    cpu: float | None = None
    """Cores that were busy for it."""
    throttled: float | None = None
    """Share of the time in which its quota made it wait, summed over its cores."""
    memory: float | None = None
    """Bytes: of a control group the working set, of processes what is resident, of the host what is
    not available."""
    read: float | None = None
    """Bytes per second from block devices."""
    written: float | None = None
    """Bytes per second to block devices."""
    reads: float | None = None
    """Requests per second."""
    writes: float | None = None
    """Requests per second."""
    received: float | None = None
    """Bytes per second from the network."""
    sent: float | None = None
    """Bytes per second to the network."""
    retransmits: float | None = None
    """TCP segments per second that were sent again."""
    cpu_pressure: float | None = None
    """Share of the time in which some task waited for a core (PSI)."""
    memory_pressure: float | None = None
    """Share of the time in which some task waited for memory."""
    io_pressure: float | None = None
    """Share of the time in which some task waited for a disk."""
    processes: int | None = None
    """How many processes there are in it; where only tasks are counted, tasks."""
    restarts: int = 0
    """How often its first process was replaced by another one in this time."""
    kills: int = 0
    """How many processes the out-of-memory killer ended in this time."""


class TargetStatus(StatusModel):
    """One target of a run and its curves."""

    name: str
    """As it is named in the document: `host`, `container web`."""
    kind: str = ""
    """`host`, `process`, `cgroup`, `container` or `pod`."""
    words: str = ""
    """What was found under that name."""
    started: float | None = None
    """When it was first looked at, seconds since 1970."""
    ended: float | None = None
    """When it was found gone, if it did not come back."""
    end: str = ""
    """Why its curve ends before the run does, or why there is none."""
    cores: float | None = None
    """How many cores it may use: its quota, or what the host has."""
    memory_limit: int | None = None
    """Bytes it may use: its tightest limit, or what the host has."""
    missing: list[str] = Field(default_factory=list[str])
    """What could not be read, and why."""
    seconds: list[TargetSecond] = Field(default_factory=list[TargetSecond])
    """Second by second; coarser in a long run."""
    cost: float | None = None
    """What looking at it cost: share of one core."""


class LogLine(StatusModel):
    """One line of a log."""

    entry: ClassVar[bool] = True

    at: float | None = None
    """When it was written, seconds since 1970; None if nothing tells."""
    text: str
    """The line, cut at 1000 characters."""
    stream: str = ""
    """`stdout` or `stderr`, where that is told apart."""


class LogStatus(StatusModel):
    """What was kept of one log."""

    name: str
    source: str = ""
    """Where it was read, in words."""
    begin: dict[str, int | str] = Field(default_factory=dict[str, int | str])
    """Where the file ended when the run began: `path`, `inode`, `offset`, and a digest of the
    bytes `before` it."""
    lines: list[LogLine] = Field(default_factory=list[LogLine])
    """In order of time."""
    seen: int = 0
    """How many lines there were, before any were left out."""
    masked: int = 0
    """How many of the lines that are kept had something replaced by stars."""
    text: str = ""
    """Why it could not be read, or what is missing."""
