"""Traffic of another load tool."""

from __future__ import annotations

from typing import Literal

from faultline.api.traffic_base import TrafficBase


class ExternalTraffic(TrafficBase):
    """Another load tool: started as an argument list, its periodic output read as figures."""

    type: Literal["external"]
