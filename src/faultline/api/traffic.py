"""Traffic: load on a target while an experiment runs, and what it met."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from faultline.api.model import Resource
from faultline.api.traffic_base import PacedTraffic, Stage, TrafficBase
from faultline.api.traffic_external import ExternalTraffic
from faultline.api.traffic_figures import (
    Percentiles,
    TrafficFigures,
    TrafficSecond,
    TrafficStatus,
    with_earlier,
)
from faultline.api.traffic_http import HttpTraffic

__all__ = [
    "ExternalTraffic",
    "HttpTraffic",
    "PacedTraffic",
    "Percentiles",
    "Stage",
    "Traffic",
    "TrafficBase",
    "TrafficFigures",
    "TrafficSecond",
    "TrafficSpec",
    "TrafficStatus",
    "with_earlier",
]

TrafficSpec = Annotated[HttpTraffic | ExternalTraffic, Field(discriminator="type")]
"""Any traffic, told apart by `type`."""


class Traffic(Resource):
    """Traffic that stands alone."""

    plural: ClassVar[str] = "traffics"

    kind: Literal["Traffic"] = "Traffic"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: TrafficSpec
    """What to send."""
    status: TrafficStatus | None = None
    """What it met."""
