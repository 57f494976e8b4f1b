"""What the clients of a load saw: second by second, over a window, and over all of it."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import Field

from faultline.api.model import NodeName, StatusModel

_SLACK = 0.5  # seconds: a load is noted as started a little after its first second has begun


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

    entry: ClassVar[bool] = True

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


class TrafficPart(Percentiles):
    """One step of a scenario, one kind of command, or a scenario from its first step to its last,
    with its pauses.
    """

    name: str
    """Which: `scenario` or `scenario/step`, or the name of the command."""
    sent: int = 0
    ok: int = 0
    errors: int = 0
    histogram: str = ""
    """All its times as an encoded HdrHistogram (V2, base64), in microseconds."""


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
    parts: list[TrafficPart] = Field(default_factory=list[TrafficPart])
    """What it consists of, if it is more than one kind of request; not for short windows."""
    late: int = 0
    """Requests that left more than 10 ms late, by the generator's own fault."""
    text: str = ""
    """What to know before they are believed: that the generator, not the target, was the
    limit."""


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
    """All of it after warm-up. After a restart the counts are of all of it, but the percentiles,
    the parts and the kinds of errors are of the time since then: the rest died with its engine."""
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
