"""Whatever the other side does, a measurement ends at its limit and stays small."""

from __future__ import annotations

import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faultline.api.probe import Measurement, ProbeBase
from faultline.probes.prober import Prober

Measure = Callable[..., Measurement]
Probe = Callable[..., Prober[ProbeBase]]
Serve = Callable[[Callable[[socket.socket], None]], int]

LIMIT = 0.2
SLACK = 10.0  # seconds; other work shares the machine
ROOM = 96 << 20  # bytes that the process may grow by, its libraries included


def swallow(wire: socket.socket) -> None:
    """A black hole: everything is read, nothing is answered."""
    while wire.recv(65536):
        pass


def drip(wire: socket.socket) -> None:
    """One byte now and then, of something that could become an answer of any protocol."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" * 50:
        wire.sendall(bytes([byte]))
        time.sleep(0.02)


def rubbish(wire: socket.socket) -> None:
    """Random bytes without end."""
    block = bytes(range(256)) * 4096
    while True:
        wire.sendall(block)


def zeros(wire: socket.socket) -> None:
    """Zeros without end: lengths of nothing, lines without an end."""
    block = b"\0" * (1 << 20)
    while True:
        wire.sendall(block)


def hang_up(wire: socket.socket) -> None:
    """A reset at once."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def endless(head: bytes, block: bytes) -> Callable[[socket.socket], None]:
    def handle(wire: socket.socket) -> None:
        wire.recv(65536)
        wire.sendall(head)
        while True:
            wire.sendall(block)

    return handle


FRAME = b"\0\0\0\4\0\0\0\0\0"  # empty settings of HTTP/2
HOSTILE: dict[str, Callable[[socket.socket], None]] = {
    "swallow": swallow,
    "drip": drip,
    "rubbish": rubbish,
    "zeros": zeros,
    "hang up": hang_up,
    "endless body": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (1 << 20)),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: 1\r\n" * 1000),
    "endless header": endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"1" * (1 << 20)),
    "endless continue": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless chunks": endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        (b"400\r\n" + b"x" * 1024 + b"\r\n") * 99,
    ),
    "huge chunk": endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n", b"x" * (1 << 20)
    ),
    "negative length": endless(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", b"x" * 65536),
    "frames": endless(FRAME, FRAME * 1000),
    "pings": endless(FRAME, b"\0\0\x08\6\0\0\0\0\0" + b"12345678"),
    "huge text": endless(b"$99999999999\r\n", b"x" * (1 << 20)),
    "huge list": endless(b"*99999999999\r\n", b"x" * (1 << 20)),
    "list of lists": endless(b"", b"*1000\r\n" * 1000),
    "long list": endless(b"*1000000\r\n", b"$1000\r\n" + b"x" * 1000 + b"\r\n"),
    "error of a database": endless(b"N", b"E\0\0\xff\xffSERROR\0"),
}

PROBES: dict[str, dict[str, Any]] = {
    "http": {"kind": "http", "url": "http://127.0.0.1:{port}/", "jsonPath": "$.a", "redirects": 3},
    "https": {"kind": "http", "url": "https://127.0.0.1:{port}/", "verify": False},
    "http2": {"kind": "http", "url": "http://127.0.0.1:{port}/", "http2": True},
    "redis": {"kind": "redis", "command": ["GET", "x"]},
    "redis over TLS": {"kind": "redis", "command": ["GET", "x"], "tls": True},
    "grpc": {"kind": "grpc", "host": "127.0.0.1"},
    "sql": {"kind": "sql", "url": "postgresql://x@127.0.0.1:{port}/x", "query": "SELECT 1"},
    "dns": {"kind": "dns", "server": "127.0.0.1:{port}", "query": "x.test"},
}


def ask(probe: Probe, what: str, port: int, **more: Any) -> tuple[Measurement, float]:
    fields = {
        name: value.format(port=port) if isinstance(value, str) else value
        for name, value in PROBES[what].items()
    }
    if what in ("redis", "redis over TLS", "grpc"):
        fields["port"] = port
    prober = probe(fields.pop("kind"), **fields, **more, timeout=f"{LIMIT * 1000:.0f}ms")
    begun = time.monotonic()
    found = prober.measure()
    return found, time.monotonic() - begun


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """The largest size that this process has had does not grow by more than its libraries."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < ROOM, f"it grew by {grown >> 20} MiB"


def cases() -> list[Any]:
    """Everything in a full run; else each kind of server against what it is made for."""
    meant = {
        "http": ("drip", "endless", "huge chunk", "negative"),
        "https": ("rubbish", "hang up"),
        "http2": ("frames", "pings", "swallow"),
        "redis": ("zeros", "drip", "huge", "list", "long"),
        "redis over TLS": ("hang up",),
        "grpc": ("rubbish", "swallow"),
        "sql": ("swallow", "drip", "rubbish", "error"),
        "dns": ("zeros", "drip"),
    }
    return [
        pytest.param(what, how, marks=[] if how.startswith(meant[what]) else [pytest.mark.full])
        for what in PROBES
        for how in HOSTILE
    ]


@pytest.mark.parametrize(("what", "how"), cases())
def test_no_server_holds_a_measurement_beyond_its_limit(
    probe: Probe, raw: Serve, what: str, how: str
) -> None:
    found, seconds = ask(probe, what, raw(HOSTILE[how]))
    assert found.ok is not True, found
    assert found.value is None
    assert found.text
    assert len(found.text) <= 300
    assert seconds < LIMIT + SLACK


def test_a_tls_server_that_stops_in_the_middle(probe: Probe, raw: Serve, authority: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.path("server"), authority.path("server-key"))

    def handle(wire: socket.socket) -> None:
        with context.wrap_socket(wire, server_side=True) as encrypted:
            encrypted.recv(65536)
            encrypted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123")
            encrypted.recv(1)  # until it hangs up

    found, seconds = ask(probe, "https", raw(handle))
    assert found.ok is False
    assert "within" in found.text
    assert seconds < LIMIT + SLACK


def test_datagrams_of_rubbish_and_of_strangers(measure: Measure) -> None:
    """A flood of wrong answers to a question of DNS: none of them is ours."""
    with socket.socket(type=socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        wire.settimeout(5)
        over = threading.Event()

        def flood() -> None:
            asked, peer = wire.recvfrom(4096)
            other = bytes([asked[0] ^ 1]) + asked[1:]
            while not over.is_set():
                for data in (b"", b"x", other, bytes(2000)):
                    wire.sendto(data, peer)

        thread = threading.Thread(target=flood)
        thread.start()
        begun = time.monotonic()
        found = measure(
            "dns",
            server=f"127.0.0.1:{wire.getsockname()[1]}",
            query="x.test",
            timeout=f"{LIMIT * 1000:.0f}ms",
        )
        over.set()
        thread.join()
    assert found.ok is False
    assert time.monotonic() - begun < LIMIT + SLACK


def test_threads_that_were_left_behind_do_not_pile_up(probe: Probe, raw: Serve) -> None:
    """A server that is silent for ever costs a bounded number of threads, and they end."""
    port = raw(swallow)
    others = set(threading.enumerate())
    url = f"postgresql://x@127.0.0.1:{port}/x"
    prober = probe("sql", url=url, query="SELECT 1", timeout="30ms")
    for _ in range(15):
        assert prober.measure().ok is False
    now = set(threading.enumerate()) - others
    ours = [each for each in now if each.name.startswith("query ")]
    assert len(ours) < 12  # eight, and those that are just ending
    deadline = time.monotonic() + 20
    while any(each.is_alive() for each in ours):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_path_that_takes_long_on_this_body_ends_at_the_limit(
    measure: Measure, raw: Serve
) -> None:
    body = b"[" + b",".join([b'{"a":' * 20 + b"1" + b"}" * 20] * 8000) + b"]"
    assert len(body) < 1 << 20
    port = raw(lambda wire: wire.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body))
    begun = time.monotonic()
    found = measure(
        "http", url=f"http://127.0.0.1:{port}/", jsonPath="$..a..a", timeout=f"{LIMIT * 1000:.0f}ms"
    )
    assert found.ok is False
    assert time.monotonic() - begun < LIMIT + SLACK
