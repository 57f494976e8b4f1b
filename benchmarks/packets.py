"""The packet engine: how many packets, how exact, what it costs.

    python -m benchmarks.packets

Needs root; works in network namespaces of its own. Tails depend on what else the machine does, so
the load average is kept with them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, Measured, NotHere, alone
from faultline.kernel import classifier, hop, link, netns
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.shaping import Netem
from faultline.kernel.tc import Direction
from faultline.workers import packet_stats

SOURCE = str(Path(packet_stats.__file__).parents[2])
BOOT = (
    f"import json, os, sys; sys.path.insert(0, {SOURCE!r})\n"
    "from faultline.workers.packets import main\n"
    "say = lambda status: os.write(1, json.dumps(status).encode() + b'\\n')\n"
    "sys.exit(main(json.loads(sys.stdin.readline()), say))\n"
)
MS = 1_000_000
PORT = 7000
MATCH = Match(destination_ports=((PORT, PORT),))


@contextmanager
def engine(nl: Netlink, fd: int, device: str, delay: int) -> Generator[tuple[int, Path]]:
    """The packet engine on outgoing packets to PORT; gives the worker's pid and its statistics."""
    stats = Path(f"/dev/shm/faultline-bench-{os.getpid()}")
    index = link.get(nl, device).index
    place = {"device": device, "direction": "egress", "uid": "bench", "step": "0"}
    spec: dict[str, Any] = {
        "netns": f"/proc/self/fd/{fd}",
        "tap": "flbench",
        "shape": {"delay": delay},
        "stats": str(stats),
        "heartbeat": place,
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(fd,),
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        process.stdin.flush()
        tap = json.loads(process.stdout.readline())["ifindex"]
        try:
            action = Action(ActionKind.REDIRECT, target=tap)
            guard = Guard(heartbeat=200 * MS)
            mark = Mark("bench", "0")
            hop.bind(
                nl, index, Direction.EGRESS, mark, MATCH, action, guard, far=tap, by_mark=False
            )
            time.sleep(0.1)  # it looks for its classifier every 25 ms
            yield process.pid, stats
        finally:
            process.terminate()
            process.wait()
            classifier.detach(nl, index, Direction.EGRESS, "bench", "0")
            stats.unlink(missing_ok=True)


@contextmanager
def netem(nl: Netlink, device: str, delay: int) -> Generator[None]:
    """The same delay by the kernel's own netem."""
    index = link.get(nl, device).index
    action = Action(ActionKind.REDIRECT, target=index)
    mark = Mark("bench", "0")
    try:
        hop.inject(nl, index, Direction.EGRESS, mark, MATCH, action, Guard(), Netem(delay=delay))
        yield
    finally:
        hop.recover(nl, index, Direction.EGRESS, "bench", "0", drain=0.2)


@contextmanager
def world() -> Generator[tuple[int, int, Netlink]]:
    """Two namespaces with a cable (MTU 1500) between them: 10.77.0.1 on va, 10.77.0.2 on vb."""
    near, far = netns.create(), netns.create()
    try:
        with netns.entered(near):
            nl = Netlink.open()
        link.set_up(nl, "lo")
        link.add_veth(nl, ("va", "vb"), "", mtu=1500)
        here, there = f"/proc/{os.getpid()}/fd/{near}", f"/proc/{os.getpid()}/fd/{far}"
        _tool(here, "ip", "link", "set", "vb", "netns", there)
        for space, name, number in ((here, "va", 1), (there, "vb", 2)):
            _tool(space, "ip", "link", "set", name, "arp", "on", "up")
            _tool(space, "ip", "addr", "add", f"10.77.0.{number}/24", "dev", name)
        with closing(nl):
            yield near, far, nl
    finally:
        os.close(near)
        os.close(far)


def _tool(space: str, *command: str) -> None:
    subprocess.run(["nsenter", f"--net={space}", *command], check=True)


@contextmanager
def child(fd: int, work: Callable[[], None]) -> Generator[None]:
    """Run `work` in a process of its own in a namespace, for as long as the block lasts."""
    pid = os.fork()
    if pid == 0:
        try:
            with netns.entered(fd):
                work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _send(rate: float, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, PORT))
        begun, number = time.perf_counter(), 0
        while True:
            while rate and time.perf_counter() - begun < number / rate:
                time.sleep(20e-6)
            number += 1
            try:
                sender.send(struct.pack("=Q", time.perf_counter_ns()) + bytes(92))
            except ConnectionRefusedError:
                continue


def one_way(fd: int, rate: float, seconds: float) -> list[int]:
    """Nanoseconds from send to receive of UDP packets over loopback."""
    with netns.entered(fd):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with closing(receiver):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        receiver.bind(("127.0.0.1", PORT))
        receiver.settimeout(2)
        found: list[int] = []
        with child(fd, lambda: _send(rate, "127.0.0.1")):
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                sent = struct.unpack_from("=Q", receiver.recv(2048))[0]
                found.append(time.perf_counter_ns() - sent)
    return sorted(found)


def _pour(address: str) -> None:
    with socket.create_connection((address, PORT)) as sender:
        block = bytes(1 << 20)
        while True:
            sender.sendall(block)


def tcp(near: int, far: int, address: str, seconds: float) -> float:
    """Megabytes per second of one connection, its first second left out."""
    with netns.entered(far):
        listener = socket.create_server((address, PORT))
    with closing(listener), child(near, lambda: _pour(address)):
        accepted, _ = listener.accept()
        with closing(accepted):
            accepted.settimeout(5)
            begun = time.perf_counter()
            while time.perf_counter() - begun < 1:
                accepted.recv(1 << 20)
            begun, total = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                total += len(accepted.recv(1 << 20))
            return total / (time.perf_counter() - begun) / 1e6


def _processor(pid: int) -> float:
    """Microseconds of processor time that a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def exactness(nl: Netlink, fd: int, seconds: float) -> Iterator[Figure]:
    """10 ms asked at several rates, against the same packets without the engine."""
    for rate in (1000, 5000, 20_000):
        bare = one_way(fd, rate, min(seconds, 1))
        with engine(nl, fd, "lo", 10 * MS) as (pid, stats):
            before = _processor(pid)
            found = one_way(fd, rate, seconds)
            used = _processor(pid) - before
            time.sleep(0.05)
            told = packet_stats.read(str(stats))
        share = {p: found[len(found) * p // 100] - bare[len(bare) // 2] for p in (50, 99)}
        name = f"packets: {rate}/s, 10 ms asked"
        spread = f"without the engine p50 {bare[len(bare) // 2] / 1e3:.0f} us"
        for part, value in share.items():
            error = (value - 10 * MS) / 1e3
            yield Figure(
                f"{name}, error of the added delay p{part}", error, "us", "", spread, len(found)
            )
        own = told.as_dict()["error_p50"] if told else None
        yield Figure(f"{name}, own figure p50", (own or 0) / 1e3, "us")
        yield Figure(f"{name}, processor per packet", used / len(found), "us")


def capacity(nl: Netlink, fd: int, seconds: float) -> Iterator[Figure]:
    """As many packets as it can, with a sender that does not wait."""
    with engine(nl, fd, "lo", 10 * MS) as (pid, stats):
        with child(fd, lambda: _send(0, "127.0.0.1")):
            time.sleep(0.5)
            first, before, begun = (
                packet_stats.read(str(stats)),
                _processor(pid),
                time.perf_counter(),
            )
            time.sleep(seconds)
            last, used, took = packet_stats.read(str(stats)), _processor(pid), time.perf_counter()
        if first is None or last is None:
            raise NotHere("the engine published nothing")
        released = last.fields["released"] - first.fields["released"]
        yield Figure("packets: most per second", released / (took - begun), "packets/s")
        yield Figure("packets: processor per packet then", (used - before) / released, "us")
        yield Figure("packets: resident memory after it", _resident(pid), "MiB")


def measure(seconds: float = 2.0) -> Measured:
    """All figures of the packet engine."""
    if os.geteuid() != 0:
        raise NotHere("the packet engine is measured as root")
    with world() as (near, _, nl):
        yield from exactness(nl, near, seconds)
        yield from capacity(nl, near, seconds)


if __name__ == "__main__":
    sys.exit(alone(measure))
