"""What load tools say, in one form: stretches of time, single requests, a report at the end.

Times are seconds. Where a tool does not say something it is None, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Times:
    """How long answers took, as far as the tool says."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    mean: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def in_unit(cls, unit: float, **values: float | None) -> Self:
        """From values of a unit that is `unit` seconds long; no number (nan) is None."""
        known = {k: v * unit for k, v in values.items() if v is not None and 0 <= v < float("inf")}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Period:
    """What happened from `begin` to `end`, in seconds since the tool was started."""

    begin: float
    end: float
    ok: float
    errors: float = 0.0
    times: Times = Times()
    kinds: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when its answer came, in seconds since the tool was started."""

    at: float
    took: float | None
    """None: it failed before there was an answer to wait for."""
    kind: str = ""
    """How it failed; '' if it did not."""


Piece = Period | Sample


@dataclass(frozen=True, slots=True)
class Report:
    """What a tool says at its end of all that it did."""

    ok: int
    errors: int = 0
    seconds: float = 0.0
    times: Times = Times()
    kinds: dict[str, int] = field(default_factory=dict[str, int])


def fold(parts: Sequence[tuple[float, Times]]) -> Times:
    """The times of several stretches as one; each has as its weight how many answers it had.

    The mean and the largest are exact. A percentile is the same percentile of those of the parts by
    weight: it lies between the smallest and the largest of them, is not moved by a part with few
    answers, and takes that of the slow parts as soon as these have enough answers to decide it.
    """
    weighed = [(weight, times) for weight, times in parts if weight > 0]
    if len(weighed) == 1:
        return weighed[0][1]
    found: dict[str, float | None] = {
        name: _quantile([(w, v) for w, t in weighed if (v := getattr(t, name)) is not None], share)
        for name, share in zip(PERCENTILES, (0.5, 0.9, 0.95, 0.99), strict=True)
    }
    means = [(w, t.mean) for w, t in weighed if t.mean is not None]
    total = sum(weight for weight, _ in means)
    return Times(
        **found,
        max=max((t.max for _, t in weighed if t.max is not None), default=None),
        mean=sum(w * mean for w, mean in means) / total if total else None,
    )


def _quantile(values: list[tuple[float, float]], share: float) -> float | None:
    wanted = share * sum(weight for weight, _ in values)
    passed = 0.0
    ordered = sorted(values, key=lambda each: each[1])
    for weight, value in ordered:
        passed += weight
        if passed >= wanted - 1e-9:
            return value
    return ordered[-1][1] if ordered else None


def kind_of(text: str) -> str:
    """The kind of a failure, in the words of our own generators, from the words of a tool."""
    low = text.lower()
    for kind, words in _KINDS.items():
        if any(word in low for word in words):
            return kind
    return "failed"


_KINDS = {
    "refused": ("refused",),
    "timeout": ("timeout", "timed out", "deadline exceeded"),
    "reset": ("reset by peer", "broken pipe", "connection reset"),
    "closed": ("eof", "closed", "disconnected", "aborted"),
    "dns": ("no such host", "name or service not known", "unknownhost", "resolve"),
    "tls": ("certificate", "tls", "ssl"),
}
