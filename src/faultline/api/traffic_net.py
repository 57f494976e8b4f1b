"""Traffic to services of other protocols: gRPC, and whatever speaks over TCP or UDP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from faultline.api.probe_base import Pattern, Port
from faultline.api.secret import SecretRef
from faultline.api.tls import TlsFields
from faultline.api.traffic_parts import FedTraffic

MOST_DATAGRAM = 65507


class GrpcTraffic(TlsFields, FedTraffic):
    """Calls of one gRPC method with one message each way. Without a method it asks for the health
    of the server (grpc.health.v1), and anything but `SERVING` is an error.
    """

    type: Literal["grpc"]
    """The protocol."""
    host: str
    """Name or address."""
    port: Port
    """Port."""
    method: Annotated[str, Field(pattern=r"^$|^/?[A-Za-z_][\w.]*/[A-Za-z_]\w*$")] = ""
    """The method by its full name: `shop.v1.Cart/AddItem`."""
    service: str = ""
    """Whose health is asked for, if there is no method."""
    body: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The message as JSON (as protobuf writes it). The server is asked for its form (reflection),
    unless there are `descriptors`."""
    descriptors: str = ""
    """A file with the descriptor set of the service: `protoc --include_imports
    --descriptor_set_out=FILE`."""
    raw: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]*$")] | None = None
    """The message as bytes in base64 instead of `body`; the answer is not looked into."""
    pattern: Pattern = ""
    """What the answer must contain, as JSON."""
    metadata: dict[Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")], str | SecretRef] = Field(
        default_factory=dict[str, str | SecretRef]
    )
    """Metadata to send: texts, or where a secret lies."""
    tls: bool = False
    """Whether to speak TLS; the certificate of the server must be valid."""
    connections: Annotated[int, Field(ge=1, le=1000)] | None = 1
    """How many connections each worker spreads its calls over."""

    def where(self) -> str:
        return f"{self.method or 'grpc.health.v1.Health/Check'} at {self.host}:{self.port}"

    def texts(self) -> Iterable[tuple[str, object]]:
        return (("body", self.body), ("metadata", self.metadata))

    @model_validator(mode="after")
    def _fits_together(self) -> GrpcTraffic:
        if not self.method and (self.body or self.raw is not None or self.descriptors):
            raise ValueError("expected method with body, raw and descriptors")
        if self.method and self.service:
            raise ValueError("expected service only without a method")
        if self.raw is not None:
            if self.body or self.descriptors or self.pattern:
                raise ValueError("expected no body, descriptors or pattern with raw")
            decoded("raw", self.raw, "base64")
        if not self.tls and (self.ca or self.certificate or self.server_name):
            raise ValueError("expected `tls: true` with ca, certificate and serverName")
        return self


Encoding = Literal["text", "hex", "base64"]


def decoded(name: str, payload: str, encoding: Encoding) -> bytes:
    """A payload as it is sent; raises ValueError that names the field."""
    try:
        if encoding == "hex":
            return bytes.fromhex(payload)
        if encoding == "base64":
            return base64.b64decode(payload, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"expected {name} in {encoding}; {error}") from error
    return payload.encode()


class PayloadTraffic(FedTraffic):
    """Bytes to a port, and what comes back."""

    host: str
    """Name or address."""
    port: Port
    """Port."""
    payload: Annotated[str, Field(max_length=131_072)] = ""
    """What to send; as text it may hold `{{name}}`."""
    encoding: Encoding = "text"
    """How the payload is written."""
    pattern: Pattern = ""
    """What the answer must contain, as text."""

    def texts(self) -> Iterable[tuple[str, object]]:
        return (("payload", self.payload),) if self.encoding == "text" else ()

    @model_validator(mode="after")
    def _can_be_decoded(self) -> PayloadTraffic:
        decoded("payload", self.payload, self.encoding)
        return self


class TcpTraffic(TlsFields, PayloadTraffic):
    """Bytes over TCP. A request is the payload until its answer is complete (`pattern` or
    `length`); without both, until it was sent; without a payload too, a new connection.
    """

    type: Literal["tcp"]
    """The protocol."""
    length: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    """How many bytes an answer has."""
    keep_alive: bool = True
    """Whether a connection carries more than one request."""
    tls: bool = False
    """Whether to speak TLS."""
    verify: bool = True
    """Whether the certificate of the server must be valid."""

    def where(self) -> str:
        return f"{'tls' if self.tls else 'tcp'} {self.host}:{self.port}"

    @model_validator(mode="after")
    def _one_end(self) -> TcpTraffic:
        if self.pattern and self.length is not None:
            raise ValueError("expected pattern or length, not both")
        return self


class UdpTraffic(PayloadTraffic):
    """Datagrams. A request is one, until an answer comes that has `pattern` and `length`."""

    type: Literal["udp"]
    """The protocol."""
    length: Annotated[int, Field(ge=0, le=MOST_DATAGRAM)] | None = None
    """How many bytes the answer must have."""
    answer: bool = True
    """Whether an answer is waited for. Without it a request is done when it has left, which says
    nothing of the target."""

    def where(self) -> str:
        return f"udp {self.host}:{self.port}"

    @model_validator(mode="after")
    def _fits(self) -> UdpTraffic:
        if len(decoded("payload", self.payload, self.encoding)) > MOST_DATAGRAM:
            raise ValueError(f"expected at most {MOST_DATAGRAM} bytes; a datagram holds no more")
        if not self.answer and (self.pattern or self.length is not None):
            raise ValueError("expected an answer with pattern and length")
        return self
