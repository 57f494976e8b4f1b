"""The service of the demo is a real one."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import sysconfig
from pathlib import Path
from urllib.parse import urlsplit

import pytest


def ask(url: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_hashes_the_file_that_was_asked_for(service: tuple[str, int]) -> None:
    status, body = ask(service[0], "/work/argparse")
    data = (Path(sysconfig.get_paths()["stdlib"]) / "argparse.py").read_bytes()
    assert status == 200
    told = json.loads(body)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert told["bytes"] == len(data)


def test_work_goes_from_file_to_file(service: tuple[str, int]) -> None:
    names = {json.loads(ask(service[0], "/work")[1])["file"] for _ in range(5)}
    assert len(names) == 5


def test_health_counts_what_was_served(service: tuple[str, int]) -> None:
    first, second = (json.loads(ask(service[0], "/health")[1]) for _ in range(2))
    assert second["served"] == first["served"] + 1
    assert first["status"] == "ok"


@pytest.mark.parametrize(
    "path", ["/work/../../etc/passwd", "/nothing", "/work/os.py/../x", "/work/"]
)
def test_no_path_of_a_request_is_opened(service: tuple[str, int], path: str) -> None:
    assert ask(service[0], path)[0] == 404


def test_a_post_is_refused_and_head_has_no_body(service: tuple[str, int]) -> None:
    assert ask(service[0], "/work", "POST")[0] == 405
    assert ask(service[0], "/health", "HEAD") == (200, b"")


def test_one_connection_carries_many_requests(service: tuple[str, int]) -> None:
    connection = http.client.HTTPConnection(urlsplit(service[0]).netloc, timeout=10)
    connection.connect()
    wire = connection.sock
    for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        assert connection.sock is wire
    connection.close()


@pytest.mark.parametrize(
    "data",
    [b"hello\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n"],
)
def test_nonsense_is_answered_with_400(service: tuple[str, int], data: bytes) -> None:
    where = urlsplit(service[0])
    with socket.create_connection((where.hostname, where.port), timeout=10) as wire:
        wire.sendall(data)
        assert wire.recv(64).startswith(b"HTTP/1.1 400")
