"""redis, grpc and udp against real servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faultline.api.probe import Measurement

Measure = Callable[..., Measurement]


@pytest.fixture
def ask(
    measure: Measure, redis_server: int, password: dict[str, str]
) -> Callable[..., Measurement]:
    return lambda *command, **fields: measure(
        "redis", **{"port": redis_server, "password": password, "command": list(command), **fields}
    )


def test_redis_gives_numbers_texts_and_lengths(ask: Callable[..., Measurement]) -> None:
    assert ask("DEL", "list", "text").ok is True
    assert ask("RPUSH", "list", "a", "b", "c").value == 3
    assert ask("LLEN", "list").value == 3
    found = ask("LRANGE", "list", 0, -1)
    assert (found.value, found.result["reply"], found.text) == (3, ["a", "b", "c"], "3 elements")
    assert ask("SET", "text", "12.5").result["reply"] == "OK"
    assert ask("GET", "text").value == 12.5
    assert ask("SET", "text", "some words").ok is True
    assert ask("GET", "text").value == 10
    assert ask("GET", "text", db=1).result["reply"] is None
    assert ask("INFO", "server").value is not None


def test_nothing_is_no_value(ask: Callable[..., Measurement]) -> None:
    found = ask("GET", "no such key")
    assert (found.ok, found.value, found.result["reply"]) == (True, None, None)


def test_what_redis_refuses_is_unmeasured(
    ask: Callable[..., Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    for found in (ask("NOCOMMAND"), ask("LLEN"), ask("GET", "text", password=None)):
        assert found.ok is None
    monkeypatch.setenv("WRONG", "quite wrong")
    found = ask("PING", password={"env": "WRONG"})
    assert found.ok is None
    assert "AUTH" in found.text
    assert "quite wrong" not in found.text


def test_an_answer_that_is_too_large_is_not_kept(ask: Callable[..., Measurement]) -> None:
    assert ask("SETRANGE", "large", 3 << 20, "x").ok is True
    found = ask("GET", "large")
    assert found.ok is None
    assert "more than" in found.text
    assert ask("DEL", "large").value == 1


def test_no_redis_is_the_service_failing(measure: Measure, closed_port: int) -> None:
    assert measure("redis", port=closed_port, command=["PING"]).ok is False
    assert measure("redis", host="/no/such.sock", command=["PING"]).ok is False


@pytest.mark.parametrize(
    ("service", "ok", "said"),
    [
        ("", True, "the server: SERVING"),
        ("shop.Orders", True, "SERVING"),
        ("shop.Cart", False, "NOT_SERVING"),
        ("shop.Unknown", False, "knows no service"),
    ],
)
def test_grpc_tells_of_its_health(
    measure: Measure, health: Callable[[str], int], service: str, ok: bool, said: str
) -> None:
    found = measure("grpc", host="127.0.0.1", port=health("plain"), service=service)
    assert found.ok is ok, found.text
    assert said in found.text
    if ok:
        assert found.value is not None
        assert found.value > 0


def test_grpc_over_tls(measure: Measure, health: Callable[[str], int], authority: Any) -> None:
    fields = {"host": "127.0.0.1", "port": health("tls"), "tls": True}
    trusted = measure("grpc", **fields, ca=authority.path("ca"), serverName="shop.test")
    assert trusted.ok is True, trusted.text
    assert measure("grpc", **fields).ok is False
    assert measure("grpc", **fields, ca=authority.path("ca"), serverName="no.test").ok is False
    assert measure("grpc", **fields, ca="/nowhere").ok is None


def test_a_grpc_server_that_does_not_tell_is_unmeasured(
    measure: Measure, health: Callable[[str], int], closed_port: int
) -> None:
    found = measure("grpc", host="127.0.0.1", port=health("bare"))
    assert found.ok is None
    assert "grpc.health.v1" in found.text
    assert measure("grpc", host="127.0.0.1", port=closed_port).ok is False


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers each datagram with its upper case."""
    with socket.socket(type=socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))

        def serve() -> None:
            while (got := wire.recvfrom(65535))[0] != b"stop":
                wire.sendto(got[0].upper(), got[1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield wire.getsockname()[1]
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(b"stop", wire.getsockname())
        thread.join()


def test_udp_waits_for_the_answer(measure: Measure, echo: int, closed_port: int) -> None:
    found = measure("udp", host="127.0.0.1", port=echo, payload="hello", pattern="^HELLO$")
    assert (found.ok, found.result["answer"]) == (True, "HELLO")
    assert found.value is not None
    coded = measure("udp", host="127.0.0.1", port=echo, payload="61ff00", encoding="hex")
    assert coded.result["hex"] == "41ff00"
    assert measure("udp", host="127.0.0.1", port=echo, payload="a", pattern="b").ok is False
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        late = measure("udp", host="127.0.0.1", port=port, payload="a", timeout="150ms")
    assert late.ok is False
    assert "within 0.15 s" in late.text
    gone = measure("udp", host="127.0.0.1", port=port, payload="a")
    assert gone.ok is False
    assert "refused" in gone.text
