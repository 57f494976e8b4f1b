"""Reading packets in eBPF: where a program sits, and how it finds addresses, ports and payload.

Offsets are counted from the link layer and read by helper calls, so packets in several pieces (a
large send, a driver with page fragments) are read like any other. Headers: RFC 791, 8200, 4302.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from faultline.kernel.assembler import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R9,
    R10,
    Assembler,
    B,
    Reg,
    W,
)  # fmt: skip
from faultline.kernel.tc import Direction

SLOT_BITS = 6
MAX_SLOT = (1 << SLOT_BITS) - 1
PROBE_MAGIC = 0xFA171E00
PROBE_TRAILER = b"\xf1\x17\xa0\x9bFLpr"  # then the mark and the probe's number, both 4 bytes
PROBE_TIMES = 1024

TC_ACT_UNSPEC, TC_ACT_STOLEN = -1, 4

LOOKUP, PRANDOM, STORE_BYTES, L4_CSUM, CLONE_REDIRECT = 1, 7, 9, 11, 13
REDIRECT, LOAD_BYTES, CHANGE_TYPE, CHANGE_HEAD, BOOT_NS, CSUM_LEVEL = 23, 26, 32, 43, 125, 135
CSUM_DIFF, CHANGE_TAIL = 28, 38
UPDATE, SKB_ANCESTOR = 2, 83

SKB_LEN, SKB_MARK, SKB_PROTOCOL, SKB_TC_INDEX = 0, 8, 16, 44

SEEN, MATCHED, HIT, MATCHED_BYTES, HIT_BYTES, EXEMPTED, FAILED, STATE = range(8)
PROBE_BLOCK = 64  # a second block of the same eight counters, for probe packets
COUNTER_BYTES = 128

# the stack, from r10 downwards
KEY, PROBE, PROTO, PORTS, FRAGMENT, HAS_PORTS = -4, -16, -24, -32, -40, -48
SOURCE, DESTINATION, HEAD, SCRATCH, END = -72, -96, -136, -144, -152
CSUM, OFFSET, BEFORE, CSUM_FLAGS = -160, -168, -176, -184
ANSWER_IP = -304  # an answer's IP header; the link header lies before it
ENDS = -304  # of the question whose packet it is, which is over by then

_IPV4, _IPV6 = 0x0800, 0x86DD
_EXTENSIONS = 6
_ICMPV6 = 58
_NEIGHBOUR = (133, 137)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program sits: what `tc_index` values mean there, and where the IP header begins."""

    ifindex: int
    direction: Direction
    slot: int
    cookie: int = 0
    header_bytes: int = 14
    loopback: bool = False

    @property
    def tag(self) -> int:
        """Ten bits, never 0, that stand for this device and direction in `tc_index`."""
        text = f"{self.cookie}/{self.ifindex}/{self.direction}"
        return 1 + zlib.crc32(text.encode()) % 1023

    @property
    def passed(self) -> int:
        """The `tc_index` of a packet that has been past this slot."""
        return self.tag << SLOT_BITS | self.slot

    @property
    def probe_mark(self) -> int:
        """The packet mark of probes that are meant for this slot."""
        side = 1 << SLOT_BITS if self.direction is Direction.INGRESS else 0
        return PROBE_MAGIC | side | self.slot


@dataclass(frozen=True, slots=True)
class Maps:
    """Descriptors of the maps that the program uses; -1 where it has none."""

    counters: int
    sources: int = -1
    destinations: int = -1
    heartbeat: int = -1
    times: int = -1
    ends: int = -1
    flows: int = -1


def swap16(value: int) -> int:
    """A 16-bit value as it is read from network byte order."""
    return struct.unpack("=H", struct.pack(">H", value))[0]


class HeaderReader:
    """r6 is the packet, r7 the offset of the transport header, r9 the counters, r8 is free.

    A packet that is not IP, or is neighbour discovery, or is cut short goes to `unmatched`.
    """

    def __init__(self, place: Place) -> None:
        self.asm = Assembler()
        self.place = place

    def lookup(self, fd: int, otherwise: str) -> None:
        """r0 = the first value of an array."""
        a = self.asm
        a.store(W, R10, KEY, 0)
        a.load_map(R1, fd)
        a.mov(R2, R10)
        a.alu("add", R2, KEY)
        a.call(LOOKUP)
        a.jump("eq", R0, 0, otherwise)

    def count(self, field: int, amount: int | None = 1) -> None:
        """Add to a counter; None adds the packet's length. Uses r1."""
        if amount is None:
            self.asm.load(W, R1, R6, SKB_LEN)
        else:
            self.asm.mov(R1, amount)
        self.asm.atomic_add(R9, 8 * field, R1)

    def fetch(self, offset: Reg | int, to: int, count: int, otherwise: str, plus: int = 0) -> None:
        """Copy packet bytes to the stack."""
        a = self.asm
        a.mov(R1, R6)
        a.mov(R2, offset)
        if plus:
            a.alu("add", R2, plus)
        a.mov(R3, R10)
        a.alu("add", R3, to)
        a.mov(R4, count)
        a.call(LOAD_BYTES)
        a.jump("ne", R0, 0, otherwise)

    def headers(self) -> None:
        """Find addresses, protocol, transport header and ports; anything but IP is let pass."""
        a = self.asm
        for slot in (FRAGMENT, HAS_PORTS, PROTO, END):
            a.store(DW, R10, slot, 0)
        for key in (SOURCE, DESTINATION):
            a.store(W, R10, key, 160)
        a.load(W, R1, R6, SKB_PROTOCOL)
        a.jump("eq", R1, swap16(_IPV4), "v4")
        a.jump("eq", R1, swap16(_IPV6), "v6")
        a.goto("unmatched")
        a.label("v4")
        self._v4()
        a.goto("transport")
        a.label("v6")
        self._v6()
        a.label("transport")
        self._ports()
        a.load(DW, R1, R10, PROTO)
        a.jump("ne", R1, _ICMPV6, "no-neighbour")
        self.fetch(R7, SCRATCH, 1, "unmatched")
        a.load(B, R1, R10, SCRATCH)
        a.jump("lt", R1, _NEIGHBOUR[0], "no-neighbour")
        a.jump("le", R1, _NEIGHBOUR[1], "unmatched")
        a.label("no-neighbour")
        self.count(SEEN)

    def be16(self, to: Reg, at: int, scratch: Reg) -> None:
        """A 16-bit number in network byte order on the stack."""
        a = self.asm
        a.load(B, to, R10, at)
        a.alu("lsh", to, 8)
        a.load(B, scratch, R10, at + 1)
        a.alu("or", to, scratch)

    def _end_of_packet(self, length_at: int, plus: int) -> None:
        """Where the packet's data ends, without padding; 0 when it does not say (jumbo)."""
        a = self.asm
        skip = a.fresh("end")
        self.be16(R1, length_at, R2)
        a.jump("eq", R1, 0, skip)
        a.alu("add", R1, plus)
        a.store(DW, R10, END, R1)
        a.label(skip)

    def _v4(self) -> None:
        a = self.asm
        start = self.place.header_bytes
        self.fetch(start, HEAD, 20, "unmatched")
        a.load(B, R7, R10, HEAD)
        a.alu("and", R7, 15)
        a.alu("lsh", R7, 2)
        a.alu("add", R7, start)
        a.load(B, R1, R10, HEAD + 9)
        a.store(DW, R10, PROTO, R1)
        self.be16(R1, HEAD + 6, R2)
        a.alu("and", R1, 0x1FFF)
        a.store(DW, R10, FRAGMENT, R1)
        for key, at in ((SOURCE, HEAD + 12), (DESTINATION, HEAD + 16)):
            a.store(W, R10, key + 4, 4)
            a.load(W, R1, R10, at)
            a.store(W, R10, key + 8, R1)
            for word in (12, 16, 20):
                a.store(W, R10, key + word, 0)
        self._end_of_packet(HEAD + 2, start)

    def _v6(self) -> None:
        a = self.asm
        start = self.place.header_bytes
        self.fetch(start, HEAD, 40, "unmatched")
        a.mov(R7, start + 40)
        a.load(B, R1, R10, HEAD + 6)
        a.store(DW, R10, PROTO, R1)
        for key, at in ((SOURCE, HEAD + 8), (DESTINATION, HEAD + 24)):
            a.store(W, R10, key + 4, 6)
            for word in range(0, 16, 4):
                a.load(W, R1, R10, at + word)
                a.store(W, R10, key + 8 + word, R1)
        self._end_of_packet(HEAD + 4, start + 40)
        for _ in range(_EXTENSIONS):
            self._extension()

    def _extension(self) -> None:
        """Step over one IPv6 extension header (RFC 8200); a later fragment is not looked into."""
        a = self.asm
        plain, fragment, auth = (a.fresh(stem) for stem in ("plain", "fragment", "auth"))
        follow = a.fresh("follow")
        a.load(DW, R1, R10, PROTO)
        a.jump("eq", R1, 44, fragment)
        a.jump("eq", R1, 51, auth)
        for number in (0, 43, 60, 135):
            a.jump("eq", R1, number, plain)
        a.goto("transport")
        a.label(plain)
        self.fetch(R7, SCRATCH, 2, "unmatched")
        a.load(B, R1, R10, SCRATCH + 1)
        a.alu("add", R1, 1)
        a.alu("lsh", R1, 3)
        a.goto(follow)
        a.label(auth)
        self.fetch(R7, SCRATCH, 2, "unmatched")
        a.load(B, R1, R10, SCRATCH + 1)
        a.alu("add", R1, 2)
        a.alu("lsh", R1, 2)
        a.goto(follow)
        a.label(fragment)
        self.fetch(R7, SCRATCH, 8, "unmatched")
        self.be16(R1, SCRATCH + 2, R2)
        a.alu("and", R1, 0xFFF8)
        a.store(DW, R10, FRAGMENT, R1)
        a.mov(R1, 8)
        a.label(follow)
        a.alu("add", R7, R1)
        a.load(B, R1, R10, SCRATCH)
        a.store(DW, R10, PROTO, R1)
        a.load(DW, R1, R10, FRAGMENT)
        a.jump("ne", R1, 0, "transport")

    def _ports(self) -> None:
        a = self.asm
        a.store(W, R10, PORTS, 0)
        a.load(DW, R1, R10, FRAGMENT)
        a.jump("ne", R1, 0, "no-ports")
        a.load(DW, R1, R10, PROTO)
        for number in (6, 17, 132):
            a.jump("eq", R1, number, "with-ports")
        a.goto("no-ports")
        a.label("with-ports")
        self.fetch(R7, PORTS, 4, "no-ports")
        a.store(DW, R10, HAS_PORTS, 1)
        a.label("no-ports")
