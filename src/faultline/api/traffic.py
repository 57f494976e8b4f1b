"""Traffic: load on a target while an experiment runs, and what it met."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from faultline.api.model import Resource
from faultline.api.traffic_base import PacedTraffic, Stage, TrafficBase, TrafficJob
from faultline.api.traffic_data import KafkaTraffic, RedisTraffic, SqlTraffic
from faultline.api.traffic_external import ExternalTraffic
from faultline.api.traffic_figures import (
    Percentiles,
    TrafficFigures,
    TrafficPart,
    TrafficSecond,
    TrafficStatus,
    with_earlier,
)
from faultline.api.traffic_http import HttpTraffic
from faultline.api.traffic_net import GrpcTraffic, TcpTraffic, UdpTraffic
from faultline.api.traffic_plugin import PluginTraffic

__all__ = [
    "ExternalTraffic",
    "GrpcTraffic",
    "HttpTraffic",
    "KafkaTraffic",
    "OurTraffic",
    "PacedTraffic",
    "Percentiles",
    "PluginTraffic",
    "RedisTraffic",
    "SqlTraffic",
    "Stage",
    "TcpTraffic",
    "Traffic",
    "TrafficBase",
    "TrafficFigures",
    "TrafficJob",
    "TrafficPart",
    "TrafficSecond",
    "TrafficSpec",
    "TrafficStatus",
    "UdpTraffic",
    "with_earlier",
]

OurTraffic = (
    HttpTraffic
    | RedisTraffic
    | SqlTraffic
    | GrpcTraffic
    | KafkaTraffic
    | TcpTraffic
    | UdpTraffic
    | PluginTraffic
)
"""Traffic that our own generators send."""

TrafficSpec = Annotated[OurTraffic | ExternalTraffic, Field(discriminator="type")]
"""Any traffic, told apart by `type`."""


class Traffic(Resource):
    """Traffic that stands alone."""

    plural: ClassVar[str] = "traffics"

    kind: Literal["Traffic"] = "Traffic"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: TrafficSpec
    """What to send."""
    status: TrafficStatus | None = None
    """What it met."""
