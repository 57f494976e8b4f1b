"""One HTTP exchange within one time limit, on the standard library alone."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import LimitedReader, connect, reason


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    code: int
    headers: dict[str, str]  # names in lower case
    body: bytes  # its first part, as long as was asked for
    seconds: float  # from before the connection to the last byte


class _Wire:
    """What http.client needs of a socket to read an answer from."""

    def __init__(self, connection: socket.socket, limit: Limit) -> None:
        self._connection, self._limit = connection, limit

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(LimitedReader(self._connection, self._limit))


def exchange(
    url: str,
    limit: Limit,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    verify: bool = True,
    keep: int = 1 << 20,
) -> Answer:
    """Ask once on a connection of its own and read the whole answer; raises NoAnswer.

    Redirects are answers and not followed; `keep` is how many bytes of the body are returned.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    begun = monotonic()
    connection = connect(host, parts.port or (443 if secure else 80), limit)
    try:
        if secure:
            connection = _encrypt(connection, host, verify, limit)
        connection.settimeout(limit.left())
        connection.sendall(_request(url, method, headers or {}, body))
        wire: Any = _Wire(connection, limit)  # http.client asks for no more than makefile()
        response = http.client.HTTPResponse(wire, method=method)
        response.begin()
        kept = response.read(keep)
        while response.read(65536):
            pass
        if response.length:  # http.client is silent about the end of a body that came too soon
            raise NoAnswer(f"the answer was cut off, {response.length} bytes are missing")
        seconds = monotonic() - begun
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, kept, seconds)
    except TimeoutError as error:
        raise limit.late() from error
    except http.client.IncompleteRead as error:
        raise NoAnswer(f"the answer was cut off after {len(error.partial)} bytes") from error
    except http.client.HTTPException as error:
        what = "the connection was closed without an answer"
        closed = isinstance(error, http.client.RemoteDisconnected)
        raise NoAnswer(what if closed else f"not an answer of HTTP: {error!r}") from error
    except ssl.SSLError as error:
        raise NoAnswer(f"TLS: {getattr(error, 'verify_message', '') or error.reason}") from error
    except OSError as error:
        raise NoAnswer(reason(error)) from error
    finally:
        connection.close()


def _encrypt(connection: socket.socket, host: str, verify: bool, limit: Limit) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    connection.settimeout(limit.left())
    return context.wrap_socket(connection, server_hostname=host)


def _request(url: str, method: str, headers: Mapping[str, str], body: bytes) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {
        "Host": parts.netloc.rpartition("@")[2],
        "User-Agent": "faultline",
        "Accept": "*/*",
        "Connection": "close",
    }
    given = {name.lower() for name in headers}
    lines = [f"{name}: {value}" for name, value in sent.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    text = "\r\n".join([f"{method} {target} HTTP/1.1", *lines]) + "\r\n\r\n"
    return text.encode("latin-1", "replace") + body
