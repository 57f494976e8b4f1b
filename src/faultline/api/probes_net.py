"""Probes of the network: what a client of a service sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from faultline.api.probe_base import Pattern, Port, ProbeBase, Url


class HttpProbe(ProbeBase):
    """An HTTP request. Its value is the time to the complete answer in seconds; `result` has code,
    body, headers.
    """

    type: Literal["http"]
    url: Url
    """Where to ask."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    """How to ask."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""
    body: str = ""
    """What to send."""
    code: Annotated[str, Field(pattern=r"^[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*$")] = (
        "200-399"
    )
    """Codes that are good: `200`, `200-299`, `200,404`."""
    pattern: Pattern = ""
    """What the body must contain."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""


class TcpProbe(ProbeBase):
    """A TCP connection. Its value is the time until it is established, in seconds."""

    type: Literal["tcp"]
    host: str
    """Name or address."""
    port: Port
    """Port."""


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
