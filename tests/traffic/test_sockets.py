"""TCP and UDP against real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.traffic.harness import turns, users
from tests.traffic.servers import free_port


class Loop:
    """An event loop in a thread, for servers."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.open: list[Any] = []  # servers and transports
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self) -> None:
        async def cancel() -> None:
            for each in self.open:
                each.close()
            await asyncio.sleep(0.01)  # what was just accepted begins, else nobody closes it
            others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0.01)  # what was aborted is closed

        self.run(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.stop()


class Service:
    """Answers lines by their first word, and counts its connections."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def start(self, loop: Loop) -> None:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        loop.open.append(server)
        self.port = server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                if line.startswith(b"bye"):
                    break
                if line.startswith(b"mute"):
                    continue
                writer.write(b"half an answer")
                await asyncio.sleep(0.01)
                writer.write(b" to " + line)
        writer.transport.abort()


@pytest.fixture
def service(loop: Loop) -> Service:
    found = Service()
    loop.run(found.start(loop))
    return found


def tcp(port: int, **fields: Any) -> dict[str, Any]:
    return {"type": "tcp", "host": "127.0.0.1", "port": port, **fields}


def test_an_answer_is_complete_by_its_pattern_or_its_length(service: Service) -> None:
    for end in ({"pattern": r"to number \d+\n"}, {"length": len("half an answer to number 0\n")}):
        tick = turns(tcp(service.port, payload="number {{number}}\n", **end))
        assert (tick.sent, tick.ok, tick.errors) == (5, 5, {})


def test_connections_are_kept_and_bounded(service: Service) -> None:
    given = tcp(service.port, payload="x\n", pattern="x\n")
    turns(given, apart=True)
    assert service.connections == 1
    turns({**given, "connections": 2})
    assert service.connections == 3
    turns({**given, "keepAlive": False}, apart=True)
    assert service.connections == 8


def test_users_take_turns(service: Service) -> None:
    tick = users({**tcp(service.port, payload="x\n", pattern="x\n"), "concurrency": 3}, 0.2)
    assert tick.ok == tick.sent >= 6
    assert service.connections == 3


def test_how_tcp_fails_has_a_name(service: Service) -> None:
    cases = [
        (tcp(free_port(), payload="x"), "refused"),
        (tcp(service.port, payload="bye\n", pattern="never"), "cut off"),
        (tcp(service.port, payload="mute\n", pattern="x", timeout="100ms"), "timeout"),
        ({**tcp(1), "host": "no-such-host.invalid", "timeout": "3s"}, "name not found"),
        (tcp(service.port, payload="hello", tls=True), "tls"),
    ]
    for data, kind in cases:
        tick = turns(data, 1)
        assert tick.errors == {kind: 1}, data
        assert (tick.ok, bool(tick.latency)) == (0, kind == "timeout")


def test_bytes_are_sent_as_they_are_written(loop: Loop) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(3))
        writer.write(b"ok")
        await writer.drain()
        await reader.read()
        writer.close()

    async def start() -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        loop.open.append(server)
        return server.sockets[0].getsockname()[1]

    port = loop.run(start())
    turns(tcp(port, payload="00ff41", encoding="hex", length=2), 1)
    turns(tcp(port, payload="AP9B", encoding="base64", length=2), 1)
    assert seen == [b"\x00\xffA"] * 2


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not data.startswith(b"mute"):
            self.transport.sendto(b"echo " + data, addr)


@pytest.fixture
def udp(loop: Loop) -> Callable[..., dict[str, Any]]:
    async def start() -> int:
        transport, _ = await loop.loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        loop.open.append(transport)
        return transport.get_extra_info("sockname")[1]

    port = loop.run(start())
    return lambda **fields: {"type": "udp", "host": "127.0.0.1", "port": port, **fields}


def test_every_datagram_has_its_own_answer(udp: Callable[..., dict[str, Any]]) -> None:
    tick = turns(udp(payload="{{number}}", pattern=r"^echo \d+$"), 20)
    assert (tick.sent, tick.ok) == (20, 20)


def test_how_udp_fails_has_a_name(udp: Callable[..., dict[str, Any]]) -> None:
    cases = [
        (udp(payload="mute", timeout="100ms"), "timeout"),
        (udp(payload="a", pattern="^b"), "other answer"),
        (udp(payload="a", length=3), "other length"),
        ({**udp(payload="a"), "port": free_port()}, "refused"),
    ]
    for data, kind in cases:
        assert turns(data, 1).errors == {kind: 1}, data
    sent = turns(udp(payload="mute", answer=False), 3)
    assert (sent.ok, sent.errors) == (3, {})


def test_a_bound_of_open_requests_is_told_as_our_own(service: Service) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        data = tcp(deaf.getsockname()[1], payload="x", length=1, timeout="200ms", connections=1)
        assert turns(data, 3).errors == {"timeout": 3}
