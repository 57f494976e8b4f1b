"""A held port: nobody else can bind it, in either family."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from faultline.kernel import procnet

pytestmark = pytest.mark.both_kernels
Start = Callable[..., Any]
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def _free_port(transport: str) -> int:
    with socket.socket(socket.AF_INET6, KINDS[transport]) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _bind(transport: str, family: socket.AddressFamily, port: int, reuse: bool) -> int:
    """What a server that starts now gets: 0 or the errno."""
    with socket.socket(family, KINDS[transport]) as server:
        if reuse:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            server.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
            if transport == "tcp":
                server.listen()
        except OSError as error:
            return error.errno or -1
    return 0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("reuse", [False, True])
def test_nobody_else_can_bind_a_held_port(
    worker: Start, transport: str, family: socket.AddressFamily, reuse: bool
) -> None:
    port = _free_port(transport)
    run = worker("occupy", {"port": port, "transport": transport})
    assert len(run.ready["sockets"]) == 2
    assert _bind(transport, family, port, reuse) == errno.EADDRINUSE
    holders = procnet.find_by_port(port, procnet.Transport(transport))
    assert [each.pid for each in holders] == [each.pid for each in run.processes()]
    run.end()
    assert run.wait_gone()
    assert _bind(transport, family, port, reuse) == 0


@pytest.mark.parametrize("family", [4, 6])
def test_one_family_alone_leaves_the_other(worker: Start, family: int) -> None:
    port = _free_port("tcp")
    run = worker("occupy", {"port": port, "transport": "tcp", "families": [family]})
    assert len(run.ready["sockets"]) == 1
    held, other = socket.AF_INET, socket.AF_INET6
    if family == 6:
        held, other = other, held
    assert _bind("tcp", held, port, reuse=True) == errno.EADDRINUSE
    assert _bind("tcp", other, port, reuse=True) == 0


def test_a_port_that_somebody_has_is_refused_with_his_name(worker: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = worker("occupy", {"port": port, "transport": "tcp"})
        assert run.answer["error"].startswith(f"Conflict: tcp port {port} is held by")
        assert "pid" in run.answer["error"]
    assert run.wait_gone()


def test_a_client_of_a_held_port_connects_and_hears_nothing(worker: Start) -> None:
    port = _free_port("tcp")
    run = worker("occupy", {"port": port, "transport": "tcp"})
    assert run.ready
    with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
