"""A network namespace of its own with the packet engine on one of its devices, as a fault sets it
up."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faultline.kernel import classifier, clock, hop, link, netns
from faultline.kernel.classifier import Attached
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction
from faultline.workers import packet_stats

SOURCE = str(Path(packet_stats.__file__).parents[2])
BOOT = f"""
import json, os, sys
sys.path.insert(0, {SOURCE!r})
from faultline.workers.packets import main
def ready(status):
    os.write(1, json.dumps(status).encode() + b"\\n")
sys.exit(main(json.loads(sys.stdin.readline()), ready))
"""
PATIENCE = 200_000_000  # nanoseconds after which the classifier lets packets pass a silent worker
UID = "rig"


@dataclass
class Engine:
    """A running worker and its filters."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    stats: Path
    attached: Attached

    def matched(self) -> int:
        """Packets that the classifier sent to the worker."""
        return classifier.counters(self.attached).hit

    def statistics(self) -> packet_stats.Statistics:
        """What the worker measured, at least as new as this call."""
        now = clock.now()
        while True:
            found = packet_stats.read(str(self.stats))
            if found and (found.fields["beat"] > now or self.process.poll() is not None):
                return found
            time.sleep(0.01)


@dataclass
class Rig:
    """The namespace: a route socket in it, and what was started for it."""

    fd: int
    netlink: Netlink
    folder: Path
    engines: list[Engine] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def inside(self) -> Iterator[None]:
        with netns.entered(self.fd):
            yield

    def worker(self, spec: dict[str, Any], fds: tuple[int, ...] = ()) -> tuple[Any, dict[str, Any]]:
        """Start the worker as a bare interpreter in the namespace and wait until it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self.fd, *fds),
        )
        self.processes.append(process)
        assert process.stdin
        assert process.stdout
        document = {"netns": f"/proc/self/fd/{self.fd}", **spec}
        process.stdin.write(json.dumps(document).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the worker ended with {process.wait()}"
        return process, json.loads(line)

    def start(
        self,
        device: str = "lo",
        direction: Direction = Direction.EGRESS,
        *,
        shape: dict[str, Any] | None = None,
        match: Match | None = None,
        **spec: Any,
    ) -> Engine:
        """The engine on a device: worker with TAP, then the classifier, then the way back."""
        step = str(len(self.engines))
        index = link.get(self.netlink, device).index
        stats = self.folder / f"stats-{step}"
        place = {"device": device, "direction": direction, "uid": UID, "step": step}
        process, ready = self.worker(
            {
                "tap": f"flt{step}",
                "shape": shape or {},
                "heartbeat": place,
                "stats": str(stats),
                "mark": f"faultline:{UID}:{step}",
                **spec,
            }
        )
        tap = ready["ifindex"]
        attached = hop.bind(
            self.netlink,
            index,
            direction,
            Mark(UID, step),
            match or Match(),
            Action(ActionKind.REDIRECT, target=tap),
            Guard(heartbeat=PATIENCE),
            far=tap,
            by_mark=False,
        )
        engine = Engine(process, ready, stats, attached)
        self.engines.append(engine)
        self.settle(attached)
        return engine

    def settle(self, attached: Attached) -> None:
        """Wait until the worker has found its classifier."""
        memory = classifier.heartbeat(attached)
        until = time.monotonic() + 5
        while memory[:8] == bytes(8):
            assert time.monotonic() < until, "the worker does not find its classifier"
            time.sleep(0.005)
        memory.close()

    def socket(self, family: int, fd: int | None = None) -> socket.socket:
        """A datagram socket in the namespace (or another), closed with the rig."""
        with netns.entered(self.fd if fd is None else fd):
            made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(2)
        self.sockets.append(made)
        return made

    def pair(self, address: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        """A receiver, and a sender that is connected to it."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        receiver, sender = self.socket(family), self.socket(family)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        receiver.bind((address, 0))
        sender.connect(receiver.getsockname()[:2])
        return receiver, sender

    def detach(self, engine: Engine) -> None:
        """Take the classifier away: no more packets for the worker."""
        one = engine.attached
        mark = one.mark
        classifier.detach(self.netlink, one.ifindex, one.direction, mark.uid, mark.step)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for one in self.sockets:
            one.close()
        self.netlink.close()
        os.close(self.fd)


@contextmanager
def scratch(folder: Path) -> Iterator[Rig]:
    """A namespace with a loopback device that takes its own packets back."""
    fd = netns.create()
    with netns.entered(fd):
        rig = Rig(fd, Netlink.open(), folder)
    try:
        link.set_up(rig.netlink, "lo")
        yield rig
    finally:
        rig.close()


def checksum(data: bytes) -> int:
    """RFC 1071, for the echo requests below."""
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    words = (words & 0xFFFF) + (words >> 16)
    return 0xFFFF - ((words & 0xFFFF) + (words >> 16))


def ping(address: str, number: int = 1) -> float | None:
    """Milliseconds until an ICMP echo comes back; None when it does not within a second."""
    six = ":" in address
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    body = struct.pack("!HH", os.getpid() & 0xFFFF, number) + bytes(52)
    echo = struct.pack("!BBH", 128 if six else 8, 0, 0) + body
    if not six:
        echo = struct.pack("!BBH", 8, 0, checksum(echo)) + body
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(1)
        began = time.perf_counter()
        raw.sendto(echo, (address, 0))
        while time.perf_counter() - began < 1:
            try:
                answer = raw.recv(2048)
            except TimeoutError:
                return None
            start = 0 if six else 20
            if answer[start] == (129 if six else 0) and answer[start + 4 :] == body:
                return (time.perf_counter() - began) * 1000
    return None


def one_way(pair: tuple[socket.socket, socket.socket], payload: bytes = b"x") -> float | None:
    """Milliseconds from sending a datagram to receiving it; None when it is lost."""
    receiver, sender = pair
    began = time.perf_counter()
    sender.send(payload)
    try:
        assert receiver.recv(65536) == payload
    except TimeoutError:
        return None
    return (time.perf_counter() - began) * 1000


def drain(receiver: socket.socket, patience: float = 0.3) -> list[bytes]:
    """Everything that arrives until nothing has for some time."""
    receiver.settimeout(patience)
    out: list[bytes] = []
    while True:
        try:
            out.append(receiver.recv(65536))
        except TimeoutError:
            return out


def transfer(
    rig: Rig, address: str, size: int, receiver_in: int | None = None
) -> tuple[float, dict[str, int]]:
    """Send so many bytes by TCP; gives the seconds taken and what TCP counted at the sender."""
    payload = bytes(range(256)) * (size // 256)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(rig.fd if receiver_in is None else receiver_in):
        listener = socket.socket(family)
        listener.bind((address, 0))
        listener.listen()
    with rig.inside():
        sender = socket.socket(family)
    sender.settimeout(30)
    port = listener.getsockname()[1]
    sender.connect((address, port))
    accepted, _ = listener.accept()
    accepted.settimeout(30)
    got: list[bytes] = []

    def receive() -> None:
        while chunk := accepted.recv(1 << 20):
            got.append(chunk)

    thread = threading.Thread(target=receive)
    began = time.perf_counter()
    thread.start()
    sender.sendall(payload)
    sender.shutdown(socket.SHUT_WR)
    thread.join()
    took = time.perf_counter() - began
    assert b"".join(got) == payload
    info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    counts = {"retransmits": struct.unpack_from("=I", info, 100)[0]}
    for one in (sender, accepted, listener):
        one.close()
    return took, counts


def snmp(rig: Rig, protocol: str, field: str) -> int:
    """A counter of the namespace's stack (/proc/net/snmp)."""
    with rig.inside():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith(f"{protocol}:"))
    return int(values[names.index(field)])


@contextmanager
def cable(rig: Rig) -> Iterator[int]:
    """A second namespace at the end of a veth pair: va 10.77.0.1 here, vb 10.77.0.2 there, and
    IPv6."""
    far = netns.create()
    try:
        link.add_veth(rig.netlink, ("va", "vb"), "", mtu=1500)
        for name, fd in (("va", None), ("vb", far)):
            if fd is not None:
                ip(rig.fd, "link", "set", name, "netns", f"/proc/{os.getpid()}/fd/{fd}")
            inside = rig.fd if fd is None else fd
            number = "1" if fd is None else "2"
            ip(inside, "link", "set", name, "arp", "on", "up")
            ip(inside, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            ip(inside, "addr", "add", f"fd77::{number}/64", "dev", name, "nodad")
        yield far
    finally:
        os.close(far)


def ip(fd: int, *arguments: str) -> None:
    with netns.entered(fd):
        subprocess.run(["ip", *arguments], check=True)
