"""Probes of the network: what a client of a service sees."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from faultline.api.expectation import Unit
from faultline.api.model import Model
from faultline.api.probe_base import Pattern, Port, ProbeBase, Url
from faultline.api.secret import SecretRef
from faultline.api.tls import TlsFields

Codes = Annotated[str, Field(pattern=r"^[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*$")]


def _json_path(text: str) -> str:
    """Only a path that is given costs the import of its language."""
    if not text:
        return text
    try:
        from jsonpath_ng.exceptions import JSONPathError
        from jsonpath_ng.ext.parser import parse
    except ModuleNotFoundError as error:
        raise ValueError("expected `pip install faultline[experiments]` first") from error
    try:
        parse(text)
    except JSONPathError as error:
        raise ValueError(f"expected a JSON path; {error}") from error
    return text


JsonPath = Annotated[str, AfterValidator(_json_path)]
"""A path into JSON as jsonpath-ng reads it, with filters: `$.orders[?(@.state=='new')].id`."""


class BasicAuth(Model):
    """A name and a password (RFC 7617)."""

    user: str
    """The name."""
    password: SecretRef
    """Where the password lies."""


class HttpProbe(TlsFields, ProbeBase):
    """An HTTP request. Its value is the time to the complete answer in seconds, a number of its
    JSON, or how long its certificate is still valid; `result` has code, body, headers, json, tls.
    """

    type: Literal["http"]
    url: Url
    """Where to ask."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    """How to ask."""
    headers: dict[str, str | SecretRef] = Field(default_factory=dict[str, str | SecretRef])
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
    json_path: JsonPath = ""
    """What the body must have as JSON: `$.orders[0].total`, `$.items.`len``. What it finds is
    `result.json`."""
    equals: str | int | float | bool | None = None
    """What must stand at `jsonPath`; without it, anything."""
    measure: Literal["latency", "json", "tlsExpiry"] = "latency"
    """`latency`: seconds to the complete answer; `json`: the number at `jsonPath` (the length of a
    list); `tlsExpiry`: seconds until the certificate of the server expires."""
    redirects: Annotated[int, Field(ge=0, le=20)] = 0
    """How many redirects are followed. What was sent as a secret is not sent to another server."""
    http2: bool = False
    """Ask by HTTP/2: over TLS if the server offers it, else as one who knows that it can."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""

    def value_unit(self) -> Unit:
        return "" if self.measure == "json" else "s"

    @model_validator(mode="after")
    def _fits_together(self) -> HttpProbe:
        if urlsplit(self.url).username is not None:
            raise ValueError("expected an address without a name and password; see `basic`")
        if self.basic and self.bearer:
            raise ValueError("expected at most one of basic and bearer")
        if not self.json_path and (self.measure == "json" or self.equals is not None):
            raise ValueError("expected jsonPath with equals and with `measure: json`")
        if self.measure == "tlsExpiry" and not self.url.startswith("https:"):
            raise ValueError("expected an https address with `measure: tlsExpiry`")
        return self


class TcpProbe(ProbeBase):
    """A TCP connection. Its value is the time until it is established, in seconds."""

    type: Literal["tcp"]
    host: str
    """Name or address."""
    port: Port
    """Port."""


class UdpProbe(ProbeBase):
    """A datagram and its answer. Its value is the time until the answer, in seconds; `result` has
    the answer as text and as hexadecimal digits.
    """

    type: Literal["udp"]
    host: str
    """Name or address."""
    port: Port
    """Port."""
    payload: Annotated[str, Field(max_length=131072)] = ""
    """What to send. UDP itself answers nothing: it must be something that the service answers."""
    encoding: Literal["text", "hex", "base64"] = "text"
    """How the payload is written."""
    pattern: Pattern = ""
    """What the answer must contain; without it, any answer is good."""

    def data(self) -> bytes:
        """The payload as it is sent."""
        if self.encoding == "hex":
            return bytes.fromhex(self.payload)
        if self.encoding == "base64":
            return base64.b64decode(self.payload, validate=True)
        return self.payload.encode()

    @model_validator(mode="after")
    def _can_be_sent(self) -> UdpProbe:
        try:
            size = len(self.data())
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"expected a payload in {self.encoding}; {error}") from error
        if size > 65507:
            raise ValueError("expected at most 65507 bytes; a datagram holds no more")
        return self


class IcmpProbe(ProbeBase):
    """An ICMP echo. Its value is the time until the answer, in seconds."""

    type: Literal["icmp"]
    host: str
    """Name or address."""


class DnsProbe(ProbeBase):
    """A DNS query. Its value is the time until the answer, in seconds; `result.answers` has the
    answers.
    """

    type: Literal["dns"]
    query: str
    """The name to look up."""
    server: str = ""
    """The server's address, with `:port` if it is not 53; without it, the servers of this host."""
    record: Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] = "A"
    """The type of record."""
    answers: list[str] = Field(default_factory=list[str])
    """Answers that must be among those received. Without them, any answer is good."""


class GrpcProbe(TlsFields, ProbeBase):
    """What a gRPC server says of its health (grpc.health.v1). Its value is the time until the
    answer, in seconds; `result.status` has what it said.
    """

    type: Literal["grpc"]
    host: str
    """Name or address."""
    port: Port
    """Port."""
    service: str = ""
    """The service that is asked for; without it, the server as a whole."""
    tls: bool = False
    """Whether to speak TLS; the certificate of the server must be valid."""
    metadata: dict[Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")], str | SecretRef] = Field(
        default_factory=dict[str, str | SecretRef]
    )
    """Metadata to send: texts, or where a secret lies."""

    @model_validator(mode="after")
    def _tls_is_asked_for(self) -> GrpcProbe:
        if not self.tls and (self.ca or self.certificate or self.server_name):
            raise ValueError("expected `tls: true` with ca, certificate and serverName")
        return self
