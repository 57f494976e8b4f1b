"""Packets that are answered: what programs on both sides get to see."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable

import pytest
from lanes import IP_RECVERR, IPV6_RECVERR, Lane, off, on, order, until

from faultline.errors import Unsupported
from faultline.injection.injector import Injector

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
