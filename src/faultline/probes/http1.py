"""One exchange by HTTP/1.1 (RFC 9112) on a connection that stands."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import LimitedReader


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, on a connection that stands."""

    scheme: str
    host: str  # as the Host header has it
    target: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    keep: int  # bytes of the body that are wanted

    def named(self) -> dict[str, str]:
        """All headers that a client sends, those given first, names in lower case."""
        own = {"user-agent": "faultline", "accept": "*/*"}
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            own["content-length"] = str(len(self.body))
        given = {name.lower(): value for name, value in self.headers.items()}
        return {**own, **given}


class _Wire:
    """What http.client needs of a socket to read an answer from."""

    def __init__(self, connection: socket.socket, limit: Limit) -> None:
        self._connection, self._limit = connection, limit

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(LimitedReader(self._connection, self._limit))


def ask(
    connection: socket.socket, request: Request, limit: Limit
) -> tuple[int, dict[str, str], bytes, int]:
    """Code, headers, the part of the body that is wanted, its size; raises NoAnswer, OSError."""
    connection.settimeout(limit.left())
    connection.sendall(_bytes(request))
    wire: Any = _Wire(connection, limit)  # http.client asks for no more than makefile()
    try:
        with http.client.HTTPResponse(wire, method=request.method) as response:
            response.begin()
            kept = response.read(request.keep)
            size = len(kept)
            while part := response.read(65536):
                size += len(part)
            if response.length:  # http.client is silent about a body that ends too soon
                raise NoAnswer(f"the answer was cut off, {response.length} bytes are missing")
            named = {name.lower(): value for name, value in response.getheaders()}
            return response.status, named, kept, size
    except http.client.IncompleteRead as error:
        raise NoAnswer(f"the answer was cut off after {len(error.partial)} bytes") from error
    except (http.client.HTTPException, ValueError) as error:
        what = "the connection was closed without an answer"
        closed = isinstance(error, http.client.RemoteDisconnected)
        raise NoAnswer(what if closed else f"not an answer of HTTP: {error!r}"[:200]) from error


def _bytes(request: Request) -> bytes:
    first = {"Connection": "close"} if "connection" not in request.named() else {}
    host = {} if "host" in request.named() else {"Host": request.host}
    lines = [f"{name}: {value}" for name, value in {**host, **first}.items()]
    lines += [f"{name.title()}: {value}" for name, value in request.named().items()]
    text = "\r\n".join([f"{request.method} {request.target} HTTP/1.1", *lines]) + "\r\n\r\n"
    return text.encode("latin-1", "replace") + request.body
