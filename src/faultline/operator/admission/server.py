"""HTTPS for the API server: one thread for each of its connections, all bounded.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from faultline.kubeapi.model import Object

CONNECTIONS = 512
"""At once. Each may wait for a fault that delays."""
LARGEST = 8 << 20  # bytes of a request; the API server takes 3 MiB and sends two objects
IDLE = 120.0  # seconds in which nothing comes on a connection
HANDSHAKE = 10.0
_log = logging.getLogger(__name__)

Answer = tuple[int, Object]
Handle = Callable[[str, Object], Answer | None]
"""From the path and what was sent to a status of HTTP and what is answered; None: the connection is
closed without any answer.
"""


class Server(ThreadingHTTPServer):
    """Serves until `stop`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handle: Handle) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.handle = handle
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def show(self, certificate: bytes, key: bytes) -> None:
        """The certificate for every connection from now on."""
        with tempfile.TemporaryDirectory(prefix="faultline-") as folder:  # 0700
            file = Path(folder) / "pem"
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as made:
                made.write(key + certificate)
            self.context.load_cert_chain(file)

    def start(self) -> None:
        self._thread = threading.Thread(target=self.serve_forever, name="webhook", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self.shutdown()
            self._thread.join(5)
        self.server_close()
        for each in tuple(self._open):  # the API server keeps them, and would go on asking
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------ connections

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)  # rather than to take no more of them for ever
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be made
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In a thread of the connection: whoever is slow with TLS keeps nobody waiting."""
        request.settimeout(HANDSHAKE)
        try:
            secured = self.context.wrap_socket(request, server_side=True)
        except OSError:  # no TLS, or one who does not trust us
            return
        secured.settimeout(IDLE)
        self._open.add(secured)
        try:
            with secured:
                super().finish_request(secured, client_address)
        finally:
            self._open.discard(secured)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection of %s broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "faultline", ""
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > LARGEST:
            self._answer(413, {})
            self.close_connection = True
            return
        try:
            told: Any = json.loads(self.rfile.read(int(size)))
        except ValueError:
            told = None
        path = self.path.partition("?")[0]
        found = server.handle(path, cast(Object, told) if isinstance(told, dict) else {})
        if found is None:
            self.close_connection = True
            return
        self._answer(*found)

    def _answer(self, status: int, told: Object) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the library)
        _log.debug(format, *args)
