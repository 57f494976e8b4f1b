"""http, tcp and icmp against real servers, good and bad ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.api.probe import Measurement

Measure = Callable[..., Measurement]
Serve = Callable[[Callable[[socket.socket], None]], int]


def answer(data: bytes, wait: float = 0.0) -> Callable[[socket.socket], None]:
    def handle(wire: socket.socket) -> None:
        wire.recv(65536)
        time.sleep(wait)
        wire.sendall(data)

    return handle


def page(code: int = 200, body: bytes = b"all is well") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nX-A: 1\r\n\r\n" % (code, len(body)) + body


def test_http_gives_the_time_the_code_and_the_body(measure: Measure, raw: Serve) -> None:
    found = measure("http", url=f"http://127.0.0.1:{raw(answer(page(), 0.2))}/a?b=c", code="200")
    assert found.ok is True
    assert found.value is not None
    assert found.value >= 0.2
    assert found.result["code"] == 200
    assert found.result["body"] == "all is well"
    assert found.result["headers"]["x-a"] == "1"


@pytest.mark.parametrize(
    ("codes", "code", "ok"),
    [("200", 204, False), ("200-299", 204, True), ("200,404", 404, True), ("200-399", 500, False)],
)
def test_http_judges_the_code(
    measure: Measure, raw: Serve, codes: str, code: int, ok: bool
) -> None:
    found = measure("http", url=f"http://127.0.0.1:{raw(answer(page(code)))}/", code=codes)
    assert found.ok is ok
    assert str(code) in found.text
    assert found.value is not None


def test_http_looks_for_the_pattern_in_the_body(measure: Measure, raw: Serve) -> None:
    url = f"http://127.0.0.1:{raw(answer(page()))}/"
    assert measure("http", url=url, pattern=r"is \w+").ok is True
    found = measure("http", url=url, pattern="ill")
    assert found.ok is False
    assert "ill" in found.text


def test_http_sends_what_it_was_told(measure: Measure, raw: Serve) -> None:
    seen: list[bytes] = []

    def handle(wire: socket.socket) -> None:
        seen.append(wire.recv(65536))
        wire.sendall(page())

    port = raw(handle)
    url, headers = f"http://127.0.0.1:{port}/x?y=%20", {"Host": "shop", "X-Token": "t"}
    assert measure("http", url=url, method="POST", body="data", headers=headers).ok is True
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /x?y=%20 HTTP/1.1"
    assert {"Host: shop", "X-Token: t", "Content-Length: 4"} <= set(lines)
    assert sum(line.startswith("Host:") for line in lines) == 1
    assert body == b"data"


def test_http_has_one_limit_for_all_of_a_dripping_answer(measure: Measure, raw: Serve) -> None:
    def drip(wire: socket.socket) -> None:
        wire.recv(65536)
        for byte in page(body=b"x" * 500):
            wire.sendall(bytes([byte]))
            time.sleep(0.05)

    begun = time.monotonic()
    found = measure("http", url=f"http://127.0.0.1:{raw(drip)}/", timeout="400ms")
    assert found.ok is False
    assert "within 0.4 s" in found.text
    assert time.monotonic() - begun < 3.0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "closed without an answer"),
        (b"220 mail ready\r\n", "not an answer of HTTP"),
        (page()[:-4], "cut off"),
    ],
)
def test_http_says_what_was_wrong_with_an_answer(
    measure: Measure, raw: Serve, data: bytes, said: str
) -> None:
    found = measure("http", url=f"http://127.0.0.1:{raw(answer(data))}/")
    assert found.ok is False
    assert found.value is None
    assert said in found.text


def test_a_refused_connection_is_the_service_failing(measure: Measure, closed_port: int) -> None:
    for kind, fields in (
        ("http", {"url": f"http://127.0.0.1:{closed_port}/"}),
        ("tcp", {"host": "127.0.0.1", "port": closed_port}),
    ):
        found = measure(kind, **fields)
        assert found.ok is False
        assert "connection refused" in found.text


def test_https_verifies_the_certificate_unless_told_otherwise(
    measure: Measure, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = [
        "openssl",
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
    try:
        made = subprocess.run(
            [*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    assert made.returncode == 0
    code = (
        "import http.server as h, ssl, sys\n"
        "s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)\n"
        "c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
        f"c.load_cert_chain({str(certificate)!r}, {str(key)!r})\n"
        "s.socket = c.wrap_socket(s.socket, server_side=True)\n"
        "print(s.server_address[1], flush=True)\n"
        "s.serve_forever()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        text=True,
    )
    with server:
        assert server.stdout is not None
        url = f"https://127.0.0.1:{server.stdout.readline().strip()}/cert.pem"
        refused = measure("http", url=url)
        accepted = measure("http", url=url, verify=False, pattern="CERTIFICATE")
        server.terminate()
    assert refused.ok is False
    assert refused.text.startswith("TLS: ")
    assert accepted.ok is True


def test_a_name_that_does_not_resolve_is_the_service_failing(measure: Measure) -> None:
    found = measure("tcp", host="no-such-host.invalid", port=80, timeout="5s")
    assert found.ok is False
    assert "no-such-host.invalid was not resolved" in found.text


def test_tcp_gives_the_time_to_connect(measure: Measure, raw: Serve) -> None:
    found = measure("tcp", host="localhost", port=raw(lambda wire: None))
    assert found.ok is True
    assert found.value is not None
    assert 0 < found.value < 5
    assert found.result["address"] == "127.0.0.1"


def test_a_full_backlog_is_a_connection_that_does_not_come(measure: Measure) -> None:
    """A listener that accepts nothing: the kernel drops further connection requests."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting: list[socket.socket] = []
        for _ in range(3):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
            waiting.append(each)
        time.sleep(0.1)
        found = measure("tcp", host="127.0.0.1", port=port, timeout="300ms")
        for each in waiting:
            each.close()
    assert found.ok is False
    assert "no connection within 0.3 s" in found.text


@pytest.mark.needs_root
@pytest.mark.both_kernels
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_icmp_is_answered_by_loopback(measure: Measure, host: str) -> None:
    if host == "::1" and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this kernel has no IPv6 address on loopback")
    found = measure("icmp", host=host)
    assert found.ok is True, found.text
    assert found.value is not None
    assert 0 < found.value < 5


@pytest.mark.needs_netns
@pytest.mark.both_kernels
def test_icmp_without_an_answer_is_the_service_failing() -> None:
    """In a namespace whose loopback is down nothing answers; the kernel may say so at once."""
    code = (
        "from faultline.kernel import syscalls\n"
        "syscalls.unshare(syscalls.Namespace.NET)\n"
        "from faultline.api.probe import IcmpProbe\n"
        "from faultline.probes.prober import begin\n"
        "spec = IcmpProbe.model_validate(\n"
        "    {'name': 'x', 'type': 'icmp', 'host': '127.0.0.1', 'timeout': '300ms'})\n"
        "found = begin(spec).measure()\n"
        "print(found.ok, found.text)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.startswith("False 127.0.0.1: "), done.stdout


@pytest.mark.needs_root
def test_icmp_without_the_right_to_ask_is_unmeasured(measure: Measure) -> None:
    allowed = Path("/proc/sys/net/ipv4/ping_group_range").read_text().split()
    if int(allowed[0]) <= 65534 <= int(allowed[1]):
        pytest.skip("this machine lets everybody ping")
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        found = measure("icmp", host="127.0.0.1")
        os._exit(0 if found.ok is None and "CAP_NET_RAW" in found.text else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
