"""Probes: measurements with an expectation. Each type says what its value is and in which unit."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from faultline.api.expectation import Expect, Unit
from faultline.api.model import Model, NodeName, Resource, StatusModel
from faultline.api.quantities import Between, Duration, text
from faultline.errors import InvalidParameter

Mode = Literal["start", "end", "edge", "continuous", "during"]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression; {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression of Python, searched for anywhere in the text."""

Port = Annotated[int, Field(ge=1, le=65535)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


class ProbeBase(Model):
    """What all probes have in common."""

    unit: ClassVar[Unit] = "s"
    figure: ClassVar[str] = "latency"

    name: NodeName
    """How the experiment refers to it."""
    interval: Annotated[Duration, Between("50ms", "1h")] = text("1s")
    """How often it measures."""
    timeout: Annotated[Duration, Between("10ms", "10m")] = text("5s")
    """How long one measurement may take; a guard never waits longer than its interval."""
    mode: Mode = "continuous"
    """When it counts: `start` (before the faults), `end` (after recovery), `edge` (both),
    `continuous` (from the start to the end), `during` (measured throughout, judged only while
    the faults are in effect)."""
    count: Annotated[int, Field(ge=1, le=10000)] | None = None
    """At the start and at the end: the largest number of measurements. Without it, until the
    time-out of the phase."""
    success_count: Annotated[int, Field(ge=1, le=1000)] = 1
    """At the start and at the end: how many good measurements in a row it takes to hold."""
    failure_count: Annotated[int, Field(ge=1, le=1000)] = 1
    """While measuring throughout: how many bad measurements in a row it takes to fail."""
    blind_count: Annotated[int, Field(ge=1, le=1000)] = 3
    """While measuring throughout: how many measurements in a row may be missing or impossible
    before its answer is `not measured`. A guard that cannot be measured counts as failed."""
    expect: Expect | None = None
    """What its value should be. Without it, the conditions of its type alone decide."""

    def value_unit(self) -> Unit:
        """The unit of this probe's value."""
        return self.unit

    @model_validator(mode="after")
    def _interval_has_the_right_unit(self) -> ProbeBase:
        if self.expect is not None and self.expect.interval is not None:
            try:
                self.expect.bounds(self.value_unit())
            except InvalidParameter as error:
                raise ValueError(f"expected {error.expected}; {error.given!r} is not") from error
        return self


class HttpProbe(ProbeBase):
    """An HTTP request. Its value is the time to the complete answer in seconds; `result` has code,
    body, headers.
    """

    type: Literal["http"]
    url: Url
    """Where to ask."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    """How to ask."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""
    body: str = ""
    """What to send."""
    code: Annotated[str, Field(pattern=r"^[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*$")] = (
        "200-399"
    )
    """Codes that are good: `200`, `200-299`, `200,404`."""
    pattern: Pattern = ""
    """What the body must contain."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""


class TcpProbe(ProbeBase):
    """A TCP connection. Its value is the time until it is established, in seconds."""

    type: Literal["tcp"]
    host: str
    """Name or address."""
    port: Port
    """Port."""


class IcmpProbe(ProbeBase):
    """An ICMP echo. Its value is the time until the answer, in seconds."""

    type: Literal["icmp"]
    host: str
    """Name or address."""


class DnsProbe(ProbeBase):
    """A DNS query. Its value is the time until the answer, in seconds; `result.answers` has the
    answers.
    """

    type: Literal["dns"]
    query: str
    """The name to look up."""
    server: str = ""
    """The server's address, with `:port` if it is not 53; without it, the servers of this host."""
    record: Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] = "A"
    """The type of record."""
    answers: list[str] = Field(default_factory=list[str])
    """Answers that must be among those received. Without them, any answer is good."""


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


class PrometheusProbe(ProbeBase):
    """A query of Prometheus that gives one number. `result.series` has all series of the answer."""

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["prometheus"]
    url: Url
    """The server's address."""
    query: str
    """The query in PromQL; several series are summed up by `reduce`."""
    window: Annotated[Duration, Between("1s", "24h")] | None = None
    """Ask for the range of this length up to now, and take all its points; without it, the
    present value."""
    reduce: Literal["only", "min", "max", "mean", "sum", "last"] = "only"
    """How several numbers become one; `only` refuses more than one."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""


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


class TrafficProbe(ProbeBase):
    """A figure of traffic of the same experiment, over the last seconds."""

    type: Literal["traffic"]
    traffic: NodeName
    """The name of the traffic."""
    measure: Literal["p50", "p90", "p95", "p99", "max", "errors", "rate"] = "p95"
    """A percentile of the time to answer; `errors`: the share of requests that failed; `rate`:
    good answers per second."""
    window: Annotated[Duration, Between("1s", "1h")] = text("5s")
    """Over how long it is taken."""

    def value_unit(self) -> Unit:
        return {"errors": "ratio", "rate": ""}.get(self.measure, "s")  # type: ignore[return-value]


ProbeSpec = Annotated[
    HttpProbe
    | TcpProbe
    | IcmpProbe
    | DnsProbe
    | CommandProbe
    | LogProbe
    | PrometheusProbe
    | ProcessProbe
    | TrafficProbe,
    Field(discriminator="type"),
]
"""Any probe, told apart by `type`."""


class Measurement(StatusModel):
    """What a probe found: the conditions of its type (`ok`) before the expectation is judged."""

    value: float | None = None
    """In the unit of the probe; None if there was nothing to measure."""
    ok: bool | None = None
    """Whether the conditions of its type hold (the code, the pattern, the connection). None:
    could not be measured, with the reason in `text`. A service that does not answer is False, an
    unreachable Prometheus is None."""
    latency: float | None = None
    """Seconds that the measurement took."""
    text: str = ""
    """What was seen, in one line, or why it failed."""
    result: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What expressions may ask for; JSON."""


class Probe(Resource):
    """A probe that stands alone."""

    plural: ClassVar[str] = "probes"

    kind: Literal["Probe"] = "Probe"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: ProbeSpec
    """What to measure."""
    status: Measurement | None = None
    """The last measurement."""
