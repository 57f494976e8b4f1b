from __future__ import annotations

import http.server
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.api.traffic import HttpTraffic

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def service() -> Iterator[tuple[str, int]]:
    """The demo service in a process of its own: its address and its pid."""
    process = subprocess.Popen(
        [sys.executable, "-m", "faultline.demo.service"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], process.pid
        os.kill(process.pid, signal.SIGCONT)
        process.terminate()


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, word, value = [*self.path.split("/"), "", ""][:3]
        if word == "slow":
            time.sleep(float(value))
        if word == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
            return
        self.send_response(int(value) if word == "status" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: Any) -> None:
        return


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # clients hang up on purpose here


def _serve(server: http.server.ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    scheme = "https" if isinstance(server.socket, ssl.SSLSocket) else "http"
    yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pages() -> Iterator[str]:
    yield from _serve(Quiet(("127.0.0.1", 0), Pages))


@pytest.fixture
def tls_pages(tmp_path: Path) -> Iterator[str]:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(
        [openssl, *words, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Quiet(("127.0.0.1", 0), Pages)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from _serve(server)


@pytest.fixture
def traffic() -> Callable[..., HttpTraffic]:
    def make(url: str, **fields: Any) -> HttpTraffic:
        given = {
            "type": "http",
            "name": "load",
            "url": url,
            "warmup": "0s",
            "duration": "2s",
            **fields,
        }
        return HttpTraffic.model_validate(given)

    return make
