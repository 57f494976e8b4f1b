"""The answer of a measurement: asked against measured (promise 1)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Effect(StrEnum):
    """Whether a fault took effect. Each is an answer of its own, never rounded into another."""

    EFFECTIVE = "effective"
    INEFFECTIVE = "ineffective"
    ABOVE = "already above"  # others have the target above what was asked: it is not our doing
    UNMEASURED = "unmeasured"


BUSY = "the machine is busy"
"""What a reason begins with where others leave the machine too little for the effect."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of a fault at its target."""

    effect: Effect
    asked: str  # 'delay 100ms', for people
    measured: str  # 'p50 101.2ms, n=20'; empty when unmeasured
    method: str  # how it was measured, in one sentence
    reason: str = ""  # why it is ineffective or unmeasured
    values: dict[str, float] = field(
        default_factory=dict[str, float]
    )  # 'asked', 'measured', 'n', ... SI units

    @property
    def busy(self) -> bool:
        """Whether it says more of what others do on this machine than of the fault."""
        return self.effect is Effect.ABOVE or self.reason.startswith(BUSY)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reading:
        fields: dict[str, Any] = {**data, "effect": Effect(data["effect"])}
        return cls(**fields)

    @classmethod
    def unmeasured(cls, asked: str, method: str, reason: str) -> Reading:
        return cls(Effect.UNMEASURED, asked, "", method, reason)


def share_is(asked: float, hits: int, n: int, errors: float = 3.0) -> bool:
    """Whether `hits` of `n` agrees with the share `asked` (0..1) within `errors` standard errors.

    The half-count is the usual continuity correction: with 0 or 1 asked the answer must be exact.
    """
    spread = math.sqrt(asked * (1 - asked) * n)
    return abs(hits - asked * n) <= errors * spread + (0.5 if 0 < asked < 1 else 0.0)


def mean_is(asked: float, values: list[float], floor: float, errors: float = 3.0) -> bool:
    """Whether the mean of `values` is `asked` within `errors` standard errors or `floor`."""
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(n - 1, 1) / n)
    return abs(mean - asked) <= max(errors * spread, floor)
