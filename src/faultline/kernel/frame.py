"""Ethernet frames as bytes: what a filter wants to know of them, and how to damage one.

Used where packets are matched by a process and not by the kernel, and by the packet engine. Reads
the fixed parts of ethernet (with up to two VLAN tags), IPv4 (RFC 791), IPv6 with its extension
headers (RFC 8200), TCP, UDP and ICMP; everything else is counted but not understood.
"""

from __future__ import annotations

import random
import struct
from typing import Final, NamedTuple

from faultline.kernel.tap import VNET_SIZE, VnetFlag, VnetHeader

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMPV6: Final = 58
SCTP: Final = 132
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLAN: Final = (0x8100, 0x88A8)
_ETHERNET: Final = 14
_WITH_PORTS: Final = (TCP, UDP, SCTP)
_NEIGHBOUR: Final = range(133, 138)
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, _FRAGMENT, _AUTHENTICATION})
_CHECKSUMS: Final = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}  # where each header keeps its checksum
_PORTS: Final = struct.Struct("!HH")


class Packet(NamedTuple):
    """The parts of an IP packet that filters look at."""

    version: int
    protocol: int  # of the innermost header that could be reached
    source: bytes
    destination: bytes
    ports: tuple[int, int] | None  # source, destination; None without ports and in later fragments
    network: int  # offset of the IP header in the frame
    transport: int  # offset of the protocol's header
    end: int  # offset behind the last byte of the IP packet; padding may follow
    fragment: bool  # a part of a packet, the first one or a later one
    neighbour: bool  # IPv6 neighbour discovery (RFC 4861), which no fault may touch
    flags: int = 0  # of TCP; 0 of others and where the header is not there


def parse(frame: bytes, at: int = 0) -> Packet | None:
    """Read the frame that starts at offset `at`; None when it is no whole IP packet."""
    length = len(frame)
    kind = at + 12
    while length >= kind + 2 and int.from_bytes(frame[kind : kind + 2]) in _VLAN and kind < at + 20:
        kind += 4
    if length < kind + 2:
        return None
    ether_type = int.from_bytes(frame[kind : kind + 2])
    start = kind + 2
    if ether_type == _IPV4 and length >= start + 20 and frame[start] >> 4 == 4:
        return _ipv4(frame, start)
    if ether_type == _IPV6 and length >= start + 40 and frame[start] >> 4 == 6:
        return _ipv6(frame, start)
    return None


def _ipv4(frame: bytes, start: int) -> Packet | None:
    transport = start + (frame[start] & 0x0F) * 4
    protocol = frame[start + 9]
    piece = int.from_bytes(frame[start + 6 : start + 8])
    later = bool(piece & 0x1FFF)
    # A total length of zero stands for a packet too long for the field, as segmentation offload
    # makes.
    end = start + (int.from_bytes(frame[start + 2 : start + 4]) or len(frame) - start)
    if transport > len(frame):
        return None
    return Packet(
        4,
        protocol,
        frame[start + 12 : start + 16],
        frame[start + 16 : start + 20],
        None if later else _ports(frame, protocol, transport),
        start,
        transport,
        min(end, len(frame)),
        bool(piece & 0x3FFF),
        False,
        0 if later else _flags(frame, protocol, transport),
    )


def _ipv6(frame: bytes, start: int) -> Packet:
    protocol = frame[start + 6]
    transport = start + 40
    later = fragment = False
    while protocol in _EXTENSIONS and len(frame) >= transport + 8 and not later:
        following, size = frame[transport], frame[transport + 1]
        if protocol == _FRAGMENT:
            fragment = True
            later = bool(int.from_bytes(frame[transport + 2 : transport + 4]) & 0xFFF8)
            transport += 8
        else:
            transport += (size + 2) * 4 if protocol == _AUTHENTICATION else (size + 1) * 8
        protocol = following
    end = start + 40 + int.from_bytes(frame[start + 4 : start + 6])
    return Packet(
        6,
        protocol,
        frame[start + 8 : start + 24],
        frame[start + 24 : start + 40],
        None if later else _ports(frame, protocol, transport),
        start,
        transport,
        min(end, len(frame)) if end > start + 40 else len(frame),
        fragment,
        protocol == ICMPV6 and transport < len(frame) and frame[transport] in _NEIGHBOUR,
        0 if later else _flags(frame, protocol, transport),
    )


def _flags(frame: bytes, protocol: int, transport: int) -> int:
    return frame[transport + 13] if protocol == TCP and len(frame) > transport + 13 else 0


def _ports(frame: bytes, protocol: int, transport: int) -> tuple[int, int] | None:
    if protocol not in _WITH_PORTS or len(frame) < transport + 4:
        return None
    source, destination = _PORTS.unpack_from(frame, transport)
    return source, destination


def wire_size(packet: bytes) -> int:
    """Bytes that the packet (virtio header, frame) is on the wire, with the 14 bytes of ethernet.

    A packet that stands for several segments counts the headers of each.
    """
    size = len(packet) - VNET_SIZE
    if not packet[1]:
        return size
    header = VnetHeader.parse(packet)
    start = VNET_SIZE + header.checksum_start
    if header.segment_size == 0 or len(packet) < start + 13:
        return size
    udp = header.gso_type & 0x7F == 5
    headers = header.checksum_start + (8 if udp else (packet[start + 12] >> 4) * 4)
    segments = -(-(size - headers) // header.segment_size)
    return size + max(0, segments - 1) * headers


def ones_sum(data: bytes) -> int:
    """The ones' complement sum of RFC 1071, folded to 16 bits."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 65535, so the sum of the 16-bit words is the number modulo 65535.
    total = int.from_bytes(data) % 0xFFFF
    return total or (0xFFFF if any(data) else 0)


def finish_checksum(packet: bytes) -> bytes:
    """Fill in a checksum that was left to the hardware, and say that nobody has verified it.

    The receiver then computes it. A packet that stands for several segments cannot be finished:
    each segment gets a checksum of its own later; it is returned as it is.
    """
    header = VnetHeader.parse(packet)
    if header.gso_type:
        return packet
    plain = bytearray(packet)
    plain[:VNET_SIZE] = VnetHeader(0, 0, 0, 0, 0, 0).pack()
    if header.flags & VnetFlag.NEEDS_CHECKSUM:
        start = VNET_SIZE + header.checksum_start
        field = start + header.checksum_offset
        value = 0xFFFF - ones_sum(bytes(plain[start:]))
        plain[field : field + 2] = (value or 0xFFFF).to_bytes(2)
    return bytes(plain)


def corrupt(packet: bytes, rng: random.Random, *, deliver: bool = False) -> bytes:
    """Flip one bit of the payload, of the protocol's header where there is no payload.

    By default the checksum is left as it was for the right bytes, so that the receiver drops the
    packet, also on the loopback device, where the kernel otherwise trusts what it sent itself. With
    `deliver` the checksum is made to fit: the receiver gets wrong bytes.
    """
    before = packet if deliver else finish_checksum(packet)
    found = parse(before, VNET_SIZE)
    first, end = _payload(before, found)
    if first >= end:
        return before
    changed = bytearray(before)
    changed[first + rng.randrange(end - first)] ^= 1 << rng.randrange(8)
    if not deliver or found is None or found.fragment:
        return bytes(changed)
    if before[0] & VnetFlag.NEEDS_CHECKSUM:
        return bytes(changed)  # the kernel sums what it finds
    return _fit_checksum(before, changed, found)


def _payload(packet: bytes, found: Packet | None) -> tuple[int, int]:
    """Where a bit may be flipped: never in the addresses, the ports or the checksum itself."""
    if found is None:
        return min(VNET_SIZE + _ETHERNET, len(packet)), len(packet)
    start = found.transport
    if found.protocol == TCP and len(packet) > start + 12 and found.ports:
        start += (packet[start + 12] >> 4) * 4
    elif found.protocol in _CHECKSUMS and (found.ports or not found.fragment):
        start += 8
    if start >= found.end:  # nothing carried: the sequence number, the identifier, or what there is
        return min(found.transport + 4, found.end), min(found.transport + 6, found.end)
    return start, found.end


def _fit_checksum(before: bytes, changed: bytearray, found: Packet) -> bytes:
    """Bring a finished checksum up to date (RFC 1624, equation 3, over the whole payload)."""
    offset = _CHECKSUMS.get(found.protocol)
    field = found.transport + (offset or 0)
    if offset is None or field + 2 > found.end:
        return bytes(changed)
    old = int.from_bytes(before[field : field + 2])
    if found.protocol == UDP and old == 0:
        return bytes(changed)  # the sender used none
    was, now = (
        ones_sum(before[found.transport : found.end]),
        ones_sum(bytes(changed[found.transport : found.end])),
    )
    value = 0xFFFF - ((0xFFFF - old) + (0xFFFF - was) + now) % 0xFFFF
    changed[field : field + 2] = value.to_bytes(2)
    return bytes(changed)
