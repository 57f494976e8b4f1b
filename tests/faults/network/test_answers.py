"""Packets that are answered: what programs on both sides get to see."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable

import pytest
from lanes import HALF, IP_RECVERR, IPV6_RECVERR, Lane, off, on, order, until
from netrig import Net

from faultline.changes.kind import Context
from faultline.changes.model import Presence
from faultline.changes.socket_denied import SocketDenied
from faultline.errors import InvalidParameter, Unsupported
from faultline.injection.injector import Injector
from faultline.kernel import clock, sockdiag

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def error_of(act: Callable[[], object]) -> int:
    """The number of the error that it ends with; 0 if it does not."""
    try:
        act()
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or 0
    return 0


def connecting(lane: Lane, patience: float = 4.0) -> tuple[int, float]:
    """What a connection comes to, and after how many seconds."""
    listener = lane.listener()
    client = lane.sender.socket(lane.family, socket.SOCK_STREAM)
    client.settimeout(patience)
    begun = time.monotonic()
    return error_of(lambda: client.connect(listener.getsockname())), time.monotonic() - begun


def sending(lane: Lane, *, curious: bool = False) -> int:
    """What a program with a connected datagram socket is told of what it sent.

    That a host or network is unreachable is told only to programs that ask for it (ip(7)).
    """
    client = lane.sender.socket(lane.family, socket.SOCK_DGRAM)
    if curious and lane.family == socket.AF_INET:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    elif curious:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    client.settimeout(1.0)
    client.connect((lane.host, 9))

    def twice() -> None:
        client.send(b"x" * 500)
        client.recv(10)

    return error_of(twice)


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_refused(way: Lane, on_way: Injector) -> None:
    """Both lanes of a direction: a SYN that leaves is answered to us, one that arrives to them."""
    with on(on_way, "partition", **way.here | {"direction": way.direction}, look="refused"):
        told, seconds = connecting(way)
        assert told == errno.ECONNREFUSED
        assert seconds < 0.9  # not after a repetition
        assert sending(way) == errno.ECONNREFUSED
    assert connecting(way)[0] == 0


@pytest.mark.parametrize(
    ("look", "told"),
    [
        ("unreachable", errno.EHOSTUNREACH),
        ("network-unreachable", errno.ENETUNREACH),
        ("prohibited", None),
    ],
)
def test_unreachable(few: Lane, on_few: Injector, look: str, told: int | None) -> None:
    if told is None:
        told = errno.EHOSTUNREACH if few.family == socket.AF_INET else errno.EACCES
    with on(on_few, "partition", **few.here, look=look):
        assert sending(few, curious=True) == told
        assert connecting(few)[0] == told


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_a_connection_is_reset_at_its_next_segment(way: Lane, on_way: Injector) -> None:
    client, served = way.connected()
    with on(on_way, "reset", **way.here):
        client.sendall(b"z" * 20000)
        until(lambda: error_of(lambda: client.send(b"z")) in (errno.ECONNRESET, errno.EPIPE))
        assert sending(way) == (errno.ECONNREFUSED)  # by the host itself: nobody has port 9
    served.close()
    again, other = way.connected()
    other.sendall(b"hello")
    assert again.recv(10) == b"hello"


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_idle_connections_end_at_once(way: Lane, on_way: Injector) -> None:
    """At both ends; and one that does not match goes on."""
    with sockdiag.open_socket() as nl:
        if not sockdiag.can_destroy(nl):
            with pytest.raises(Unsupported, match="INET_DIAG_DESTROY"):
                on_way.inject(order("reset", **way.here, idle=True))
            pytest.skip("this kernel does not end connections of others; that is refused")
    client, served = way.connected()
    port = served.getsockname()[1]
    other, kept = way.connected()
    sides = {"destination_port" if way.direction == "out" else "source_port": str(port)}
    with on(on_way, "reset", **way.here | {"direction": "both"}, idle=True, **sides):
        told = {error_of(lambda one=one: one.recv(1)) for one in (client, served)}
        assert told <= {errno.ECONNABORTED, errno.ECONNRESET}
        other.sendall(b"x")
        assert kept.recv(1) == b"x"


def test_a_share_of_the_packets(few: Lane, on_few: Injector) -> None:
    with on(on_few, "loss", **few.here, percent="30%", look="refused", protocol="udp"):
        assert connecting(few)[0] == 0


def test_both_ways_and_over_another_fault(few: Lane, on_few: Injector) -> None:
    """An answer meets no fault of ours on its way back, whichever came first."""
    kept = {"interface": few.device}
    with (
        on(on_few, "partition", **kept, direction="in", source="203.0.113.7"),
        on(on_few, "reset", **kept, direction="both"),
        on(on_few, "partition", **kept, direction="both", destination_port="9"),
    ):
        assert connecting(few)[0] == errno.ECONNREFUSED


def test_nothing_is_answered_to_a_reset_or_to_many(few: Lane, on_few: Injector) -> None:
    """Or two hosts would answer each other for ever."""
    with on(on_few, "partition", interface=few.device, direction="both", look="refused"):
        before = few.receiver.snmp("Tcp:", "OutRsts") if few.family == socket.AF_INET else 0
        threads = [threading.Thread(target=lambda: connecting(few, 1)) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert (few.receiver.snmp("Tcp:", "OutRsts") if before else 0) - before < 20


def test_another_engine_cannot(few: Lane, on_few: Injector) -> None:
    with pytest.raises(Unsupported):
        on_few.inject(order("partition", **few.here, look="refused", engine="packets"))
    record = on_few.inject(order("partition", **few.here, look="loss", engine="packets"))
    off(on_few, record.uid)


@pytest.mark.parametrize("few", ["lo-out-4", "wire-out-4", "wire-out-6"], indirect=True)
def test_denied_where_it_is_asked_for(few: Lane, on_few: Injector) -> None:
    """Before anything is sent; somebody in another network hears nothing of it."""
    where = {"interface": few.device, "destination": few.host, "destination_port": "7000-7100"}
    few.receiver.listen(few.host, 7200)
    with on(on_few, "partition", **where, look="denied") as record:
        with few.sender.socket(few.family, socket.SOCK_STREAM) as client:
            assert error_of(lambda: client.connect((few.host, 7001))) == errno.EPERM
        with few.sender.socket(few.family, socket.SOCK_DGRAM) as client:
            assert error_of(lambda: client.sendto(b"x", (few.host, 7100))) == errno.EPERM
            assert error_of(lambda: client.sendto(b"x", (few.host, 7101))) == 0
        with few.sender.socket(few.family, socket.SOCK_STREAM) as client:
            assert error_of(lambda: client.connect((few.host, 7200))) == 0
        other = Net.make()
        with other.socket(few.family, socket.SOCK_STREAM) as client:
            assert error_of(lambda: client.connect((few.host, 7001))) != errno.EPERM
        other.close()
        assert record.uid in {found.uid for found in SocketDenied().scan(None, ())}
    with few.sender.socket(few.family, socket.SOCK_STREAM) as client:
        assert error_of(lambda: client.connect((few.host, 7001))) == errno.ECONNREFUSED


@pytest.mark.parametrize("few", ["wire-out-4"], indirect=True)
def test_denial_ends_at_its_deadline_with_nobody_left(few: Lane, on_few: Injector) -> None:
    """The programs compare the clock themselves."""
    wanted = order("partition", "1500ms", interface=few.device, look="denied", protocol="tcp")
    plan = on_few.plan(wanted)
    change = plan.changes[-1]
    ctx = Context("test-denied", 0, clock.now() + 700_000_000, few.inside.nl)
    kind = SocketDenied()
    try:
        kind.apply(change.spec, {}, ctx)
        listener = few.listener()

        def asked() -> int:
            with few.sender.socket(few.family, socket.SOCK_STREAM) as client:
                return error_of(lambda: client.connect(listener.getsockname()))

        assert asked() == errno.EPERM
        until(lambda: asked() == 0)
        assert clock.now() > ctx.deadline
        assert kind.presence(change.spec, {}, {}, ctx) is Presence.OURS
    finally:
        kind.undo(change.spec, {}, {}, ctx)
    assert kind.presence(change.spec, {}, {}, ctx) is Presence.ABSENT


def test_what_cannot_be_denied(few: Lane, on_few: Injector) -> None:
    for wrong in ({"source": few.host}, {"direction": "in"}, {"tcp_flags": "syn"}):
        with pytest.raises(InvalidParameter):
            on_few.inject(order("partition", interface=few.device, look="denied", **wrong))
