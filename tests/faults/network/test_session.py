"""The caller's own way in stays open whatever is cut."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from lanes import connects, off, order, passes, speaks
from netrig import Wire

from faultline.changes import keepers
from faultline.injection.injector import Injector

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]

Pair = tuple[socket.socket, socket.socket]
PORT = 2222


def comers(wire: Wire, family: int) -> tuple[Pair, Pair]:
    """Two connections from over the wire that a program here has accepted."""
    here = wire.here4 if family == 4 else wire.here6
    listener = wire.here.listen(here, PORT)
    found: list[Pair] = []
    for _ in range(2):
        client = wire.there.socket(listener.family, socket.SOCK_STREAM)
        client.connect((here, PORT))
        served, _ = listener.accept()
        wire.here.opened.append(served)
        found.append((client, served))
    assert all(speaks(*pair, 5) for pair in found)
    return found[0], found[1]


def only_the_first(injector: Injector, wire: Wire, mine: Pair, other: Pair, **how: str) -> None:
    """Cut everything: the first connection is named by the plan and lives on, nothing else does."""
    address, port = mine[0].getsockname()[:2]
    plan = injector.plan(order("partition", interface="v0", **how))
    assert any(f"from {address} port {port} " in one for one in plan.exempt or ())
    record = injector.carry_out(plan)
    for _ in range(3):
        assert speaks(*mine, 5)
    assert not speaks(*other)
    assert not connects(wire.there, wire.here, wire.here4, 4000)
    assert not passes(wire.there, wire.here, wire.here6, 4000)
    off(injector, record.uid)
    other[0].settimeout(20)
    assert speaks(*other, 20)


@pytest.mark.parametrize("family", [4, 6])
def test_the_connection_of_ssh_lives_on(
    wire: Wire, injector: Injector, monkeypatch: pytest.MonkeyPatch, family: int
) -> None:
    mine, other = comers(wire, family)
    client, server = mine[0].getsockname(), mine[0].getpeername()
    words = f"{client[0]} {client[1]} {server[0]} {server[1]}"
    monkeypatch.setenv("SSH_CONNECTION", words)
    only_the_first(injector, wire, mine, other)


@pytest.mark.parametrize(
    ("fault", "params"),
    [("loss", {"percent": "100%"}), ("delay", {"latency": "2s"}), ("limit", {"rate": "8kbit"})],
)
@pytest.mark.parametrize("direction", ["out", "in"])
def test_no_other_fault_holds_it_up_either(
    wire: Wire,
    injector: Injector,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    params: dict[str, str],
    direction: str,
) -> None:
    mine, other = comers(wire, 4)
    client, server = mine[0].getsockname(), mine[0].getpeername()
    monkeypatch.setenv("SSH_CONNECTION", f"{client[0]} {client[1]} {server[0]} {server[1]}")
    record = injector.inject(order(fault, interface="v0", direction=direction, **params))
    for _ in range(20):
        assert speaks(*mine, 2)
    if fault != "limit":
        assert not speaks(*other)
    off(injector, record.uid)


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_that_an_ancestor_accepted_lives_on(
    wire: Wire, injector: Injector, tmp_path: Path, family: int
) -> None:
    """As telnet, a container's shell or a terminal in a browser: no variable tells of it."""
    mine, other = comers(wire, family)

    def child() -> None:
        with ExitStack() as stack:
            one = stack.enter_context(Injector(tmp_path / "store"))
            stack.callback(keepers.retire, one.store)
            stack.callback(one.recover_all)
            only_the_first(one, wire, mine, other)

    wire.here.opened.remove(other[1])
    _forked(child, other[1])


def _forked(act: Callable[[], None], not_ours: socket.socket) -> None:
    """In a child, whose parent lets go of `not_ours` so that it is no session of an ancestor's."""
    read, write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = b""
        try:
            os.read(go_read, 1)
            act()
        except BaseException:  # noqa: BLE001 - told by the parent
            told = traceback.format_exc().encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.close(write)
    not_ours.close()
    os.write(go_write, b"x")
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(pid, 0)
    for fd in (go_read, go_write):
        os.close(fd)
    assert not told, told
