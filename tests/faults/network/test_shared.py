"""Places that share the network of the host: their packets are hit, and nobody else's."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lanes import connects, off, order, until
from netrig import Net, Wire

from faultline.changes.model import End
from faultline.errors import Refused, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, netns
from faultline.places.find import Target

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]

PROGRAM = r"""
import json, os, socket, sys, time
server = socket.socket(socket.AF_INET6)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("::", 7001)); server.listen(8)
kept = socket.create_connection(("127.0.0.1", 7001)); held, _ = server.accept()

def connect(host, port):
    made = socket.create_connection((host, port), timeout=0.5); made.close(); return True

def speak(one, other):
    one.send(b"x"); other.settimeout(0.5); return other.recv(1) == b"x"

def ask(what, *words):
    if what == "connect": return connect(*words)
    if what == "child":
        pid = os.fork()
        if not pid:
            try: connect(*words)
            except OSError: os._exit(1)
            os._exit(0)
        return os.waitpid(pid, 0)[1] == 0
    if what == "kept": return speak(kept, held) and speak(held, kept)
    if what == "why":
        try: connect(*words)
        except OSError as error: return error.errno
    if what == "timed":
        begun = time.perf_counter(); connect(*words); return (time.perf_counter() - begun) * 1e3

print("ready", flush=True)
for line in sys.stdin:
    try: told = ask(*json.loads(line))
    except OSError: told = False
    print(json.dumps(told), flush=True)
"""


class Program:
    """A process in a network namespace that others are in as well."""

    def __init__(self, net: Net) -> None:
        with netns.entered(net.fd):
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *words: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    @property
    def group(self) -> str:
        return cgroup.layout().unified().path_of(self.process.pid)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def program(wire: Wire) -> Iterator[Program]:
    made = Program(wire.here)
    yield made
    made.close()


def at(program: Program, fault: str, **params: Any) -> Order:
    plain = order(fault, **params)
    return Order(plain.fault, plain.params, plain.duration, target=Target(pid=program.process.pid))


@contextmanager
def on(injector: Injector, ordered: Order) -> Iterator[None]:
    record = injector.inject(ordered)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, (reading.measured, reading.reason)
    yield
    off(injector, record.uid)


@pytest.mark.parametrize("version", [4, 6])
def test_only_what_the_process_sends_and_gets(
    wire: Wire, injector: Injector, program: Program, version: int
) -> None:
    here, there = (wire.here4, wire.there4) if version == 4 else (wire.here6, wire.there6)
    wire.there.listen(there, 7002)
    wire.there.listen("::", 7003)
    before = program.group
    with on(injector, at(program, "partition", interface="v0")):
        assert not program("connect", there, 7002)
        assert not program("child", there, 7002)
        assert connects(wire.here, wire.there, there, 7004)
        assert not reaches(wire.there, here, 7001)  # its listener, which was there before
        assert connects(wire.there, wire.here, here, 7005)
        assert program.group != before
    assert program.group == before
    assert program("connect", there, 7002)
    assert program("child", there, 7002)
    assert reaches(wire.there, here, 7001)


def reaches(net: Net, host: str, port: int) -> bool:
    with netns.entered(net.fd):
        try:
            socket.create_connection((host, port), timeout=0.5).close()
        except OSError:
            return False
        return True


def test_on_the_loopback_device(wire: Wire, injector: Injector, program: Program) -> None:
    with on(injector, at(program, "partition", interface="lo")):
        assert not program("kept")  # a connection that was there before
        assert not program("connect", "127.0.0.1", 7001)
        assert not reaches(wire.here, "127.0.0.1", 7001)
        assert connects(wire.here, wire.here, "127.0.0.1", 7006)
    assert program("connect", "127.0.0.1", 7001)


@pytest.mark.parametrize("direction", ["out", "in", "both"])
def test_packets_wait(wire: Wire, injector: Injector, program: Program, direction: str) -> None:
    wire.there.listen(wire.there6, 7002)
    waits = 240 if direction == "both" else 120
    with on(injector, at(program, "delay", interface="v0", latency="120ms", direction=direction)):
        assert program("timed", wire.there6, 7002) > waits - 5
        assert connects(wire.here, wire.there, wire.there6, 7004, patience=0.1)
    assert program("timed", wire.there6, 7002) < 100


def test_what_the_process_asks_for_is_denied(
    wire: Wire, injector: Injector, program: Program
) -> None:
    wire.there.listen(wire.there4, 7002)
    before = program.group
    record = injector.inject(at(program, "partition", interface="v0", look="denied"))
    assert injector.observe(record.uid).effect is Effect.UNMEASURED
    assert program("why", wire.there4, 7002) == errno.EPERM
    assert connects(wire.here, wire.there, wire.there4, 7004)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    off(injector, record.uid)
    assert program.group == before
    assert program("connect", wire.there4, 7002)


def test_with_its_end_everything_of_the_fault_goes(
    wire: Wire, injector: Injector, program: Program
) -> None:
    record = injector.inject(at(program, "loss", interface="v0", percent="50%"))
    program.close()
    until(lambda: injector.get(record.uid).end is not None)
    assert injector.get(record.uid).end is End.GONE
    assert injector.residue(record.uid) == []
    assert not cgroup.layout().find_marked(f"{cgroup.MARK}{record.uid}")


def test_behind_what_holds_packets_nobody_knows_whose_they_are(
    wire: Wire, injector: Injector, program: Program
) -> None:
    record = injector.inject(order("delay", interface="v0", latency="20ms"))
    with pytest.raises(Unsupported, match="holds packets"):
        injector.inject(at(program, "loss", interface="v0", percent="10%"))
    off(injector, record.uid)
    with on(injector, at(program, "loss", interface="v0", percent="10%")):
        off(injector, injector.inject(order("delay", interface="v0", latency="20ms")).uid)


def test_a_group_of_its_own(wire: Wire, injector: Injector, program: Program) -> None:
    """Nobody is moved where the group is the place's alone; what it starts there is hit too."""
    tree = cgroup.layout().unified()
    home = cgroup.Group(tree.hierarchy, program.group)
    own = home.child(f"test-{program.process.pid}")
    own.create()
    try:
        own.add(program.process.pid)
        wire.there.listen(wire.there4, 7002)
        plain = at(program, "loss", interface="v0", percent="100%")
        ordered = Order(plain.fault, plain.params, plain.duration, target=Target(cgroup=own.path))
        with on(injector, ordered):
            assert program.group == own.path
            assert not program("connect", wire.there4, 7002)
            assert connects(wire.here, wire.there, wire.there4, 7004)
        assert program("connect", wire.there4, 7002)
    finally:
        own.evacuate(home)
        own.remove()


def test_a_listener_that_others_hold_too(wire: Wire, injector: Injector) -> None:
    listener = wire.here.listen(wire.here4, 7010)
    listener.set_inheritable(True)
    with netns.entered(wire.here.fd):
        child = subprocess.Popen(["sleep", "60"], pass_fds=[listener.fileno()])
    try:
        plain = order("loss", interface="v0", percent="10%")
        target = Target(pid=child.pid)
        with pytest.raises(Unsupported, match="7010"):
            injector.inject(Order(plain.fault, plain.params, plain.duration, target=target))
    finally:
        child.kill()
        child.wait()


def test_a_device_is_everybodys(injector: Injector, program: Program) -> None:
    with pytest.raises(Unsupported, match="shares the network"):
        injector.inject(at(program, "down", interface="v0"))


def test_a_port_of_somebody_else_is_not_taken(injector: Injector, program: Program) -> None:
    """By force only from the place itself."""
    with socket.create_server(("127.0.0.1", 7020)), pytest.raises(Refused, match="not by"):
        injector.inject(at(program, "occupy", port=7020, force=True))
