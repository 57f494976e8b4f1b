"""The probe of what must stay true at every moment: it is made of other probes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from faultline.api.expectation import Unit
from faultline.api.probe_base import ProbeBase
from faultline.api.probes_cluster import (
    AlertmanagerProbe,
    KubernetesProbe,
    PluginProbe,
    WebhookProbe,
)
from faultline.api.probes_data import PrometheusProbe, RedisProbe, SqlProbe, TrafficProbe
from faultline.api.probes_host import CommandProbe, FileProbe, LogProbe, ProcessProbe
from faultline.api.probes_net import DnsProbe, GrpcProbe, HttpProbe, IcmpProbe, TcpProbe, UdpProbe
from faultline.api.quantities import Between, Duration, text
from faultline.errors import InvalidParameter
from faultline.units import Percent

PlainProbe = (
    HttpProbe
    | TcpProbe
    | UdpProbe
    | IcmpProbe
    | DnsProbe
    | GrpcProbe
    | CommandProbe
    | LogProbe
    | FileProbe
    | ProcessProbe
    | SqlProbe
    | RedisProbe
    | PrometheusProbe
    | KubernetesProbe
    | AlertmanagerProbe
    | WebhookProbe
    | PluginProbe
    | TrafficProbe
)
"""Every type of probe that measures by itself."""

_OF_THE_WHOLE = frozenset(
    {"name", "interval", "timeout", "mode", "count", "successCount", "failureCount", "blindCount"}
    | {"success_count", "failure_count", "blind_count", "expect"}
)


def _parts(given: Any) -> Any:
    """One part may stand without a list; a part has no name and no times of its own."""
    parts = cast("list[Any]", given) if isinstance(given, list) else [given]
    return [_part(index, part) for index, part in enumerate(parts)]


def _part(index: int, given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    part = cast("dict[str, Any]", given)
    if part.get("name") == f"part-{index}":
        return part  # read back from what we have written
    if misplaced := sorted(_OF_THE_WHOLE & part.keys()):
        raise ValueError(f"expected {misplaced[0]} at the invariant, not at a part of it")
    return {"name": f"part-{index}", **part}


Parts = Annotated[
    list[Annotated[PlainProbe, Field(discriminator="type")]],
    BeforeValidator(_parts, json_schema_input_type=Any),
    Field(min_length=1, max_length=20),
]
"""One probe or several, whose values are added up."""


def _tolerance(given: Any) -> Any:
    expected = "expected a number that is not negative, or a percentage such as 1%"
    if isinstance(given, str):
        try:
            Percent.parse(given, "tolerance")
        except InvalidParameter as error:
            raise ValueError(expected) from error
        return given
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 0:
        raise ValueError(expected)
    return float(given)


class InvariantProbe(ProbeBase):
    """A value that must stay as it is, must never fall, or must agree between two systems, at every
    moment. Its value is that value, or the difference of the two; `result.violation` has the first
    violation that was seen, for the rest of the run.
    """

    figure = "value"

    type: Literal["invariant"]
    of: Parts
    """A probe without name and times, or a list of them whose values are added up."""
    with_: Annotated[Parts | None, Field(alias="with")] = None
    """The same of the other system; both must agree."""
    rule: Literal["constant", "neverFalls", "neverRises", "agrees"] | None = None
    """`constant`: stays what it was when it was first measured; `neverFalls`, `neverRises`;
    `agrees`: with `with`. Without it, `agrees` if there is `with`, else `constant`."""
    equals: float | None = None
    """What the constant must be; without it, what was measured first."""
    tolerance: Annotated[float | str, BeforeValidator(_tolerance)] = 0.0
    """How far it may be off: a number in the unit of the value (seconds, bytes), or a share of what
    it should be (`1%`)."""
    within: Annotated[Duration, Between("0s", "5m")] = text("0s")
    """How long the other system may take to agree (a replica that lags): it is a violation only if
    `of` did not change for so long and `with` has still not come to agree. One measurement takes at
    least as long; that of a guard must end within its interval."""

    def value_unit(self) -> Unit:
        return self.of[0].value_unit() if self.of else ""

    @property
    def law(self) -> str:
        """The rule that holds."""
        return self.rule or ("agrees" if self.with_ else "constant")

    @model_validator(mode="after")
    def _fits_together(self) -> InvariantProbe:
        if (self.law == "agrees") != (self.with_ is not None):
            raise ValueError("expected `with` and no other rule than `agrees`, or neither")
        if self.equals is not None and self.law != "constant":
            raise ValueError("expected equals only with the rule `constant`")
        if len({part.value_unit() for part in (*self.of, *(self.with_ or ()))}) > 1:
            raise ValueError("expected parts whose values have the same unit")
        if self.within and self.with_ is None:
            raise ValueError("expected within only with `with`")
        if self.within >= self.timeout:
            raise ValueError("expected a timeout that is longer than within")
        return self
