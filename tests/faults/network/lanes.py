"""Traffic for the network faults: a lane from a sender to a receiver that passes one device."""

from __future__ import annotations

import random
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from netrig import Net, Wire

from faultline.changes.model import End, Record
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.units import Duration

IP_RECVERR, IPV6_RECVERR, SO_SNDBUFFORCE = 11, 25, 32
_INFO = struct.Struct("=8B24I")  # the beginning of struct tcp_info (linux/tcp.h)
HALF = ("lo-out-4", "lo-in-6", "wire-out-6", "wire-in-4")
PATTERN = random.Random(7).randbytes(1 << 16)


@dataclass(frozen=True)
class Lane:
    """Packets from `sender` to `host`, an address of `receiver`; they pass `device` on the way."""

    sender: Net
    receiver: Net
    origin: str
    host: str
    device: str
    direction: str
    inside: Net  # where the device is, and who injects the fault

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def here(self) -> dict[str, str]:
        """The parameters that put a fault on this lane."""
        return {"interface": self.device, "direction": self.direction}

    def deaf(self, sender: socket.socket) -> None:
        """Do not tell the sender of errors: netem flips bits of headers too, which routers mind."""
        level = socket.IPPROTO_IPV6 if self.family == socket.AF_INET6 else socket.IPPROTO_IP
        sender.setsockopt(level, IPV6_RECVERR if level == socket.IPPROTO_IPV6 else IP_RECVERR, 0)

    def udp(self, host: str = "", port: int = 0) -> tuple[socket.socket, socket.socket]:
        """A sender that hears of every error, and a receiver, which have met already."""
        receiver = self.receiver.udp(host or self.host, port)
        sender = self.sender.udp(self.origin)
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20)
        level = socket.IPPROTO_IPV6 if self.family == socket.AF_INET6 else socket.IPPROTO_IP
        sender.setsockopt(level, IPV6_RECVERR if level == socket.IPPROTO_IPV6 else IP_RECVERR, 1)
        until(lambda: sender.sendto(b"hello", receiver.getsockname()) and drain(receiver, 0.03))
        return sender, receiver

    def listener(self) -> socket.socket:
        return self.receiver.listen(self.host)

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a TCP connection, the one that sends first."""
        listener = self.listener()
        client = self.sender.socket(self.family, socket.SOCK_STREAM)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(20)
        listener.settimeout(20)  # the last step of the handshake may be lost several times
        client.connect(listener.getsockname())
        served, _ = listener.accept()
        served.settimeout(20)
        self.receiver.opened.append(served)
        return client, served

    def wrong_checksums(self) -> int:
        """Datagrams that the receiver threw away because their checksum was wrong."""
        if self.family == socket.AF_INET6:
            return self.receiver.snmp("", "Udp6InCsumErrors")
        return self.receiver.snmp("Udp:", "InCsumErrors")

    def repeated(self) -> int:
        """TCP segments that the sender sent again."""
        return self.sender.snmp("Tcp:", "RetransSegs")


def lane(kind: str, family: int) -> tuple[Lane, list[Net]]:
    """`lo-out`, `lo-in`, `wire-out` or `wire-in`, and the namespaces to close."""
    medium, direction = kind.split("-")
    if medium == "lo":
        net, host = Net.make(), "127.0.0.1" if family == 4 else "::1"
        return Lane(net, net, host, host, "lo", direction, net), [net]
    wire = Wire.make()
    hosts = (wire.here4, wire.there4) if family == 4 else (wire.here6, wire.there6)
    ends = [(wire.here, hosts[0]), (wire.there, hosts[1])]
    (sender, origin), (receiver, host) = ends if direction == "out" else ends[::-1]
    made = Lane(sender, receiver, origin, host, "v0", direction, wire.here)
    return made, [wire.here, wire.there]


# --------------------------------------------------------------------------------------- faults


def order(fault: str, duration: str = "60s", allow: tuple[str, ...] = (), **params: Any) -> Order:
    return Order(f"network.{fault}", params, Duration.parse(duration), allow=frozenset(allow))


@contextmanager
def on(injector: Injector, fault: str, **params: Any) -> Iterator[Record]:
    """The fault for the block; effective by its own account, and gone afterwards."""
    record = injector.inject(order(fault, **params))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, (reading.measured, reading.reason)
    yield record
    off(injector, record.uid)


def off(injector: Injector, uid: str) -> None:
    ended = injector.recover(uid)
    assert ended.end is End.RECOVERED, ended
    assert injector.residue(uid) == []


def until(condition: Callable[[], object], patience: float = 15.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


# -------------------------------------------------------------------------------------- traffic


def datagram(number: int, size: int) -> bytes:
    """A numbered payload whose every byte is known."""
    return number.to_bytes(4, "big") + PATTERN[number % 1000 : number % 1000 + size - 4]


def drain(receiver: socket.socket, quiet: float = 0.1) -> list[tuple[float, bytes]]:
    """What arrives, with its time, until it has been quiet for a while (seconds)."""
    found: list[tuple[float, bytes]] = []
    receiver.settimeout(quiet)
    while True:
        try:
            data = receiver.recv(70000)
        except TimeoutError:
            return found
        found.append((time.perf_counter(), data))


def send(sender: socket.socket, receiver: socket.socket, count: int, size: int = 64) -> list[bytes]:
    """Send numbered datagrams, none of which may fail, and return the payloads that arrive."""
    for number in range(count):
        assert sender.sendto(datagram(number, size), receiver.getsockname()) == size
    found = [data for _, data in drain(receiver)]
    no_errors(sender)
    return found


def no_errors(sender: socket.socket) -> None:
    """The kernel has nothing to tell the sender: what is lost, is lost without a word."""
    assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    sender.setblocking(False)
    try:
        told = sender.recvmsg(64, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return
    finally:
        sender.settimeout(5)
    raise AssertionError(f"the sender was told of an error: {told}")


def numbers(payloads: list[bytes]) -> list[int]:
    return [int.from_bytes(data[:4], "big") for data in payloads]


def trips(sender: socket.socket, receiver: socket.socket, count: int = 9) -> list[float]:
    """Milliseconds from send to arrival, one datagram after the other."""
    receiver.settimeout(5)
    found: list[float] = []
    for number in range(count):
        begun = time.perf_counter()
        sender.sendto(datagram(number, 64), receiver.getsockname())
        receiver.recv(64)
        found.append((time.perf_counter() - begun) * 1e3)
    return found


def middle_trip(sender: socket.socket, receiver: socket.socket, count: int = 9) -> float:
    return statistics.median(trips(sender, receiver, count))


@dataclass
class Stream:
    """What one TCP transfer was like."""

    seconds: float = 0.0
    in_flight: int = 0  # most bytes sent and not acknowledged at a time
    shortest: float = 0.0  # seconds, the least round trip that TCP saw
    intact: bool = False


def stream(lane: Lane, size: int) -> Stream:
    """Send bytes over a connection and compare what arrives with what was sent."""
    client, served = lane.connected()
    block = PATTERN * 4
    sent = memoryview(block * (size // len(block) + 1))[:size]
    got = bytearray()

    def receive() -> None:
        while data := served.recv(1 << 18):
            got.extend(data)

    reader = threading.Thread(target=receive)
    reader.start()
    client.settimeout(60)
    seen, at, begun = Stream(), 0, time.perf_counter()
    while at < size:
        at += client.send(sent[at : at + (1 << 16)])
        _look(client, seen)
    client.shutdown(socket.SHUT_WR)
    while reader.is_alive():
        _look(client, seen)
        reader.join(0.005)
    seen.seconds = time.perf_counter() - begun
    seen.intact = got == sent
    client.close()
    return seen


def _look(client: socket.socket, seen: Stream) -> None:
    raw = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    words = _INFO.unpack_from(raw)[8:]
    segment, unacknowledged = words[2], words[4]
    seen.in_flight = max(seen.in_flight, segment * unacknowledged)
    seen.shortest = struct.unpack_from("=I", raw, 148)[0] / 1e6  # tcpi_min_rtt


def passes(net: Net, to: Net, host: str, port: int, origin: str = "") -> bool:
    """Whether a datagram from one namespace reaches an address and port in another."""
    sender, receiver = net.udp(origin or ("::" if ":" in host else "0.0.0.0")), to.udp(host, port)
    try:
        for _ in range(2):
            sender.sendto(b"there?", (host, port))
        return bool(drain(receiver, 0.1))
    finally:
        for one, owner in ((sender, net), (receiver, to)):
            owner.opened.remove(one)
            one.close()


def connects(net: Net, to: Net, host: str, port: int, patience: float = 0.4) -> bool:
    """Whether a TCP connection comes about within `patience` seconds."""
    listener = to.listen(host, port)
    client = net.socket(listener.family, socket.SOCK_STREAM)
    client.settimeout(patience)
    try:
        client.connect((host, port))
    except TimeoutError:
        return False
    else:
        return True
    finally:
        for one, owner in ((client, net), (listener, to)):
            owner.opened.remove(one)
            one.close()


def speaks(client: socket.socket, served: socket.socket, patience: float = 0.5) -> bool:
    """Whether bytes pass over a connection, both ways, within `patience` seconds each."""
    for one, other in ((client, served), (served, client)):
        one.sendall(b"x")
        other.settimeout(patience)
        try:
            if not other.recv(64):
                return False
        except TimeoutError:
            return False
    return True
