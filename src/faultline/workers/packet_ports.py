"""The ends of the packet engine: where packets go out, and the heartbeat that keeps packets coming.

A classifier believes in its worker only as long as it hears from it; this is the worker's voice.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Mapping
from typing import Any, Final, Protocol

from faultline.kernel import classifier
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction

_PACKET_VNET_HDR: Final = 15  # linux/if_packet.h
_PACKET_QDISC_BYPASS: Final = 20
_SOL_PACKET: Final = 263
_SEND_BUFFER: Final = 8 * 1024 * 1024


class Source(Protocol):
    """Where packets come from."""

    def fileno(self) -> int: ...

    def read(self) -> bytes | None:
        """The next packet, None when there is none now."""
        ...

    def lost(self) -> int:
        """Packets that were dropped because they were not read in time, as far as it is known."""
        ...


class Sink(Protocol):
    """Where released packets go."""

    def write(self, packet: bytes) -> None: ...


class PacketSocket:
    """Sends packets, with their virtio header, out of a device behind its filters and its queue.

    PACKET_QDISC_BYPASS (packet(7)) goes around the egress hook, so the packet does not meet the
    filter that took it; it goes around the user's root queueing discipline too.
    """

    def __init__(self, device: str) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._socket.bind((device, 0))

    def write(self, packet: bytes) -> None:
        self._socket.send(packet)


class Heartbeat(Protocol):
    """Something that wants to hear of the worker."""

    def beat(self, now: int) -> bool:
        """The worker lives, at `now` of CLOCK_BOOTTIME; whether there is anybody yet to hear it."""
        ...

    def stop(self) -> None:
        """Let packets pass from now on."""
        ...


class SharedBeat:
    """A page of memory with the time of the last beat: a file, or a map made with F_MMAPABLE."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memoryview(memory).cast("Q")

    def beat(self, now: int) -> bool:
        self._memory[0] = now
        return True

    def stop(self) -> None:
        self._memory[0] = 0


class FilterBeat:
    """The classifier of a fault, looked for until it is there, and the way back behind the TAP too.

    The classifier is made after the TAP that it sends packets to; until it hears from us it lets
    them pass, so the fault begins when everything is in place.
    """

    def __init__(self, spec: Mapping[str, Any], tap: int) -> None:
        self._netlink = Netlink.open()
        self._device = socket.if_nametoindex(spec["device"])
        self._direction = Direction(spec["direction"])
        self._uid: str = spec["uid"]
        self._step: str = spec["step"]
        self._tap = tap
        self._found: SharedBeat | None = None

    def beat(self, now: int) -> bool:
        if self._found is None:
            self._look()
        return self._found is not None and self._found.beat(now)

    def stop(self) -> None:
        if self._found is not None:
            self._found.stop()

    def _look(self) -> None:
        nl = self._netlink
        if not classifier.on_device(nl, self._tap, Direction.INGRESS):
            return
        there = classifier.find(nl, self._device, self._direction, self._uid, self._step)
        if there is not None:
            self._found = SharedBeat(classifier.heartbeat(there))
            nl.close()


def open_heartbeat(spec: Mapping[str, Any] | None, tap: int) -> Heartbeat | None:
    """From JSON; None for none.

    `{"device", "direction", "uid", "step"}`: the classifier of that step; `{"fd"}`: a descriptor of
    a page; `{"path"}`: a file of a page, made when absent.
    """
    if not spec:
        return None
    if "device" in spec:
        return FilterBeat(spec, tap)
    if "fd" in spec:
        return SharedBeat(mmap.mmap(spec["fd"], mmap.PAGESIZE))
    fd = os.open(spec["path"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        return SharedBeat(mmap.mmap(fd, mmap.PAGESIZE))
    finally:
        os.close(fd)
