"""How quickly it was noticed, understood and mended: time points, expressions over them, scores.

Every time point is the first moment at which a probe's judgement holds, never the moment at which
somebody clicked. Each counts only after the one before it: effect, discovery, location, recovery.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from faultline.api.model import Model, NodeName, StatusModel
from faultline.api.quantities import Between, Duration, text

POINTS = (
    "injected",
    "effective",
    "impact",
    "discovered",
    "located",
    "recovered",
    "resolved",
    "undone",
)
"""What expressions may name; each has `at`. `effective` is the service's own standard being broken
where an impact probe is given, else the effect at the target."""


class Moment(Model):
    """A time point: the first moment, after the one before it, at which a probe holds."""

    probe: NodeName
    """The probe."""
    within: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How soon after the effect; later, or never, is a broken hypothesis. Without it the time is
    only recorded."""


class Judgement(Model):
    """An expression over the time points."""

    name: NodeName
    """What it is called in the report."""
    expression: str
    """CEL: `recovered.at - effective.at < duration("10m")`. The points are injected, effective,
    impact, discovered, located, recovered, resolved (the alert), undone (the fault)."""


class Score(Model):
    """Points for finding, locating and recovering in time: 1-5-10 minutes by default."""

    template: Literal["1-5-10"] = "1-5-10"
    """Which; there is one."""
    discovered: Annotated[Duration, Between("100ms", "7d")] = text("1m")
    """From the effect until it is noticed."""
    located: Annotated[Duration, Between("100ms", "7d")] = text("5m")
    """From the effect until its cause is known."""
    recovered: Annotated[Duration, Between("100ms", "7d")] = text("10m")
    """From the effect until the service is well again."""
    required: bool = False
    """Whether missing one of them is a broken hypothesis; else it only costs points."""


class Judged(StatusModel):
    """How one judgement came out."""

    name: str
    text: str
    """The expression."""
    ok: bool | None = None
    """None: a time point that it needs is missing."""
    reason: str = ""


class Scored(StatusModel):
    """One line of a score."""

    name: str
    limit: float
    """Seconds."""
    took: float | None = None
    """Seconds from the effect; None: it never came."""
    points: float = 0.0
    """0 to 100."""
    measured: bool = True
    """Whether anything was there to tell."""


class TimePoints(StatusModel):
    """Seconds since 1970; None: it never came or nothing tells."""

    injected: float | None = None
    effective: float | None = None
    impact: float | None = None
    discovered: float | None = None
    located: float | None = None
    recovered: float | None = None
    resolved: float | None = None
    undone: float | None = None
    judged: list[Judged] = Field(default_factory=list[Judged])
    """The expressions."""
    scores: list[Scored] = Field(default_factory=list[Scored])
    """The lines of the score."""
    score: float | None = None
    """0 to 100; None without a score, or where the fault was not effective."""
