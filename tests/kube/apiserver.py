"""A real API server of Kubernetes with its etcd, without nodes: plain processes on loopback."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from tests.kube.programs import program

from faultline.kubeapi.client import Client
from faultline.kubeapi.plain import Access, Plain

ADMIN = "admin-token"


@dataclass(frozen=True)
class Server:
    """A running API server."""

    url: str
    folder: Path
    pid: int = 0

    @property
    def authority(self) -> Path:
        return self.folder / "apiserver.crt"

    def access(self, token: str = ADMIN, namespace: str = "default") -> Access:
        """As whoever has this token."""
        file = self.folder / f"{token}.token"
        file.write_text(token)
        return Access(self.url, self.authority, file, namespace=namespace)

    def access_by(self, secret: str, name: str) -> Access:
        """As whoever has this token, which is kept under a name."""
        file = self.folder / f"{name}.token"
        file.write_text(secret)
        return Access(self.url, self.authority, file)

    def client(self, token: str = ADMIN) -> Client:
        return Client(Plain(self.access(token)))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It answers nobody for the block."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """A file as kubectl reads it."""
        return self.kubeconfig_by(token, token)

    def kubeconfig_by(self, token: str, name: str) -> Path:
        """The same for whoever has this token, which is kept under a name."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        file = self.folder / f"{name}.kubeconfig"
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        file.write_text(yaml.safe_dump(told))
        return file


def _ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


@contextmanager
def _process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        made = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        yield made
    finally:
        made.kill()
        made.wait()


def _ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    asked = urllib.request.Request(
        f"{server.url}/readyz", headers={"Authorization": f"Bearer {ADMIN}"}
    )
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        try:
            context = ssl.create_default_context(cafile=str(server.authority))
            with urllib.request.urlopen(asked, timeout=5, context=context):
                return
        except (OSError, ssl.SSLError, urllib.error.URLError):
            time.sleep(0.2)
    raise RuntimeError(f"the API server does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """An API server with its files there; ended behind the block."""
    client, peer, port = _ports(3)
    for command in (
        ("openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"),
        ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "apiserver.key"), "-out", str(folder / "apiserver.crt")),
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    (folder / "tokens.csv").write_text(
        f"{ADMIN},admin,admin,system:masters\nnobody-token,nobody,nobody\n"
    )
    (folder / "tokens.csv").chmod(0o600)
    server, log = Server(f"https://127.0.0.1:{port}", folder), folder / "apiserver.log"
    etcd = (
        program("etcd"), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
    )  # fmt: skip
    accounts = folder / "accounts.key"
    kube = (
        program("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{client}",
        f"--secure-port={port}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
        f"--tls-cert-file={server.authority}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        "--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-key-file={accounts}",
        f"--service-account-signing-key-file={accounts}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24", f"--cert-dir={folder}",
    )  # fmt: skip
    with _process(folder / "etcd.log", *etcd), _process(log, *kube) as process:
        _ready(server, process, log)
        yield replace(server, pid=process.pid)
