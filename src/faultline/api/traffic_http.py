"""HTTP traffic: single requests, or scenarios of several steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from faultline.api.probe_base import Url
from faultline.api.traffic_base import PacedTraffic


class HttpTraffic(PacedTraffic):
    """HTTP requests: `rate` per second whatever the answers do (open model), or `concurrency` users
    who wait for each answer (closed model). Times count from the moment at which a request was
    meant to leave.
    """

    type: Literal["http"]
    """The protocol."""
    url: Url
    """Where to send."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    """How to ask."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""
    body: str = ""
    """What to send."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""

    def where(self) -> str:
        return f"{self.method} {self.url}"
