"""A port that is taken, as the program that needs it finds it."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lanes import off, on, order, until
from netrig import Wire

from faultline.errors import Conflict, Refused
from faultline.injection.injector import Injector
from faultline.kernel import procnet

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
SERVER = (
    "import socket, sys, time\n"
    "s = socket.create_server(('', int(sys.argv[1])), family=10, dualstack_ipv6=True)\n"
    "print(flush=True)\n"
    "while True:\n"
    "    c, _ = s.accept()\n"
    "    c.sendall(b'hello')\n"
    "    c.close()\n"
)

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def binds(wire: Wire, host: str, port: int, protocol: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = wire.here.socket(family, KINDS[protocol])
    try:
        one.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    else:
        return True
    finally:
        wire.here.opened.remove(one)
        one.close()


@contextmanager
def server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("protocol", KINDS)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "::1", "10.77.0.1", "fd77::1"])
def test_no_program_can_bind_the_port_until_it_is_free_again(
    wire: Wire, injector: Injector, protocol: str, host: str
) -> None:
    with on(injector, "occupy", port=4321, protocol=protocol):
        assert not binds(wire, host, 4321, protocol)
        assert binds(wire, host, 4322, protocol)
        assert binds(wire, host, 4321, "udp" if protocol == "tcp" else "tcp")
    assert binds(wire, host, 4321, protocol)


def test_one_address_is_taken_and_no_other(wire: Wire, injector: Injector) -> None:
    with on(injector, "occupy", port=4321, address="10.77.0.1"):
        assert not binds(wire, "10.77.0.1", 4321, "tcp")
        assert binds(wire, "127.0.0.1", 4321, "tcp")
        assert binds(wire, "fd77::1", 4321, "tcp")


def test_a_client_hears_nothing(wire: Wire, injector: Injector) -> None:
    with on(injector, "occupy", port=4321):
        client = wire.there.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect((wire.here4, 4321))
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
    client = wire.there.socket(socket.AF_INET, socket.SOCK_STREAM)
    with pytest.raises(ConnectionRefusedError):
        client.connect((wire.here4, 4321))


def test_a_port_in_use_is_refused_with_its_holder(wire: Wire, injector: Injector) -> None:
    with server(4321) as process:
        with pytest.raises(Refused, match=f"pid {process.pid}"):
            injector.inject(order("occupy", port=4321))
        assert process.poll() is None


def test_force_ends_the_holder_and_restart_brings_it_back(
    wire: Wire, injector: Injector, tmp_path: Path
) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    again = [sys.executable, str(script), "4321"]
    with server(4321) as process:
        record = injector.inject(
            order("occupy", port=4321, force=True, restart=again, patience="1s")
        )
        assert process.wait(5) == -9
        assert not binds(wire, "0.0.0.0", 4321, "tcp")
        off(injector, record.uid)

    def answers() -> bool:
        client = wire.there.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            client.connect((wire.here4, 4321))
        except ConnectionRefusedError:
            return False
        return client.recv(16) == b"hello"

    until(answers)
    for holder in procnet.find_by_port(4321):
        holder.id.send(9)
        holder.id.wait(5)


def test_two_faults_for_one_port_do_not_meet(wire: Wire, injector: Injector) -> None:
    with on(injector, "occupy", port=4321) as record:
        for force in (False, True):
            with pytest.raises(Conflict) as refused:
                injector.inject(order("occupy", port=4321, force=force))
            assert refused.value.holder == record.uid
