"""Measuring a fault without the user's traffic and without sending anything to anybody.

A probe is a packet of ours that carries a mark. The filter that it is meant for counts it, decides
as for any other packet, and takes it away in every case; a hop times it and takes it away at its
far end. Outgoing probes are written straight to the device by a packet socket (packet(7)); incoming
ones arrive through a pair of devices of ours, so they are possible on every device. Should a filter
vanish in that moment: the hop limit is 1, checksums are not valid, and the link address is our own.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from faultline.kernel import bpf, classifier, link, tc
from faultline.kernel.classifier import Attached
from faultline.kernel.headers import PROBE_TIMES, PROBE_TRAILER, Place
from faultline.kernel.link import Link
from faultline.kernel.mark import Mark
from faultline.kernel.netlink import Netlink
from faultline.kernel.predicate import Headers
from faultline.kernel.program import build_injection
from faultline.kernel.tc import Direction

SO_MARK = 36
STEP = ".probe"
_ETH_P = {4: 0x0800, 6: 0x86DD}
_FILL = 32
_POLL = 0.001  # seconds
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h
_ROOM = 8 << 20  # bytes; the kernel counts some 4 KiB for a probe of full size


@dataclass(frozen=True, slots=True)
class Probed:
    """What happened to probes: counted by the filter itself, delays in nanoseconds by the hop."""

    sent: int
    matched: int
    hit: int
    delays: tuple[int, ...] = ()


def packet_socket() -> socket.socket:
    """A packet socket that receives nothing, in the calling thread's network namespace.

    It has room for all probes at once: packets that a fault holds count against their socket, and a
    sender that is made to wait by the fault could not tell how fast the fault lets packets go.
    Needs CAP_NET_RAW; setting the mark of probes needs CAP_NET_ADMIN.
    """
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ROOM)
    except PermissionError:  # the right counts in the first user namespace only
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return made


def frame(headers: Headers, link_header: bytes, mark: int, number: int, fill: int = _FILL) -> bytes:
    """One probe as it lies on the device, with its mark and number at the very end."""
    payload = bytes(fill) + PROBE_TRAILER + struct.pack("=II", mark, number)
    transport = _transport(headers, len(payload)) + payload
    source, destination = (ip_address(a).packed for a in (headers.source, headers.destination))
    if headers.version == 4:
        total = 20 + len(transport)
        head = struct.pack(">BBHHHBBH", 0x45, 0, total, 0, 0, 1, headers.protocol, 0)
        head = head[:10] + _checksum(head + source + destination) + source + destination
    else:
        head = struct.pack(">IHBB", 6 << 28, len(transport), headers.protocol, 1)
        head += source + destination
    return link_header + head + transport


def _link_header(device: Link, direction: Direction, version: int) -> bytes:
    """From the device to itself; nothing on a tunnel, unless the way in leads over our own pair."""
    if not device.header_bytes and direction is Direction.EGRESS:
        return b""
    own = device.address if len(device.address) == 6 else bytes(6)
    return own + own + struct.pack(">H", _ETH_P[version])


def _transport(headers: Headers, payload: int) -> bytes:
    ports = struct.pack(">HH", headers.source_port, headers.destination_port)
    if headers.protocol == 17:
        return ports + struct.pack(">HH", 8 + payload, 0)
    if headers.protocol == 6:
        return ports + struct.pack(">IIBBHHH", 0, 0, 5 << 4, headers.flags, 0, 0, 0)
    if headers.protocol in (1, 58):
        return bytes((8 if headers.protocol == 1 else 128, 0, 0, 0, 0, 0, 0, 0))
    return ports + bytes(8)


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def probe(  # noqa: PLR0913 - what to send, and how
    nl: Netlink, sock: socket.socket, attached: Attached, headers: Headers,
    *, count: int = 20, interval: float = 0.0, wait: float = 1.0, fill: int = _FILL,
) -> Probed:  # fmt: skip
    """Send probes at a fault and read back what became of them.

    `sock` is a `packet_socket` of the same namespace as `nl`. `wait` is how long (seconds) to
    wait for delayed ones after the last was sent, `fill` how many bytes each carries. At most
    1024 at a time. A fault whose deadline or heartbeat has passed takes them away uncounted.
    OSError as from packet(7).
    """
    count = min(count, PROBE_TIMES)
    device = link.get(nl, attached.ifindex)
    mark = Place(attached.ifindex, attached.direction, attached.slot).probe_mark
    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("=I", mark))
    header = _link_header(device, attached.direction, headers.version)
    before = classifier.counters(attached, probes=True)
    timed = classifier.clear_probe_times(attached, range(count))
    with _entrance(nl, device, attached) as entrance:
        address = (entrance, _ETH_P[headers.version])
        for number in range(count):
            sock.sendto(frame(headers, header, mark, number, fill), address)
            if interval:
                time.sleep(interval)
        delays = _delays(attached, range(count), wait, before.hit) if timed else ()
    after = classifier.counters(attached, probes=True)
    return Probed(count, after.matched - before.matched, after.hit - before.hit, delays)


def _delays(attached: Attached, numbers: range, wait: float, hit: int) -> tuple[int, ...]:
    until = time.monotonic() + wait
    found: dict[int, int] = {}
    with classifier.probes_of(attached) as (held, hits):
        while True:
            late = time.monotonic() > until
            for number in numbers:
                if number not in found and (delay := held(number)):
                    found[number] = delay
                elif number not in found and not late:
                    break  # those behind it are late too; at the end each is asked for
            if late or len(found) >= hits() - hit:
                return tuple(found.values())
            time.sleep(_POLL)


@contextmanager
def _entrance(nl: Netlink, device: Link, attached: Attached) -> Generator[str]:
    """The device to write probes to: the one itself, or a pair that leads into it from outside."""
    if attached.direction is Direction.EGRESS:
        yield device.name
        return
    mark = Mark(attached.mark.uid, attached.mark.step + STEP)
    names = f"fl{os.getpid() & 0xFFFFFF:06x}p", f"fl{os.getpid() & 0xFFFFFF:06x}q"
    link.add_veth(nl, names, str(mark), mtu=min(device.mtu, 65535))
    try:
        near, far = (link.get(nl, name) for name in names)
        tc.add_clsact(nl, far.index)
        fd = bpf.load_program(build_injection(device.index), name="fl_probe")
        try:
            parent = Direction.INGRESS.parent
            tc.add_bpf(nl, far.index, parent, classifier.PRIORITY_BASE, fd, str(mark))
        finally:
            os.close(fd)
        for end in (far, near):
            link.set_up(nl, end.index)
        yield near.name
    finally:
        link.delete(nl, names[0])
