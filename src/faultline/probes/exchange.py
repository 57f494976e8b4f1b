"""One HTTP exchange within one time limit, on the standard library alone (HTTP/2 needs h2)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import quote, urlsplit

from faultline.errors import ObserveFailed
from faultline.probes import http1, tls
from faultline.probes.http1 import Request
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import connect, reason

_SAFE = "%/:=&?~#+!$,;'@()*[]"  # what stands for itself in the target of a request


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    code: int
    headers: dict[str, str]  # names in lower case
    body: bytes  # its first part, as long as was asked for
    seconds: float  # from before the connection to the last byte
    size: int = 0  # bytes of all of the body
    version: str = "1.1"
    tls: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks."""

    trust: tls.Trust = field(default_factory=tls.Trust)
    http2: bool = False  # over TLS if the server offers it, else as one who knows that it can


def exchange(
    url: str,
    limit: Limit,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    client: Client | None = None,
    keep: int = 1 << 20,
) -> Answer:
    """Ask once on a connection of its own and read the whole answer; raises NoAnswer.

    Redirects are answers and not followed; `keep` is how many bytes of the body are returned.
    """
    secure, host, port, request = _read(url, method, headers or {}, body, keep)
    client = client or Client()
    # Reading the authorities of this host takes longer than many an answer: it is not measured.
    context = client.trust.context(("h2", "http/1.1") if client.http2 else ()) if secure else None
    begun = monotonic()
    connection = connect(host, port, limit)
    try:
        seen: dict[str, Any] = {}
        second = client.http2
        if context:
            encrypted = client.trust.encrypt(connection, context, host, limit)
            connection, seen = encrypted, tls.facts(encrypted)
            second = encrypted.selected_alpn_protocol() == "h2"
        if second:
            from faultline.probes import http2 as second_version

            answer = second_version.ask(connection, request, limit)
        else:
            answer = http1.ask(connection, request, limit)
        code, named, kept, size = answer
        version = "2" if second else "1.1"
        return Answer(code, named, kept, monotonic() - begun, size, version, seen)
    except TimeoutError as error:
        raise limit.late() from error
    except ssl.SSLError as error:
        raise NoAnswer(f"TLS: {tls.said(error)}") from error
    except OSError as error:
        raise NoAnswer(reason(error)) from error
    finally:
        connection.close()


def _read(
    url: str, method: str, headers: Mapping[str, str], body: bytes, keep: int
) -> tuple[bool, str, int, Request]:
    """Whether it is TLS, host, port and request; raises ObserveFailed for what cannot be sent."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        named = parts.netloc.rpartition("@")[2].encode("idna").decode()
    except ValueError as error:
        raise ObserveFailed(f"{url} is not an address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ObserveFailed(f"{url} is not an address of HTTP")
    for name, value in headers.items():
        if any(char in name + value for char in "\r\n\0"):  # the value may be a secret: not shown
            raise ObserveFailed(f"the header {name!r} holds a line break and cannot be sent")
    target = quote(parts.path or "/", safe=_SAFE)
    target += f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    secure = parts.scheme == "https"
    request = Request(parts.scheme, named, target, method, headers, body, keep)
    return secure, host, port or (443 if secure else 80), request
