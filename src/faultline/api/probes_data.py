"""Probes of what is kept somewhere: figures of other systems, and of the same experiment."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from faultline.api.expectation import Unit
from faultline.api.model import NodeName
from faultline.api.probe_base import ProbeBase, Url
from faultline.api.quantities import Between, Duration, text


class PrometheusProbe(ProbeBase):
    """A query of Prometheus that gives one number. `result.series` has all series of the answer."""

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["prometheus"]
    url: Url
    """The server's address."""
    query: str
    """The query in PromQL; several series are summed up by `reduce`."""
    window: Annotated[Duration, Between("1s", "24h")] | None = None
    """Ask for the range of this length up to now, and take all its points; without it, the
    present value."""
    reduce: Literal["only", "min", "max", "mean", "sum", "last"] = "only"
    """How several numbers become one; `only` refuses more than one."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""


class TrafficProbe(ProbeBase):
    """A figure of traffic of the same experiment, over the last seconds."""

    type: Literal["traffic"]
    traffic: NodeName
    """The name of the traffic."""
    measure: Literal["p50", "p90", "p95", "p99", "max", "errors", "rate"] = "p95"
    """A percentile of the time to answer; `errors`: the share of requests that failed; `rate`:
    good answers per second."""
    window: Annotated[Duration, Between("1s", "1h")] = text("5s")
    """Over how long it is taken."""

    def value_unit(self) -> Unit:
        return {"errors": "ratio", "rate": ""}.get(self.measure, "s")  # type: ignore[return-value]
