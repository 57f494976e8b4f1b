"""Answering a packet in its receiver's name: a TCP reset, or an ICMP message.

The packet itself becomes the answer: its headers are written anew, its tail is cut, and it is sent
back where it came from. A sender on this host gets it as if it had arrived on the device, one on
the other side of the wire over that. Formats: RFC 9293 (3.10.7), RFC 792, RFC 4443.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from faultline.kernel.assembler import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R10,
    B,
    H,
    W,
)
from faultline.kernel.choosing import Choosing
from faultline.kernel.headers import (
    ANSWER_IP,
    CHANGE_TAIL,
    CHANGE_TYPE,
    CSUM_DIFF,
    DESTINATION,
    END,
    FAILED,
    FRAGMENT,
    HEAD,
    MAX_SLOT,
    PORTS,
    PROBE,
    PROTO,
    REDIRECT,
    SCRATCH,
    SKB_LEN,
    SKB_PROTOCOL,
    SKB_TC_INDEX,
    SOURCE,
    STORE_BYTES,
    swap16,
)  # fmt: skip
from faultline.kernel.match import Answer
from faultline.kernel.tc import Direction

_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_ETHERNET = 14
_RESET, _RST_ACK = 0x04, 0x14
_HOPS = 64
_RECOMPUTE = 1
_QUOTED = {4: 28, 6: 48}  # bytes of the packet that an ICMP message quotes: IP header and 8 more
_CODES = {
    Answer.REFUSED: {4: (3, 3), 6: (1, 4)},
    Answer.HOST: {4: (3, 1), 6: (1, 3)},
    Answer.NET: {4: (3, 0), 6: (1, 0)},
    Answer.PROHIBITED: {4: (3, 13), 6: (1, 1)},
}
_ECHO = {4: (_ICMP, 8), 6: (_ICMPV6, 128)}


def _word(data: bytes) -> int:
    """Four bytes of a packet as the number that a store of four bytes takes."""
    return int.from_bytes(data, sys.byteorder)


class Answering(Choosing):
    """The part of a classifier that answers packets.

    Nothing is answered that RFC 1122 (3.2.2) leaves unanswered: resets, ICMP but for echo requests,
    later fragments, what is sent to many. Those vanish.
    """

    def answer(self) -> None:
        a = self.asm
        for slot in (PROBE, FRAGMENT):
            a.load(DW, R1, R10, slot)
            a.jump("ne", R1, 0, "steal")
        a.load(W, R1, R6, SKB_PROTOCOL)
        a.jump("eq", R1, swap16(0x86DD), "answer-6")
        self._answer(4)
        a.label("answer-6")
        self._answer(6)

    def _answer(self, version: int) -> None:
        a = self.asm
        self._to_one(version)
        if self.action.answer == Answer.REFUSED:
            icmp = a.fresh("icmp")
            a.load(DW, R1, R10, PROTO)
            a.jump("ne", R1, _TCP, icmp)
            self._reset(version)
            a.label(icmp)
        self._unreachable(version)

    def _to_one(self, version: int) -> None:
        """Go on only with packets to one receiver; options of IPv4 are not answered either."""
        a = self.asm
        a.load(B, R1, R10, DESTINATION + 8)
        if version == 6:
            a.jump("eq", R1, 0xFF, "steal")
            return
        a.jump("ge", R1, 224, "steal")
        a.jump("ne", R7, _ETHERNET + 20, "steal")

    def _reset(self, version: int) -> None:
        """Build the segment that a host without this connection sends."""
        a = self.asm
        at = self._begin(version, _TCP, 20)
        self.fetch(R7, HEAD, 20, "steal")
        a.load(B, R3, R10, HEAD + 13)
        a.jump("set", R3, _RESET, "steal")
        a.load(H, R1, R10, PORTS)
        a.load(H, R2, R10, PORTS + 2)
        a.store(H, R10, at, R2)
        a.store(H, R10, at + 2, R1)
        a.load(W, R1, R10, HEAD + 8)
        a.store(W, R10, at + 4, R1)
        self._acknowledged(version)
        a.store(W, R10, at + 8, R1)
        a.store(W, R10, at + 12, _word(bytes((5 << 4, _RST_ACK, 0, 0))))
        a.store(W, R10, at + 16, 0)
        self._sum(at, 20, at + 16, _TCP)
        self._send(version, 20)

    def _acknowledged(self, version: int) -> None:
        """r1 = the number behind the segment, in network order; r3 are its flags."""
        a = self.asm
        known = a.fresh("end")
        a.load(DW, R8, R10, END)
        a.jump("ne", R8, 0, known)
        a.load(W, R8, R6, SKB_LEN)
        a.label(known)
        a.alu("sub", R8, R7)
        a.load(B, R1, R10, HEAD + 12)
        a.alu("rsh", R1, 4)
        a.alu("lsh", R1, 2)
        a.alu("sub", R8, R1)
        for bit in (0, 1):  # FIN and SYN count as one byte each
            a.mov(R1, R3)
            a.alu("rsh", R1, bit)
            a.alu("and", R1, 1)
            a.alu("add", R8, R1)
        a.load(W, R1, R10, HEAD + 4)
        a.big_endian(R1, 32)
        a.alu("add", R1, R8)
        a.big_endian(R1, 32)

    def _unreachable(self, version: int) -> None:
        a = self.asm
        quoted, (icmp, echo) = _QUOTED[version], _ECHO[version]
        plain = a.fresh("plain")
        a.load(DW, R1, R10, PROTO)
        a.jump("ne", R1, icmp, plain)
        self.fetch(R7, SCRATCH, 1, "steal")
        a.load(B, R1, R10, SCRATCH)
        a.jump("ne", R1, echo, "steal")
        a.label(plain)
        at = self._begin(version, icmp, 8 + quoted)
        kind, code = _CODES[Answer(self.action.answer)][version]
        a.store(W, R10, at, _word(bytes((kind, code, 0, 0))))
        a.store(W, R10, at + 4, 0)
        self.fetch(_ETHERNET, at + 8, quoted, "steal")
        self._sum(at, 8 + quoted, at + 2, _ICMPV6 if version == 6 else 0)
        self._send(version, 8 + quoted)

    def _begin(self, version: int, protocol: int, length: int) -> int:
        """Link and IP header, from the receiver to the sender; gives where the next one begins."""
        a = self.asm
        link = ANSWER_IP - _ETHERNET
        self.fetch(6, link, 6, "steal")
        self.fetch(0, link + 6, 6, "steal")
        a.store(H, R10, link + 12, swap16(0x0800 if version == 4 else 0x86DD))
        if version == 4:
            head = bytes((0x45, 0)) + (20 + length).to_bytes(2) + bytes((0, 0, 0x40, 0))
            head += bytes((_HOPS, protocol, 0, 0))
        else:
            head = bytes((0x60, 0, 0, 0)) + length.to_bytes(2) + bytes((protocol, _HOPS))
        for word in range(0, len(head), 4):
            a.store(W, R10, ANSWER_IP + word, _word(head[word : word + 4]))
        at, size = ANSWER_IP + len(head), 4 if version == 4 else 16
        for key in (DESTINATION, SOURCE):
            for word in range(0, size, 4):
                a.load(W, R1, R10, key + 8 + word)
                a.store(W, R10, at + word, R1)
            at += size
        if version == 4:
            a.mov(R5, 0)
            self._add(ANSWER_IP, 20)
            self._fold(ANSWER_IP + 10)
        return at

    def _sum(self, at: int, length: int, field: int, pseudo: int) -> None:
        """The checksum of the message; with `pseudo`, its protocol, of the addresses as well."""
        a = self.asm
        a.mov(R5, 0)
        if pseudo:
            self._add(SOURCE + 8, 16)  # of an IPv4 address the rest is zero
            a.mov(R5, R0)
            self._add(DESTINATION + 8, 16)
            a.mov(R5, R0)
            a.alu("add", R5, swap16(pseudo))
            a.alu("add", R5, swap16(length))
        self._add(at, length)
        self._fold(field)

    def _add(self, at: int, length: int) -> None:
        """r0 = r5 and the sum of these bytes."""
        a = self.asm
        a.mov(R1, 0)
        a.mov(R2, 0)
        a.mov(R3, R10)
        a.alu("add", R3, at)
        a.mov(R4, length)
        a.call(CSUM_DIFF)

    def _fold(self, field: int) -> None:
        a = self.asm
        a.mov32(R1, 0xFFFFFFFF)
        a.alu("and", R0, R1)
        for _ in range(3):
            a.mov(R1, R0)
            a.alu("rsh", R1, 16)
            a.alu("and", R0, 0xFFFF)
            a.alu("add", R0, R1)
        a.alu("xor", R0, 0xFFFF)
        a.store(H, R10, field, R0)

    def _send(self, version: int, length: int) -> None:
        """Write what was built over the packet and turn it round."""
        a = self.asm
        whole = _ETHERNET + (20 if version == 4 else 40) + length
        failed = a.fresh("failed")
        a.mov(R1, R6)
        a.mov(R2, whole)
        a.mov(R3, 0)
        a.call(CHANGE_TAIL)
        a.jump("ne", R0, 0, failed)
        a.mov(R1, R6)
        a.mov(R2, 0)
        a.mov(R3, R10)
        a.alu("add", R3, ANSWER_IP - _ETHERNET)
        a.mov(R4, whole)
        a.mov(R5, _RECOMPUTE)
        a.call(STORE_BYTES)
        a.jump("ne", R0, 0, failed)
        # On the loopback device whatever leaves arrives there again: both sides hear it arrive.
        arrives = self.place.loopback or self.place.direction is Direction.EGRESS
        back = Direction.INGRESS if arrives else Direction.EGRESS
        # No fault on the way back acts on it: it is news of this one.
        behind = replace(self.place, direction=back, slot=MAX_SLOT)
        a.mov(R1, behind.passed)
        a.store(W, R6, SKB_TC_INDEX, R1)
        a.mov(R1, R6)
        a.mov(R2, 0)
        a.call(CHANGE_TYPE)
        a.mov(R1, self.place.ifindex)
        a.mov(R2, 1 if arrives else 0)
        a.call(REDIRECT)
        a.exit()
        a.label(failed)
        self.count(FAILED)
        a.goto("steal")
