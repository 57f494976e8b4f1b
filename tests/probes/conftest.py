from __future__ import annotations

import http.server
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from faultline.api.probe import Measurement, ProbeBase, ProbeSpec
from faultline.probes.prober import Prober, begin

READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)


@pytest.fixture
def probe() -> Iterator[Callable[..., Prober[ProbeBase]]]:
    """Makes probers from documents and closes them."""
    made: list[Prober[ProbeBase]] = []

    def make(kind: str, /, **fields: Any) -> Prober[ProbeBase]:
        made.append(begin(READ.validate_python({"name": "it", "type": kind, **fields})))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def measure(probe: Callable[..., Prober[ProbeBase]]) -> Callable[..., Measurement]:
    """One measurement of a probe that is described by its document."""
    return lambda kind, /, **fields: probe(kind, **fields).measure()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port of loopback at which nobody listens."""
    return free_port()


class Silent(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Runs a TCP server whose connections are handled by a function; gives its port."""
    servers: list[tuple[Silent, threading.Thread]] = []

    def serve(handle: Callable[[socket.socket], None]) -> int:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    handle(self.request)
                except OSError:
                    return  # the probe has hung up

        server = Silent(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return server.server_address[1]

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


class Metrics(http.server.BaseHTTPRequestHandler):
    """What the real Prometheus scrapes."""

    def do_GET(self) -> None:
        body = b'shop_orders{shop="a"} 3\nshop_orders{shop="b"} 4\nshop_nothing NaN\n'
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus on a scratch port and folder that watches a real exporter."""
    folder: Path = tmp_path_factory.mktemp("prometheus")
    exporter = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=exporter.serve_forever, args=(0.05,))
    thread.start()
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 400ms}\n"
        "scrape_configs:\n"
        "- job_name: shop\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{exporter.server_address[1]}']}}]\n"
    )
    url = f"http://127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={url.removeprefix('http://')}",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        _wait_for_samples(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30)
        exporter.shutdown()
        thread.join()
        exporter.server_close()


def _wait_for_samples(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query?query=shop_orders", timeout=2) as page:
                if b"shop_orders" in page.read():
                    return
        except (urllib.error.URLError, OSError):
            pass  # it is still starting
        time.sleep(0.2)
    pytest.fail(f"Prometheus did not scrape within a minute:\n{log.read_text()}")


@pytest.fixture(scope="module")
def name_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real dnsmasq on a scratch port with records of every type: its address."""
    program = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not program:
        pytest.skip("needs a name server: install dnsmasq-base")
    folder = tmp_path_factory.mktemp("dnsmasq")
    port = free_port(socket.SOCK_DGRAM)
    many = [f"--host-record=many.test,10.1.{n // 250}.{n % 250 + 1}" for n in range(120)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                "--no-daemon",
                "--conf-file=/dev/null",
                "--no-hosts",
                "--no-resolv",
                f"--port={port}",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--local=/test/",
                "--user=root",
                f"--pid-file={folder / 'pid'}",
                "--host-record=web.test,192.0.2.7,2001:db8::7",
                "--cname=www.test,web.test",
                "--mx-host=test,mail.test,10",
                "--txt-record=note.test,v=spf1 -all,second",
                "--srv-host=_sip._tcp.test,sip.test,5060,1,2",
                "--ptr-record=7.2.0.192.in-addr.arpa,web.test",
                *many,
            ],
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "log").read_text()
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    process.wait(10)
