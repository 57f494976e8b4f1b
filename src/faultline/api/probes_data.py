"""Probes of what is kept somewhere: databases, figures of other systems and of the same
experiment.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from faultline.api.expectation import Unit
from faultline.api.model import Model, NodeName
from faultline.api.probe_base import Port, ProbeBase, Url
from faultline.api.quantities import Between, Duration, Percent, text
from faultline.api.secret import SecretRef
from faultline.api.tls import TlsFields

SELECTOR = "{{selector}}"
"""What the matchers of a group are put for in a query."""


class Groups(Model):
    """A set of which a part is hit: the hit are compared with the others in the same minutes.

    With `window` the two groups make a pair at each moment; without it each series is a member of
    its group.
    """

    hit: Annotated[str, Field(min_length=1)]
    """Label matchers of what is hit (`pod=~"shop-[01]"`), for `{{selector}}` in the query; or a
    query of its own, if the probe has none."""
    unhit: Annotated[str, Field(min_length=1)]
    """The same of the others: the control group."""
    size: Literal["difference", "mean", "percent", "delta"] = "difference"
    """What is compared: `difference` of a typical pair (Hodges-Lehmann), `mean`: of the means,
    `percent`: the relative change of a typical pair, `delta`: Cliff's delta from -1 to 1."""
    value: Literal["effect", "certain"] = "effect"
    """What the probe's value is: `effect` as estimated; `certain`: the least effect that agrees
    with the data, which is 0 as long as chance alone may explain it."""
    confidence: Annotated[Percent, Between("80%", "99.9%")] = text("95%")
    """That the effect lies in its interval."""
    step: Annotated[Duration, Between("1s", "1h")] | None = None
    """From pair to pair; without it the longest range in the query, so that no two pairs look
    at the same samples."""


class PrometheusProbe(ProbeBase):
    """A query of Prometheus that gives one number. `result.series` has all series of the answer.

    With `groups` the number is by how much two groups differ; `result` has effect, low, high,
    shown, certain, delta, n and groups.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["prometheus"]
    url: Url
    """The server's address."""
    query: str = ""
    """The query in PromQL; several series are summed up by `reduce`. With `groups`, `{{selector}}`
    stands for the matchers of each."""
    window: Annotated[Duration, Between("1s", "24h")] | None = None
    """Ask for the range of this length up to now, and take all its points; without it, the
    present value."""
    reduce: Literal["only", "min", "max", "mean", "sum", "last"] = "only"
    """How several numbers become one; `only` refuses more than one."""
    groups: Groups | None = None
    """Compare two groups."""
    headers: dict[str, str | SecretRef] = Field(default_factory=dict[str, str | SecretRef])
    """Headers to send; a secret by reference."""

    def value_unit(self) -> Unit:
        return "ratio" if self.groups is not None and self.groups.size == "percent" else ""

    @model_validator(mode="after")
    def _query_of_groups(self) -> PrometheusProbe:
        if self.groups is None and not self.query:
            raise ValueError("expected query, or groups with a query each")
        if self.groups is not None and self.query and SELECTOR not in self.query:
            raise ValueError(f"expected {SELECTOR} in the query of groups")
        if self.groups is not None and self.reduce == "last":
            raise ValueError("expected another reduce than last: groups are reduced at each moment")
        return self


class SqlProbe(ProbeBase):
    """A query of a database that gives one row. Its value is the first number of the row;
    `result.row` has the row by the names of its columns. It is read in a transaction that may not
    write, where the database has such, and that is rolled back.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["sql"]
    url: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\+[a-z0-9_]+)?://")]
    """The database as SQLAlchemy names it, without a password: `postgresql+psycopg://user@host/db`,
    `sqlite:////var/lib/shop.db`."""
    password: SecretRef | None = None
    """Where the password lies."""
    query: Annotated[str, Field(min_length=1)]
    """The query in the language of the database. What it gives after its first row is an error."""
    column: str = ""
    """The column that is the value; without it, the first one that holds a number."""

    @model_validator(mode="after")
    def _no_password_in_the_address(self) -> SqlProbe:
        parts = urlsplit(self.url)
        named = {key.lower() for key, _ in parse_qsl(parts.query)}
        if parts.password is not None or named & {"password", "passwd", "pwd"}:
            raise ValueError("expected an address without a password; see `password`")
        return self


class RedisProbe(TlsFields, ProbeBase):
    """A command of Redis. Its value is the number that it answers, else the length of the list or
    of the text; `result.reply` has the answer.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["redis"]
    host: str = "127.0.0.1"
    """Name, address, or the path of a socket."""
    port: Port = 6379
    """Port."""
    db: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """The number of the database."""
    user: str = ""
    """The name, if the server has several users."""
    password: SecretRef | None = None
    """Where the password lies."""
    command: Annotated[list[str | int | float], Field(min_length=1, max_length=1000)]
    """The command and its arguments: `[LLEN, orders]`."""
    tls: bool = False
    """Whether to speak TLS."""
    verify: bool = True
    """Whether the certificate of the server must be valid."""

    @model_validator(mode="after")
    def _user_with_a_password(self) -> RedisProbe:
        if self.user and self.password is None:
            raise ValueError("expected a password with user")
        return self


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
