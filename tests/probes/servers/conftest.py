"""Real servers on loopback: free ports, data in folders of their own, ended by pid."""

from __future__ import annotations

import http.server
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret/word +1"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def await_port(port: int, process: subprocess.Popen[bytes], log: Path, ready: bytes = b"") -> None:
    """Wait until the server accepts connections, and has said that it is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0 and ready in log.read_bytes():
                return
        time.sleep(0.02)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')}")


# --------------------------------------------------------------------------- databases


@dataclass
class Postgres:
    """A database cluster; `run` executes a statement as its owner."""

    port: int
    url: str

    def run(self, *statements: str) -> None:
        import psycopg

        where = f"host=127.0.0.1 port={self.port} user=owner dbname=postgres"
        with psycopg.connect(where, password=PASSWORD, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), Path(shutil.which("initdb") or "/")]
    if not found[0].is_file():
        pytest.skip("needs PostgreSQL: install postgresql")
    programs = found[0].resolve().parent
    # The server refuses to run as root, and its user must be able to reach the folder.
    folder = Path(tempfile.mkdtemp(prefix="faultline-postgres-", dir="/tmp"))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    data, log, port = folder / "data", folder / "log", free_port()
    words = ["-D", str(data), "-U", "owner", "-A", "scram-sha-256", "--no-sync", "--no-locale"]
    try:
        subprocess.run(
            [str(programs / "initdb"), *words, f"--pwfile={folder / 'password'}"],
            check=True, capture_output=True, cwd=folder, **account,
        )  # fmt: skip
        settings = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        )
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), *settings.split(" ")],
                stdout=out, stderr=out, cwd=folder, **account,
            )  # fmt: skip
        try:
            await_port(port, process, log, b"ready to accept connections")
            yield Postgres(port, f"postgresql://owner@127.0.0.1:{port}/postgres")
        finally:
            process.terminate()
            process.wait(30)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that wants a password."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("needs Redis: install redis-server")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    words = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    (folder / "conf").write_text(f'requirepass "{PASSWORD}"\n')
    words.insert(1, str(folder / "conf"))
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, cwd=folder)
    try:
        await_port(port, process, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(30)


# --------------------------------------------------------------------------- certificates


@dataclass
class Authority:
    """Certificates made by openssl; `ca` signed all of them but `expired`, which signed itself."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    openssl(
        "req", "-x509", *new, "-nodes", "-days", "2", "-subj", "/CN=Test CA",
        "-keyout", "ca-key.pem", "-out", "ca.pem",
    )  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,DNS:shop.test,IP:127.0.0.1\n")
    for name, secret in (("server", "-nodes"), ("client", f"-passout=pass:{PASSWORD}")):
        openssl(
            "req", *new, *secret.split("=", 1), "-subj", f"/CN={name}",
            "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-days", "1", "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip
    return Authority(folder)


@pytest.fixture
def web(authority: Authority) -> Iterator[Callable[..., str]]:
    """Runs a web server from a function (handler -> None); gives its address."""
    running: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def serve(
        answer: Callable[[http.server.BaseHTTPRequestHandler], None],
        *,
        tls: bool = False,
        client: bool = False,
    ) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            do_POST = do_GET  # noqa: N815 (the name is that of the standard library)

            def log_message(self, *args: Any) -> None:
                return

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # a client that does not trust us hangs up

            def finish_request(self, request: Any, client_address: Any) -> None:
                request.settimeout(10)
                if tls:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(authority.path("server"), authority.path("server-key"))
                    if client:
                        context.load_verify_locations(authority.path("ca"))
                        context.verify_mode = ssl.CERT_REQUIRED
                    with context.wrap_socket(request, server_side=True) as wire:
                        super().finish_request(wire, client_address)
                else:
                    super().finish_request(request, client_address)

        server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        running.append((server, thread))
        return f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}"

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


# --------------------------------------------------------------------------- grpc

HEALTH = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

folder, secure = sys.argv[1:]
server = grpc.server(ThreadPoolExecutor(4))
if secure != "bare":
    service = health.HealthServicer()
    service.set("shop.Orders", health_pb2.HealthCheckResponse.SERVING)
    service.set("shop.Cart", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
if secure == "tls":
    pem = lambda name: open(f"{folder}/{name}.pem", "rb").read()
    made = grpc.ssl_server_credentials([(pem("server-key"), pem("server"))])
    port = server.add_secure_port("127.0.0.1:0", made)
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
"""


@pytest.fixture(scope="module")
def health(authority: Authority) -> Iterator[Callable[[str], int]]:
    """Runs a gRPC server: `plain`, `tls`, or `bare` (without the health service); its port."""
    pytest.importorskip("grpc_health.v1", reason="needs grpcio-health-checking")
    running: dict[str, tuple[subprocess.Popen[str], int]] = {}

    def start(kind: str) -> int:
        if kind not in running:
            process = subprocess.Popen(
                [sys.executable, "-c", HEALTH, str(authority.folder), kind],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            running[kind] = process, int(process.stdout.readline())
        return running[kind][1]

    yield start
    for process, _ in running.values():
        process.kill()
        with process:
            process.wait(10)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A reference to the password of all servers."""
    monkeypatch.setenv("THE_PASSWORD", PASSWORD)
    return {"env": "THE_PASSWORD"}
