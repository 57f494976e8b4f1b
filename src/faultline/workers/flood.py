"""Sends to one address at a rate that is never exceeded: datagrams, bytes of connections, connects.

Senders work side by side, each with its share of the rate and its own socket, and count in memory
that they share. A sender that has fallen behind makes up for a fifth of a second and no more: the
rate asked is the most that leaves. What the other side answers is thrown away.

Order (spec), beside `deadline` and `stats`: `mode`: "udp", "tcp" (bytes over connections that stay
open) or "connect" (connections that are reset as soon as they stand); `address`, `port`; `interval`
in nanoseconds between two units of all senders together; `size` of a unit in bytes; `parallel`, 1
to 64; `join`, folders of control groups.
"""

from __future__ import annotations

import errno
import mmap
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from faultline.errors import InvalidParameter
from faultline.workers.figures import Figures
from faultline.workers.join import join_groups
from faultline.workers.lifetime import Lifetime, end_children, reap

MODES: Final = ("udp", "tcp", "connect")
MOST: Final = 64  # senders
COUNTED: Final = ("sent", "bytes", "answered", "refused", "dropped", "late")
_SLOT: Final = 8 * len(COUNTED)
_WORD: Final = struct.Struct("=Q")
_BATCH: Final = 64  # units that are sent without another look at the clock
_LEAST: Final = 500_000  # ns: shorter sleeps are not worth it, what is due meanwhile goes together
LAG: Final = 200_000_000  # ns: what is later than this is not sent any more
_PATIENCE: Final = 1.0  # seconds until a connection counts as not answered
_PAUSE: Final = 0.1  # seconds until it is tried again
_REFUSED: Final = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET)
_FULL: Final = (errno.ENOBUFS, errno.EAGAIN, errno.EADDRNOTAVAIL, errno.EPERM)
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: end with a reset, leave nothing behind


class Counts:
    """What the senders did, each in a slot of its own of memory that they share."""

    def __init__(self, senders: int) -> None:
        self._senders = senders
        self._memory = mmap.mmap(-1, senders * _SLOT)

    def add(self, sender: int, name: str, number: int = 1) -> None:
        at = sender * _SLOT + 8 * COUNTED.index(name)
        _WORD.pack_into(self._memory, at, _WORD.unpack_from(self._memory, at)[0] + number)

    def total(self) -> dict[str, int]:
        return {
            name: sum(
                _WORD.unpack_from(self._memory, sender * _SLOT + 8 * index)[0]
                for sender in range(self._senders)
            )
            for index, name in enumerate(COUNTED)
        }


class Pace:
    """When the next unit may be sent; one instance for each sender."""

    def __init__(self, interval: int, now: int) -> None:
        self.interval = interval
        self._next = now

    def due(self, now: int) -> tuple[int, int]:
        """How many units may be sent now, and how many came too late to be sent at all."""
        late = 0
        if now - self._next > LAG:
            late = (now - self._next - LAG) // self.interval
            self._next += late * self.interval
        count = min(_BATCH, max(0, (now - self._next) // self.interval + 1))
        self._next += count * self.interval
        return count, late

    def wait(self, now: int) -> float:
        """Seconds until the next unit is due."""
        return max(0, self._next - now) / 1e9


class Sender:
    """One sender: a loop that never ends; the kernel ends its process."""

    def __init__(self, order: dict[str, Any], number: int, counts: Counts) -> None:
        self._to = (str(order["address"]), int(order["port"]))
        self._family = socket.AF_INET6 if ":" in self._to[0] else socket.AF_INET
        self._size = int(order["size"])
        parallel = int(order["parallel"])
        # The first units of the senders are spread over the time of one round.
        begin = time.monotonic_ns() + number * int(order["interval"])
        self._pace = Pace(int(order["interval"]) * parallel, begin)
        self._number, self._counts = number, counts

    def run(self, mode: str) -> int:
        """Send; returns only by a signal."""
        loops = {"udp": self._datagrams, "tcp": self._stream, "connect": self._connects}
        while True:
            try:
                loops[mode]()
            except OSError as error:
                self._note(error)
                time.sleep(_PAUSE)

    def _count(self, name: str, number: int = 1) -> None:
        self._counts.add(self._number, name, number)

    def _note(self, error: OSError) -> None:
        """Count what is to be expected of a flood; raises anything else."""
        if error.errno in _REFUSED or isinstance(error, ConnectionError):
            self._count("refused")
        elif error.errno in _FULL or isinstance(error, TimeoutError):
            self._count("dropped")
        else:
            raise error

    def _take(self) -> int:
        """Wait until something is due, and how much it is."""
        while True:
            now = time.monotonic_ns()
            count, late = self._pace.due(now)
            if late:
                self._count("late", late)
            if count:
                return count
            time.sleep(max(_LEAST / 1e9, self._pace.wait(now)))

    def _datagrams(self) -> None:
        data = bytes(self._size)
        with socket.socket(self._family, socket.SOCK_DGRAM) as wire:
            # Not connected: else a send would fail for what became of an earlier datagram.
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # answers are not kept
            while True:
                sent = 0
                for _ in range(self._take()):
                    try:
                        wire.sendto(data, self._to)
                        sent += 1
                    except OSError as error:
                        self._note(error)
                self._count("sent", sent)
                self._count("bytes", sent * len(data))

    def _stream(self) -> None:
        data = memoryview(bytes(self._size))
        with self._connected() as wire:
            self._count("answered")
            wire.settimeout(None)
            while True:
                for _ in range(self._take()):
                    wire.sendall(data)
                    self._count("sent")
                    self._count("bytes", len(data))
                with suppress(BlockingIOError):  # what it says is thrown away
                    wire.recv(65536, socket.MSG_DONTWAIT | socket.MSG_TRUNC)

    def _connects(self) -> None:
        while True:
            for _ in range(self._take()):
                self._count("sent")
                try:
                    self._connected().close()
                    self._count("answered")
                except OSError as error:
                    self._note(error)

    def _connected(self) -> socket.socket:
        wire = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            wire.settimeout(_PATIENCE)
            wire.connect(self._to)
        except OSError:
            wire.close()
            raise
        return wire


def _check(spec: dict[str, Any]) -> None:
    if spec["mode"] not in MODES:
        raise InvalidParameter("mode", spec["mode"], f"one of {', '.join(MODES)}")
    if not 1 <= int(spec["parallel"]) <= MOST:
        raise InvalidParameter("parallel", spec["parallel"], f"1 to {MOST}")
    if int(spec["interval"]) < 1:
        raise InvalidParameter("interval", spec["interval"], "at least a nanosecond")


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Send until SIGTERM or the deadline; raises InvalidParameter, OSError."""
    _check(spec)
    join_groups(spec.get("join", ()))
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    parallel = int(spec["parallel"])
    counts = Counts(parallel)
    senders = [
        lifetime.fork("fl-flood", lambda n=number: Sender(spec, n, counts).run(spec["mode"]))
        for number in range(parallel)
    ]
    try:
        figures.publish({**counts.total(), "at": time.monotonic_ns()})
        ready({"senders": senders, "stats": spec.get("stats", "")})
        while not lifetime.wait(0.05):
            figures.publish({**counts.total(), "at": time.monotonic_ns()})
            if gone := reap(senders):
                senders = [each for each in senders if each not in gone]
                if not senders:
                    return 1
    finally:
        end_children(senders)
    return 0
