"""DNS messages (RFC 1035): one question out, the answers in. Pure.

What comes in is from anybody: every length is checked, and a compression pointer may only point
backwards, so that none can be followed for ever.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

TYPES = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "SRV": 33,
}
CODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
}
_INTERNET = 1
_HEADER = struct.Struct("!HHHHHH")
_TRUNCATED, _RESPONSE, _RECURSION_WANTED = 0x0200, 0x8000, 0x0100


class Malformed(Exception):
    """Bytes that are not a DNS message, or not an answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    code: str  # NOERROR, NXDOMAIN, SERVFAIL, ...
    answers: list[str]  # of the type that was asked for, in the usual text form
    truncated: bool  # ask again over TCP


def question(name: str, record: str, number: int) -> bytes:
    """A recursive query for one record; raises Malformed for a name that DNS cannot ask for."""
    if record == "PTR":
        with suppress(ValueError):  # given as the name in in-addr.arpa
            name = ip_address(name).reverse_pointer
    return (
        _HEADER.pack(number, _RECURSION_WANTED, 1, 0, 0, 0)
        + _encode(name)
        + struct.pack("!HH", TYPES[record], _INTERNET)
    )


def _encode(name: str) -> bytes:
    out = bytearray()
    for label in name.rstrip(".").split(".") if name.rstrip(".") else []:
        try:
            raw = label.encode("ascii") if label.isascii() else label.encode("idna")
        except UnicodeError as error:
            raise Malformed(f"{label!r} is not a label of a name") from error
        if not 0 < len(raw) < 64:
            raise Malformed(f"{label!r} is not a label of 1 to 63 bytes")
        out += bytes([len(raw)]) + raw
    if len(out) > 254:
        raise Malformed("a name has at most 253 characters")
    return bytes(out) + b"\0"


def reply(data: bytes, asked: bytes) -> Reply:
    """Read the answer to `asked`; raises Malformed if it is none."""
    try:
        return _reply(data, asked)
    except (struct.error, IndexError) as error:
        raise Malformed("the message ends too early") from error


def _reply(data: bytes, asked: bytes) -> Reply:
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if number != int.from_bytes(asked[:2], "big") or not flags & _RESPONSE:
        raise Malformed("not an answer to this question")
    position = _HEADER.size
    if questions:
        name, position = _name(data, position)
        wanted, _ = _name(asked, _HEADER.size)
        if name.lower() != wanted.lower() or data[position : position + 4] != asked[-4:]:
            raise Malformed("an answer to another question")
        position += 4
    kind = int.from_bytes(asked[-4:-2], "big")
    found: list[str] = []
    for _ in range(answers):
        _, position = _name(data, position)
        its_kind, _, _, length = struct.unpack_from("!HHIH", data, position)
        position += 10
        if position + length > len(data):
            raise Malformed("the message ends too early")
        if its_kind == kind:
            found.append(_text(data, position, length, kind))
        position += length
    code = CODES.get(flags & 0xF, f"code {flags & 0xF}")
    return Reply(code, found, bool(flags & _TRUNCATED))


def _name(data: bytes, position: int) -> tuple[str, int]:
    """A name and the position after it."""
    labels: list[str] = []
    after, lowest = 0, position
    while length := data[position]:
        if length & 0xC0 == 0xC0:
            target = int.from_bytes(data[position : position + 2], "big") & 0x3FFF
            if target >= lowest:
                raise Malformed("a name that points to itself or forwards")
            after, position, lowest = after or position + 2, target, target
        elif length & 0xC0 or position + 1 + length > len(data):
            raise Malformed("not a label")
        else:
            labels.append(data[position + 1 : position + 1 + length].decode("ascii", "replace"))
            position += 1 + length
    return ".".join(labels), after or position + 1


def _text(data: bytes, at: int, length: int, kind: int) -> str:
    """The data of one record as zone files write it, without the final dot of names."""
    raw = data[at : at + length]
    match kind:
        case 1 | 28:
            if len(raw) != (4 if kind == 1 else 16):
                raise Malformed("not an address")
            return str(IPv4Address(raw) if kind == 1 else IPv6Address(raw))
        case 2 | 5 | 12:
            return _name(data, at)[0]
        case 15:
            return f"{int.from_bytes(raw[:2], 'big')} {_name(data, at + 2)[0]}"
        case 33:
            priority, weight, port = struct.unpack_from("!HHH", data, at)
            return f"{priority} {weight} {port} {_name(data, at + 6)[0]}"
        case 6:
            server, after = _name(data, at)
            mailbox, after = _name(data, after)
            numbers = struct.unpack_from("!IIIII", data, after)
            return " ".join([server, mailbox, *map(str, numbers)])
        case _:
            return _strings(raw)


def _strings(raw: bytes) -> str:
    """The strings of a TXT record, joined as those who read them do (RFC 7208, 3.3)."""
    out, position = bytearray(), 0
    while position < len(raw):
        length = raw[position]
        out += raw[position + 1 : position + 1 + length]
        position += 1 + length
    return out.decode(errors="replace")
