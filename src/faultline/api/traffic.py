"""Traffic: load on a target while an experiment runs, and what it met."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from faultline.api.model import Model, NodeName, Resource, StatusModel
from faultline.api.probe import Url
from faultline.api.quantities import Between, Duration, text


class HttpTraffic(Model):
    """HTTP requests: `rate` per second whatever the answers do (open model), or `concurrency` users
    who wait for each answer (closed model). Times count from the moment at which a request was
    meant to leave.
    """

    type: Literal["http"] = "http"
    """The protocol."""
    name: NodeName
    """How the experiment refers to it."""
    url: Url
    """Where to send."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    """How to ask."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""
    body: str = ""
    """What to send."""
    rate: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Requests per second, sent on time whatever comes back."""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Users, each of whom sends the next request when the answer has come."""
    timeout: Annotated[Duration, Between("1ms", "10m")] = text("10s")
    """When an answer is given up and counted as an error."""
    warmup: Annotated[Duration, Between("0s", "1h")] = text("1s")
    """How long it runs before it counts."""
    duration: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How long at most; without it, as long as the experiment."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""

    @model_validator(mode="after")
    def _one_model(self) -> HttpTraffic:
        if (self.rate is None) == (self.concurrency is None):
            raise ValueError(
                "expected exactly one of rate (open model) and concurrency (closed model)"
            )
        return self


_SLACK = 0.5  # seconds: a load is noted as started a little after its first second has begun

TrafficSpec = HttpTraffic
"""Any traffic; HTTP to begin with, more types are told apart by `type`."""


class Percentiles(StatusModel):
    """Times to answer in seconds, from the intended send time."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    mean: float | None = None


class TrafficSecond(Percentiles):
    """One second of traffic."""

    at: float
    """Its beginning, seconds since 1970."""
    sent: int = 0
    """Requests that left."""
    ok: int = 0
    """Good answers that came."""
    errors: int = 0
    """Bad answers, failures and time-outs."""
    lag: float = 0.0
    """The generator's own lateness in seconds, the worst of this second; not the target's fault."""


class TrafficFigures(Percentiles):
    """Traffic over a window or over all of it."""

    sent: int = 0
    """Requests that left, with those that were still unanswered when the window began."""
    ok: int = 0
    errors: int = 0
    seconds: float = 0.0
    """How long the window was."""
    lag: float = 0.0
    """The generator's own lateness in seconds, the worst of the window."""
    kinds: dict[str, int] = Field(default_factory=dict[str, int])
    """Errors by what they were."""
    histogram: str = ""
    """All times as an encoded HdrHistogram (V2, base64), in microseconds; empty for short
    windows."""


class TrafficStatus(StatusModel):
    """Traffic of one run."""

    name: NodeName
    started: float | None = None
    """Seconds since 1970."""
    ended: float | None = None
    restarts: list[float] = Field(default_factory=list[float])
    """When it was started anew, since the engine that had started it had died."""
    seconds: list[TrafficSecond] = Field(default_factory=list[TrafficSecond])
    """Second by second."""
    totals: TrafficFigures | None = None
    """All of it after warm-up. After a restart the counts are of all of it, but the percentiles and
    the kinds of errors are of the part since then: the rest died with its engine."""
    text: str = ""
    """Why it could not run or ended early."""


def with_earlier(traffic: TrafficStatus, warmup: float, last: TrafficFigures) -> TrafficFigures:
    """The totals of the last part of a load together with what is known of the parts before.

    `warmup` is in seconds: each part has had its own.
    """
    begins = [traffic.started or 0.0, *traffic.restarts]
    earlier = [
        second
        for begin, end in pairwise(begins)
        for second in traffic.seconds
        if begin + warmup <= second.at + _SLACK and second.at < end
    ]
    if not earlier:
        return last
    tops = [each.max for each in (*earlier, last) if each.max is not None]
    ok = last.ok + sum(each.ok for each in earlier)
    errors = last.errors + sum(each.errors for each in earlier)
    sent = last.sent + sum(each.sent for each in earlier)
    return last.model_copy(
        update={
            # What left just before the first of these seconds was answered in it.
            "sent": max(sent, ok + errors),
            "ok": ok,
            "errors": errors,
            "seconds": last.seconds + len(earlier),
            "lag": max(last.lag, *(each.lag for each in earlier)),
            "max": max(tops, default=None),
        }
    )


class Traffic(Resource):
    """Traffic that stands alone."""

    plural: ClassVar[str] = "traffics"

    kind: Literal["Traffic"] = "Traffic"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: TrafficSpec
    """What to send."""
    status: TrafficStatus | None = None
    """What it met."""
