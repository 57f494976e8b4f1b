"""Traffic over a protocol of somebody else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from faultline.api.secret import SecretRef
from faultline.api.traffic_parts import FedTraffic


class PluginTraffic(FedTraffic):
    """Turns of a driver of an installed package. Pace, stages, workers and figures are those of all
    traffic.
    """

    type: Literal["plugin"]
    """Somebody else's."""
    plugin: Annotated[str, Field(min_length=1, max_length=200)]
    """The name of an entry point `faultline.traffic`."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What the driver takes; it says itself what it does not accept."""
    secrets: dict[str, SecretRef] = Field(default_factory=dict[str, SecretRef])
    """The same of what must be in no document: it is read where the traffic begins."""

    def where(self) -> str:
        return f"plug-in {self.plugin}"

    def texts(self) -> Iterable[tuple[str, object]]:
        return (("params", self.params),)
