"""The targets of a run and their logs as their reader meets them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from faultline.api.watching import LogStatus, TargetStatus
from faultline.report.moments import Clock

CURVES = (
    "cpu",
    "throttled",
    "memory",
    "read",
    "written",
    "received",
    "sent",
    "retransmits",
    "cpu_pressure",
    "memory_pressure",
    "io_pressure",
    "processes",
)
_TROUBLE = re.compile(
    r"(?i)\b(?:error|err|exception|traceback|fatal|panic|critical|crit|fail(?:ed|ure)?|timed? ?out"
    r"|refused|unavailable|oom|killed)\b"
)


@dataclass(frozen=True, slots=True)
class TargetStory:
    """One target: its curves by name, each as (seconds from the start, value)."""

    name: str
    words: str = ""
    curves: dict[str, tuple[tuple[float, float | None], ...]] | None = None
    restarts: tuple[float, ...] = ()
    kills: tuple[float, ...] = ()
    cores: float | None = None
    memory_limit: float | None = None
    missing: tuple[str, ...] = ()
    ended: float | None = None
    end: str = ""
    step: float = 1.0
    cost: float | None = None

    @property
    def is_host(self) -> bool:
        return self.name == "host"

    def points(self, curve: str) -> tuple[tuple[float, float | None], ...]:
        """One curve; empty if nothing of it was read."""
        found = (self.curves or {}).get(curve, ())
        return found if any(value is not None for _, value in found) else ()

    def mean(self, curve: str, start: float, end: float) -> float | None:
        """Its mean in a stretch of the run; None if nothing was read."""
        values = [v for at, v in self.points(curve) if v is not None and start <= at < end]
        return fmean(values) if values else None

    def peak(self, curve: str, start: float, end: float) -> float | None:
        """Its largest value in a stretch."""
        values = [v for at, v in self.points(curve) if v is not None and start <= at < end]
        return max(values, default=None)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log."""

    at: float | None
    text: str
    stream: str = ""

    @property
    def trouble(self) -> bool:
        """Whether it has a word that tells of trouble; a hint for the eye and nothing more."""
        return bool(_TROUBLE.search(self.text))


@dataclass(frozen=True, slots=True)
class LogStory:
    """One log."""

    name: str
    source: str = ""
    lines: tuple[Line, ...] = ()
    seen: int = 0
    masked: int = 0
    text: str = ""

    @property
    def dated(self) -> bool:
        """Whether any of its lines says when it was written."""
        return any(line.at is not None for line in self.lines)

    def trouble(self, start: float, end: float) -> int:
        """How many lines tell of trouble in a stretch of the run."""
        return sum(each.trouble for each in self.lines if each.at and start <= each.at < end)


def targets(found: Sequence[TargetStatus], clock: Clock) -> tuple[TargetStory, ...]:
    """What the faults act on first, the host last."""
    told = [_target(each, clock) for each in found]
    return tuple(sorted(told, key=lambda each: each.is_host))


def _target(status: TargetStatus, clock: Clock) -> TargetStory:
    # A step stands for what happened until its end, so its middle is where it is drawn.
    places = [clock.at(each.at + each.span / 2) for each in status.seconds]
    curves = {
        name: tuple(zip(places, (_float(getattr(s, name)) for s in status.seconds), strict=True))
        for name in CURVES
    }
    return TargetStory(
        name=status.name,
        words=status.words,
        curves=curves,
        restarts=tuple(p for p, s in zip(places, status.seconds, strict=True) if s.restarts),
        kills=tuple(p for p, s in zip(places, status.seconds, strict=True) if s.kills),
        cores=status.cores,
        memory_limit=_float(status.memory_limit),
        missing=tuple(status.missing),
        ended=clock.maybe(status.ended),
        end=status.end,
        step=max((each.span for each in status.seconds), default=1.0),
        cost=status.cost,
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def logs(found: Sequence[LogStatus], clock: Clock) -> tuple[LogStory, ...]:
    """Every log that was asked for or had something to say."""
    return tuple(
        LogStory(
            name=each.name,
            source=each.source,
            lines=tuple(Line(clock.maybe(x.at), x.text, x.stream) for x in each.lines),
            seen=each.seen,
            masked=each.masked,
            text=each.text,
        )
        for each in found
    )
