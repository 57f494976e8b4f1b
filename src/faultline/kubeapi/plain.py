"""A connection with nothing but the standard library: what an agent has that must stay small.

In a pod the kubelet gives the address in the environment and token, certificate and namespace as
files; the token is renewed, so it is read for every request.
https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from faultline.errors import Unsupported
from faultline.kubeapi.model import Answer, Asking, Request, json_of, refusal, silent

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_AGENT = "faultline"
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))  # seconds, times
_LONGEST = 16 << 20  # bytes of one line of a watch


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached, and as whom."""

    server: str  # https://HOST:PORT
    authority: Path | None = None  # certificates to trust, else those of the system
    token: Path | None = None
    certificate: tuple[Path, Path] | None = None  # and its key
    namespace: str = "default"


def of_pod() -> Access:
    """That of the service account of this pod; raises Unsupported outside of one."""
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT"),
    )
    if not host or not port or not (ACCOUNT / "token").exists():
        raise Unsupported("this is no pod with a service account", hint="name a kubeconfig")
    shown = f"[{host}]" if ":" in host else host
    return Access(
        f"https://{shown}:{port}", ACCOUNT / "ca.crt", ACCOUNT / "token",
        namespace=(ACCOUNT / "namespace").read_text().strip(),
    )  # fmt: skip


class Plain(Asking):
    """One connection for requests, made anew when it breaks, and one for each watch."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._where = urlsplit(access.server)
        self._context = self._trust() if self._where.scheme == "https" else None
        self._lock = threading.Lock()
        self._kept: http.client.HTTPConnection | None = None
        self._watching: set[http.client.HTTPConnection] = set()
        self._cuts = 0  # how often all of these were closed

    @property
    def server(self) -> str:
        return self._access.server

    @property
    def namespace(self) -> str:
        return self._access.namespace

    def close(self) -> None:
        """Whoever reads lines in another thread is told that the connection broke."""
        self._cuts += 1
        for watching in tuple(self._watching):
            if watching.sock is not None:
                with suppress(OSError):
                    watching.sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None:
                kept.close()

    def send(self, asked: Request) -> Answer:
        """A kept connection that the server has closed is made anew once."""
        with self._lock:
            kept = self._kept is not None
            try:
                return self._ask(asked)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                # Idle for too long, it says. Every write of ours may be sent twice.
                if not kept or not isinstance(error, ConnectionError):
                    raise silent(self.server, error) from error
            try:
                return self._ask(asked)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                raise silent(self.server, error) from error

    @contextmanager
    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> Generator[Iterator[bytes]]:
        made, cuts = self._connect(timeout), self._cuts
        self._watching.add(made)
        try:
            made.request("GET", f"{path}?{urlencode(query)}", headers=self._headers())
            answer = made.getresponse()
            if made.sock is not None:
                watched_over(made.sock)
            if self._cuts != cuts:
                raise ConnectionAbortedError("it was closed meanwhile")
            if answer.status != 200:
                raise refusal(answer.status, json_of(answer.read()))
            yield self._told(answer)
        except (OSError, http.client.HTTPException) as error:
            raise silent(self.server, error) from error
        finally:
            self._watching.discard(made)
            made.close()

    def _told(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while line := answer.readline(_LONGEST):
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise silent(self.server, error) from error

    # ------------------------------------------------------------------ connections

    def _ask(self, asked: Request) -> Answer:
        if self._kept is None:
            self._kept = self._connect(asked.timeout)
        elif self._kept.sock is not None:
            self._kept.sock.settimeout(asked.timeout)
        target, data = asked.path, asked.data
        target += f"?{urlencode(asked.query)}" if asked.query else ""
        kind = {} if data is None else {"Content-Type": asked.content}
        self._kept.request(asked.method, target, data, {**self._headers(), **kind})
        answer = self._kept.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._where.hostname or "", self._where.port
        if self._context is None:
            return http.client.HTTPConnection(host, port or 80, timeout=timeout)
        return http.client.HTTPSConnection(
            host, port or 443, timeout=timeout, context=self._context
        )

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(OSError):
                kept.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": _AGENT}
        if self._access.token is not None:
            headers["Authorization"] = f"Bearer {self._access.token.read_text().strip()}"
        return headers

    def _trust(self) -> ssl.SSLContext:
        authority = self._access.authority
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
        if self._access.certificate is not None:
            certificate, key = self._access.certificate
            context.load_cert_chain(certificate, key)
        return context


def watched_over(connection: socket.socket) -> None:
    """Let the kernel find out whether the other side is still there, of a connection on which
    nothing is sent: without that a watch through a cut network would wait for ever (tcp(7)).
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
