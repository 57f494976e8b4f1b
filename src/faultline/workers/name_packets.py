"""Queries of DNS as packets, and packets that answer them: pure.

A query (RFC 1035) is read out of a frame of UDP, or out of the segment of a TCP connection that
carries the whole of it. The answer is a frame as the server that was asked would have sent it: its
address and port, the identifier and the question of the query byte by byte, EDNS (RFC 6891) when
the query had it. What is not understood is no query, so that it passes unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from faultline.kernel import frame
from faultline.kernel.frame import Packet
from faultline.kernel.tap import VNET_SIZE

A: Final = 1
AAAA: Final = 28
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5
CODES: Final = {0: "NOERROR", SERVFAIL: "SERVFAIL", NXDOMAIN: "NXDOMAIN", REFUSED: "REFUSED"}
PROBE: Final = 65001  # an option of EDNS for local use: a query of our own, which never travels on
_OPT: Final = 41
_INTERNET: Final = 1
_HEADER: Final = struct.Struct("!HHHHHH")
_RECORD: Final = struct.Struct("!HHIH")
_RESPONSE, _KEPT, _AVAILABLE = 0x8000, 0x0110, 0x0080  # what an answer adds and keeps of the flags
_POINTER: Final = b"\xc0\x0c"  # to the name in the question
_DNSSEC: Final = 0x8000
_SIZE: Final = 1232  # bytes of an answer that we would take
_PLAIN: Final = bytes(VNET_SIZE)  # nothing offloaded, checksums as they stand
_FIN, _RST, _PSH, _ACK = 1, 4, 8, 16
_STAMPS: Final = 8  # the option of TCP with times (RFC 7323)


@dataclass(frozen=True, slots=True)
class Query:
    """One question as it was asked."""

    number: int
    flags: int
    name: str  # lower case, without the dot at its end
    kind: int
    question: bytes
    edns: bool
    wants_dnssec: bool
    probe: bool


class Asked(NamedTuple):
    """A query and the packet that carries it."""

    query: Query
    packet: Packet
    payload: int  # bytes behind the header of TCP; 0 in UDP


def read_query(message: bytes) -> Query | None:
    """The one question of a standard query; None for anything else."""
    if len(message) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & 0xF800 or questions != 1 or answers or authorities or additional > 2:
        return None
    name, at = _name(message, _HEADER.size)
    if name is None or len(message) < at + 4:
        return None
    kind, group = struct.unpack_from("!HH", message, at)
    if group != _INTERNET:
        return None
    end = at + 4
    options = _options(message, end, additional)
    return Query(
        number,
        flags,
        name,
        kind,
        message[_HEADER.size : end],
        options is not None,
        bool(options and options[0] & _DNSSEC),
        bool(options and _has_probe(options[1])),
    )


def _name(message: bytes, at: int) -> tuple[str | None, int]:
    """A name without pointers, and the position behind it; None where there is none."""
    labels: list[str] = []
    while at < len(message) and (length := message[at]):
        if length > 63 or at + 1 + length >= len(message):
            return None, at
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    return (".".join(labels), at + 1) if at < len(message) else (None, at)


def _options(message: bytes, at: int, count: int) -> tuple[int, bytes] | None:
    """The flags and the data of the OPT record; None without one."""
    for _ in range(count):
        name, at = _name(message, at)
        if name is None or len(message) < at + _RECORD.size:
            return None
        kind, _, extended, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        if kind == _OPT:
            return extended & 0xFFFF, message[at : at + length]
        at += length
    return None


def _has_probe(options: bytes) -> bool:
    while len(options) >= 4:
        code, length = struct.unpack_from("!HH", options)
        if code == PROBE:
            return True
        options = options[4 + length :]
    return False


def ask(name: str, kind: int, number: int) -> bytes:
    """A query of our own, with the option that keeps it here."""
    labels = b"".join(bytes([len(one)]) + one.encode("ascii") for one in name.split(".") if one)
    question = labels + b"\0" + struct.pack("!HH", kind, _INTERNET)
    option = struct.pack("!HH", PROBE, 0)
    opt = b"\0" + _RECORD.pack(_OPT, _SIZE, 0, len(option)) + option
    return _HEADER.pack(number, 0x0100, 1, 0, 0, 1) + question + opt


def answer(query: Query, code: int, addresses: Sequence[bytes] = ()) -> bytes:
    """The message that answers a query with a code, and with addresses that may not be kept."""
    flags = _RESPONSE | query.flags & _KEPT | _AVAILABLE | code
    records = b"".join(
        _POINTER + _RECORD.pack(query.kind, _INTERNET, 0, len(each)) + each for each in addresses
    )
    opt = b""
    if query.edns:
        opt = b"\0" + _RECORD.pack(_OPT, _SIZE, _DNSSEC if query.wants_dnssec else 0, 0)
    head = _HEADER.pack(query.number, flags, 1, len(addresses), 0, int(query.edns))
    return head + query.question + records + opt


def asked(packet: bytes, port: int) -> Asked | None:
    """The query in a packet (virtio header, frame) to this port; None when it holds none."""
    found = frame.parse(packet, VNET_SIZE)
    if found is None or found.fragment or found.ports is None or found.ports[1] != port:
        return None
    if found.protocol == frame.UDP:
        query = read_query(packet[found.transport + 8 : found.end])
        return Asked(query, found, 0) if query else None
    if found.protocol != frame.TCP or found.end < found.transport + 20:
        return None
    data = packet[found.transport + (packet[found.transport + 12] >> 4) * 4 : found.end]
    length = int.from_bytes(data[:2])
    if len(data) < 2 + length:  # only the beginning of one: it is not looked for any further
        return None
    query = read_query(data[2 : 2 + length])
    return Asked(query, found, len(data)) if query else None


def reply(packet: bytes, to: Asked, message: bytes) -> bytes:
    """The packet that brings a message to whoever asked; it ends a TCP connection."""
    found = to.packet
    source, destination = found.ports or (0, 0)
    if found.protocol == frame.UDP:
        head = struct.pack("!HHHH", destination, source, 8 + len(message), 0)
        return _back(packet, found, head + message)
    theirs, ours, stamps = _sequence(packet, found)
    body = stamps + len(message).to_bytes(2) + message
    head = struct.pack(
        "!HHIIBBHHH",
        destination, source, ours, theirs + to.payload & 0xFFFFFFFF,
        20 + len(stamps) << 2, _FIN | _PSH | _ACK, 0xFFFF, 0, 0,
    )  # fmt: skip
    return _back(packet, found, head + body)


def cut(packet: bytes, to: Asked) -> bytes:
    """The packet that ends the same TCP connection at the server, which has not got the query."""
    found = to.packet
    source, destination = found.ports or (0, 0)
    theirs, ours, _ = _sequence(packet, found)
    head = struct.pack(
        "!HHIIBBHHH", source, destination, theirs, ours, 20 << 2, _RST | _ACK, 0, 0, 0
    )
    ether = packet[VNET_SIZE : found.network]
    return _whole(ether, found.source, found.destination, found.protocol, head)


def _sequence(packet: bytes, found: Packet) -> tuple[int, int, bytes]:
    """The sender's sequence number, the one it waits for, and its times turned round."""
    start = found.transport
    theirs, ours = struct.unpack_from("!II", packet, start + 4)
    at, end = start + 20, start + (packet[start + 12] >> 4) * 4
    while at < end and packet[at]:
        if packet[at] == 1:  # padding
            at += 1
            continue
        length = packet[at + 1]
        if packet[at] == _STAMPS and length == 10:
            value, echo = packet[at + 2 : at + 6], packet[at + 6 : at + 10]
            return theirs, ours, b"\1\1" + bytes([_STAMPS, 10]) + echo + value
        at += max(2, length)
    return theirs, ours, b""


def _back(packet: bytes, found: Packet, transport: bytes) -> bytes:
    """A packet the other way: addresses of the link and of the network changed round."""
    ether = packet[VNET_SIZE : found.network]
    turned = ether[6:12] + ether[:6] + ether[12:]
    return _whole(turned, found.destination, found.source, found.protocol, transport)


def _whole(
    ether: bytes, source: bytes, destination: bytes, protocol: int, transport: bytes
) -> bytes:
    """A packet with its checksums."""
    pseudo = source + destination + struct.pack("!II", len(transport), protocol)
    at = 6 if protocol == frame.UDP else 16
    value = 0xFFFF - frame.ones_sum(pseudo + transport)
    transport = transport[:at] + (value or 0xFFFF).to_bytes(2) + transport[at + 2 :]
    if len(source) == 16:
        head = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64) + source + destination
        return _PLAIN + ether + head + transport
    length = 20 + len(transport)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, protocol, 0)
    head += source + destination
    head = head[:10] + (0xFFFF - frame.ones_sum(head)).to_bytes(2) + head[12:]
    return _PLAIN + ether + head + transport


def read_answer(message: bytes) -> tuple[int, int, list[bytes]] | None:
    """The number, the code and the addresses of an answer; None for what is none."""
    if len(message) < _HEADER.size:
        return None
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if not flags & _RESPONSE:
        return None
    at, found = _HEADER.size, list[bytes]()
    for _ in range(questions):
        at = _name(message, at)[1] + 4
    for _ in range(answers):
        at = at + 2 if message[at : at + 1] >= b"\xc0" else _name(message, at)[1]
        if len(message) < at + _RECORD.size:
            return None
        kind, _, _, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        if kind in (A, AAAA):
            found.append(message[at : at + length])
        at += length
    return number, flags & 0xF, found
