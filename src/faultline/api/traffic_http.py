"""HTTP traffic: single requests, or scenarios of several steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from faultline.api.model import Model, NodeName
from faultline.api.probe_base import Pattern, Url
from faultline.api.probes_net import BasicAuth, Codes, JsonPath
from faultline.api.quantities import Between, Duration, text
from faultline.api.secret import SecretRef
from faultline.api.tls import TlsFields
from faultline.api.traffic_parts import FedTraffic, Texts, places

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ValueName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]


class Extract(Model):
    """A value out of an answer, for later steps of the same turn as `{{name}}`."""

    name: ValueName
    """What later steps call it."""
    json_path: JsonPath = ""
    """Where it lies in a JSON body: `$.items[0].id`; the first that is found."""
    header: str = ""
    """The header that it is."""
    pattern: Pattern = ""
    """A regular expression found in the body: its first group, or all of it if it has none."""
    default: str | None = None
    """Its value if the answer has none; without a default the step has failed then."""

    @model_validator(mode="after")
    def _one(self) -> Extract:
        if (bool(self.json_path), bool(self.header), bool(self.pattern)).count(True) != 1:
            raise ValueError("expected exactly one of jsonPath, header and pattern")
        return self


class Step(Model):
    """One request of a scenario."""

    name: Annotated[str, Field(max_length=100)] = ""
    """What its figures are called; without it, method and path."""
    method: Method = "GET"
    """How to ask."""
    path: str = ""
    """Where to send, below `baseUrl`."""
    url: str = ""
    """Where to send, if that is elsewhere."""
    headers: Texts = Field(default_factory=Texts)
    """Headers to send, beside those of the traffic."""
    body: str = ""
    """What to send."""
    think: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """The pause before it."""
    extract: list[Extract] = Field(default_factory=list[Extract])
    """Values of its answer that later steps need."""
    code: Codes = "200-399"
    """Codes that are good: `200`, `200-299`, `200,404`."""
    pattern: Pattern = ""
    """What the body must contain."""

    @property
    def label(self) -> str:
        """What its figures are called."""
        return self.name or f"{self.method} {self.path or self.url or '/'}"

    @model_validator(mode="after")
    def _one_place(self) -> Step:
        if self.path and self.url:
            raise ValueError("expected path or url, not both")
        if self.url and not self.url.startswith(("http://", "https://", "{{")):
            raise ValueError("expected url to begin with http:// or https://; see `path`")
        if urlsplit(self.url).username is not None:
            raise ValueError("expected an address without a name and password; see `basic`")
        return self


class Scenario(Model):
    """What one user does in one turn: steps, one after the other."""

    name: NodeName
    """What its figures are called."""
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """How often it is chosen, against the weights of the others."""
    steps: Annotated[list[Step], Field(min_length=1, max_length=200)]
    """The requests."""
    continue_on_failure: bool = False
    """Whether the steps after a failed one are done too."""


class HttpTraffic(TlsFields, FedTraffic):
    """HTTP requests to one address, or scenarios of several steps below `baseUrl`. `rate` counts
    turns: a request, or a scenario from its first step to its last. Times count from the moment at
    which a request was meant to leave.
    """

    type: Literal["http"]
    """The protocol."""
    url: Url | None = None
    """Where to send."""
    method: Method = "GET"
    """How to ask."""
    headers: Texts = Field(default_factory=Texts)
    """Headers to send: texts, or where a secret lies (`{env: NAME}`, `{file: PATH}`)."""
    basic: BasicAuth | None = None
    """A name and a password to send."""
    bearer: SecretRef | None = None
    """Where a token to send lies."""
    body: str = ""
    """What to send."""
    code: Codes = "200-399"
    """Codes that are good: `200`, `200-299`, `200,404`."""
    pattern: Pattern = ""
    """What the body must contain."""
    base_url: Url | None = None
    """What the paths of the steps are below."""
    scenarios: Annotated[list[Scenario], Field(max_length=50)] = Field(
        default_factory=list[Scenario]
    )
    """What users do, instead of requests to `url`."""
    cookies: bool = True
    """Whether a user of a scenario keeps the cookies that are set: through one turn in the open
    model, through all turns in the closed one."""
    redirects: Annotated[int, Field(ge=0, le=20)] = 0
    """How many redirects are followed within a request."""
    http2: bool = False
    """Speak HTTP/2: over TLS if the server offers it, else as one who knows that it can."""
    keep_alive: bool = True
    """Whether a connection carries more than one request."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""

    def where(self) -> str:
        return f"{self.method} {self.url}" if self.url else f"scenarios at {self.base_url}"

    def texts(self) -> Iterable[tuple[str, object]]:
        if self.scenarios:
            return (("headers", self.headers),)
        return (("url", self.url), ("headers", self.headers), ("body", self.body))

    @model_validator(mode="after")
    def _fits_together(self) -> HttpTraffic:
        if (self.url is None) == (not self.scenarios):
            raise ValueError("expected exactly one of url and scenarios")
        for url in filter(None, (self.url, self.base_url)):
            if urlsplit(url).username is not None:
                raise ValueError("expected an address without a name and password; see `basic`")
        if self.basic and self.bearer:
            raise ValueError("expected at most one of basic and bearer")
        if self.http2 and not self.keep_alive:
            raise ValueError("expected keepAlive with http2")
        names = [scenario.name for scenario in self.scenarios]
        if len(set(names)) < len(names):
            raise ValueError("expected a name of its own for every scenario")
        return self

    @model_validator(mode="after")
    def _steps_can_be_sent(self) -> HttpTraffic:
        known = self.known()
        for number, scenario in enumerate(self.scenarios):
            names = set(known or ())
            for index, step in enumerate(scenario.steps):
                path = f"scenarios.{number}.steps.{index}"
                if not step.url and self.base_url is None:
                    raise ValueError(f"expected baseUrl, which {path}.path is below")
                wanted = places(step.path, step.url, step.headers, step.body)
                if known is not None and (unknown := sorted(wanted - names)):
                    listed = ", ".join(sorted(names))
                    raise ValueError(f"expected in {path} only {listed}; not {', '.join(unknown)}")
                names |= {each.name for each in step.extract}
        return self
