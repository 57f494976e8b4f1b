"""Probes: measurements with an expectation. Each type says what its value is and in which unit."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from faultline.api.model import Resource, StatusModel
from faultline.api.probe_base import Mode, Pattern, Port, ProbeBase, Url
from faultline.api.probes_cluster import (
    AlertmanagerProbe,
    KubernetesProbe,
    PluginProbe,
    WebhookProbe,
)
from faultline.api.probes_data import PrometheusProbe, RedisProbe, SqlProbe, TrafficProbe
from faultline.api.probes_host import CommandProbe, FileProbe, LogProbe, ProcessProbe
from faultline.api.probes_invariant import InvariantProbe, PlainProbe
from faultline.api.probes_net import (
    BasicAuth,
    DnsProbe,
    GrpcProbe,
    HttpProbe,
    IcmpProbe,
    TcpProbe,
    UdpProbe,
)

__all__ = [
    "AlertmanagerProbe",
    "BasicAuth",
    "CommandProbe",
    "DnsProbe",
    "FileProbe",
    "GrpcProbe",
    "HttpProbe",
    "IcmpProbe",
    "InvariantProbe",
    "KubernetesProbe",
    "LogProbe",
    "Measurement",
    "Mode",
    "Pattern",
    "PlainProbe",
    "PluginProbe",
    "Port",
    "Probe",
    "ProbeBase",
    "ProbeSpec",
    "ProcessProbe",
    "PrometheusProbe",
    "RedisProbe",
    "SqlProbe",
    "TcpProbe",
    "TrafficProbe",
    "UdpProbe",
    "Url",
    "WebhookProbe",
]

ProbeSpec = Annotated[PlainProbe | InvariantProbe, Field(discriminator="type")]
"""Any probe, told apart by `type`."""


class Measurement(StatusModel):
    """What a probe found: the conditions of its type (`ok`) before the expectation is judged."""

    value: float | None = None
    """In the unit of the probe; None if there was nothing to measure."""
    ok: bool | None = None
    """Whether the conditions of its type hold (the code, the pattern, the connection). None:
    could not be measured, with the reason in `text`. A service that does not answer is False, an
    unreachable Prometheus is None."""
    latency: float | None = None
    """Seconds that the measurement took."""
    text: str = ""
    """What was seen, in one line, or why it failed."""
    result: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What expressions may ask for; JSON."""
    since: float | None = None
    """Since when it is so, seconds since 1970, where whoever was asked knows: an alert, a person.
    None: not before it was measured, as far as is known."""
    keep: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What the probe has to be told again when an engine that died is followed by another one (what
    a value was at first, the first violation, the place in a log); JSON, small."""


class Probe(Resource):
    """A probe that stands alone."""

    plural: ClassVar[str] = "probes"

    kind: Literal["Probe"] = "Probe"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: ProbeSpec
    """What to measure."""
    status: Measurement | None = None
    """The last measurement."""
