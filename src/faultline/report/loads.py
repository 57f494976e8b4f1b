"""Loads of a run, of whatever protocol, as their reader meets them."""

from __future__ import annotations

from typing import Any

from faultline.api.traffic import TrafficFigures, TrafficSpec, TrafficStatus
from faultline.report import words
from faultline.report.moments import Clock
from faultline.report.story import LoadPart, TrafficRow, TrafficStory


def told(status: TrafficStatus, spec: TrafficSpec | None, clock: Clock) -> TrafficStory:
    """Its seconds from the start of the run, and its totals."""
    totals = status.totals or TrafficFigures()
    names = ("p50", "p90", "p95", "p99", "max", "mean")
    return TrafficStory(
        name=status.name,
        target=_where(spec),
        model=_model(spec),
        rows=tuple(
            TrafficRow(clock.at(s.at), s.sent, s.ok, s.errors, s.p50, s.p95, s.p99, s.max, s.lag)
            for s in status.seconds
        ),
        sent=totals.sent,
        ok=totals.ok,
        errors=totals.errors,
        seconds=totals.seconds,
        latencies=tuple((name, getattr(totals, name)) for name in names),
        lag=totals.lag if status.totals else None,
        causes=tuple(sorted(totals.kinds.items(), key=lambda item: -item[1])),
        text=status.text or totals.text,
        parts=tuple(
            LoadPart(p.name, p.sent, p.ok, p.errors, p.p50, p.p95, p.p99, p.max)
            for p in totals.parts
        ),
    )


def _model(spec: TrafficSpec | None) -> str:
    if spec is None:
        return ""
    if spec.rate is not None:
        return f"open model, {words.significant(spec.rate, 4)} requests per second"
    if spec.concurrency is None:
        return "paced by the tool itself"
    return f"closed model, {words.plural(spec.concurrency, 'user')}"


def _where(spec: TrafficSpec | None) -> str:
    """What is asked of whom, as far as one line can say it."""
    if spec is None:
        return ""
    # Fields differ from protocol to protocol, and plug-ins may bring more.
    given: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    address = given.get("url") or given.get("baseUrl") or given.get("servers")
    if not address and given.get("host"):
        address = f"{given['host']}:{given.get('port', '')}".rstrip(":")
    parts = [given.get("method"), address, given.get("topic"), given.get("command")]
    told = [" ".join(map(str, part)) if isinstance(part, list) else part for part in parts]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not address and given.get("type"):
        told.insert(0, given["type"])
    return " ".join(str(each) for each in told if each)
