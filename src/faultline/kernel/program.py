"""The classifier as an eBPF program: what is done to a packet that is hit.

One program serves one fault on one device in one direction. Its answer is "go on to the next
filter" (TC_ACT_UNSPEC), "stolen" (the packet is gone and looks lost: TCP does not know it as a
local drop and no sender sees an error), or a redirect. Overlapping faults are filters in a row.

What a packet has behind it is written in its `tc_index`: a tag of device and direction, and the
number (slot) of the last fault that held it. A packet that comes back from a hop goes on behind
that fault.
"""

from __future__ import annotations

import sys

from faultline.kernel.answer import Answering
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
    Assembler,
    B,
    H,
    W,
)
from faultline.kernel.headers import (
    BEFORE,
    BOOT_NS,
    CHANGE_HEAD,
    CHANGE_TYPE,
    CLONE_REDIRECT,
    CSUM,
    CSUM_FLAGS,
    CSUM_LEVEL,
    END,
    FAILED,
    FRAGMENT,
    HEAD,
    L4_CSUM,
    LOOKUP,
    OFFSET,
    PROBE,
    PROBE_MAGIC,
    PROBE_TRAILER,
    PROTO,
    REDIRECT,
    SCRATCH,
    SKB_LEN,
    SKB_MARK,
    SKB_PROTOCOL,
    SKB_TC_INDEX,
    SLOT_BITS,
    STORE_BYTES,
    TC_ACT_STOLEN,
    TC_ACT_UNSPEC,
    HeaderReader,
    Maps,
    Place,
)  # fmt: skip
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.tc import Direction

CSUM_LEVEL_RESET = 3
RECOMPUTE_CSUM = 1
MARK_MANGLED_0 = 1 << 5
_CORRUPT_SPAN = 1024


def build(place: Place, match: Match, action: Action, guard: Guard, maps: Maps) -> bytes:
    """The whole program."""
    return _Builder(place, match, action, guard, maps).build()


class _Builder(Answering):
    """A selection and what is done to the packets that it hits."""

    def build(self) -> bytes:
        a = self.asm
        a.mov(R6, R1)
        self.passed()
        self.probe()
        self.counters()
        self.gates()
        self.headers()
        self.exempt()
        self.members()
        self.predicate()
        if self.action.kind is ActionKind.CORRUPT:
            self._corruptible()
        self.decide()
        from_action = {
            ActionKind.DROP: self._drop,
            ActionKind.DUPLICATE: self._duplicate,
            ActionKind.REDIRECT: self._redirect,
            ActionKind.CORRUPT: self._corrupt,
            ActionKind.ANSWER: self.answer,
        }
        from_action[self.action.kind]()
        a.label("unmatched")
        a.load(DW, R1, R10, PROBE)
        a.jump("ne", R1, 0, "steal")
        a.label("pass")
        a.exit(TC_ACT_UNSPEC)
        a.label("steal")
        a.exit(TC_ACT_STOLEN)
        return a.bytes()

    def _set_passed(self) -> None:
        """Whatever comes back to this device in this direction goes on behind this slot."""
        self.asm.mov(R1, self.place.passed)
        self.asm.store(W, R6, SKB_TC_INDEX, R1)

    def _probe_ends(self) -> None:
        """A probe is never acted upon: what would happen to it is counted, then it is stolen."""
        self.asm.load(DW, R1, R10, PROBE)
        self.asm.jump("ne", R1, 0, "steal")

    def _drop(self) -> None:
        self.asm.goto("steal")

    def _duplicate(self) -> None:
        """Send a clone the same way; marked, so that it does not meet this filter again."""
        a = self.asm
        self._probe_ends()
        self._set_passed()
        a.mov(R1, R6)
        a.mov(R2, self.place.ifindex)
        a.mov(R3, 1 if self.place.direction is Direction.INGRESS else 0)
        a.call(CLONE_REDIRECT)
        a.jump("eq", R0, 0, "pass")
        self.count(FAILED)
        a.goto("pass")

    def _redirect(self) -> None:
        """Hand the packet to the hop. A probe goes too, and its time of departure is noted."""
        a = self.asm
        if self.maps.times >= 0:
            a.load(DW, R1, R10, PROBE)
            a.jump("eq", R1, 0, "no-times")
            note_time(self, self.maps.times, 0, "unmatched")
            a.label("no-times")
        self._to_target()

    def _to_target(self) -> None:
        a = self.asm
        if not self.place.header_bytes:  # a tunnel: give the packet the Ethernet header of the hop
            a.load(W, R1, R6, SKB_PROTOCOL)
            a.store(H, R10, SCRATCH, R1)
            a.mov(R1, R6)
            a.mov(R2, 14)
            a.mov(R3, 0)
            a.call(CHANGE_HEAD)
            a.jump("ne", R0, 0, "failed")
            a.mov(R2, 12)
            self._write(SCRATCH, 2, "failed")
        a.mov(R1, self.action.target)
        a.mov(R2, 0)
        a.call(REDIRECT)
        a.exit()
        if not self.place.header_bytes:
            a.label("failed")
            self.count(FAILED)
            a.goto("pass")

    def _write(self, source: int, count: int, otherwise: str) -> None:
        """Write stack bytes into the packet at offset r2; a driver's full sum is kept in step."""
        a = self.asm
        a.mov(R1, R6)
        a.mov(R3, R10)
        a.alu("add", R3, source)
        a.mov(R4, count)
        a.mov(R5, RECOMPUTE_CSUM)
        a.call(STORE_BYTES)
        a.jump("ne", R0, 0, otherwise)

    def _corruptible(self) -> None:
        """Only whole TCP, UDP and ICMP packets: r8 becomes the offset of the payload."""
        a = self.asm
        a.load(DW, R1, R10, FRAGMENT)
        a.jump("ne", R1, 0, "unmatched")
        a.store(DW, R10, CSUM_FLAGS, 2)
        a.load(DW, R1, R10, PROTO)
        for number, name in ((6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmp")):
            a.jump("eq", R1, number, name)
        a.goto("unmatched")
        a.label("tcp")
        self.fetch(R7, SCRATCH, 1, "unmatched", plus=12)
        a.load(B, R8, R10, SCRATCH)
        a.alu("rsh", R8, 4)
        a.alu("lsh", R8, 2)
        a.store(DW, R10, CSUM, 16)
        a.goto("payload")
        a.label("udp")
        a.store(DW, R10, CSUM_FLAGS, 2 | MARK_MANGLED_0)
        a.store(DW, R10, CSUM, 6)
        a.mov(R8, 8)
        a.goto("payload")
        a.label("icmp")
        a.store(DW, R10, CSUM, 2)
        a.mov(R8, 8)
        a.label("payload")
        a.alu("add", R8, R7)
        a.load(DW, R1, R10, END)
        a.jump("ne", R1, 0, "end-known")
        a.load(W, R1, R6, SKB_LEN)
        a.store(DW, R10, END, R1)
        a.label("end-known")
        if self.action.fix_checksum:
            a.jump("ge", R8, R1, "unmatched")

    def _corrupt(self) -> None:
        """Flip one bit of the payload; then mend the checksum or make sure that it is wrong."""
        a = self.asm
        self._probe_ends()
        a.load(DW, R1, R10, END)
        a.jump("ge", R8, R1, "checksum")
        a.alu("sub", R1, R8)
        a.jump("le", R1, _CORRUPT_SPAN, "span")
        a.mov(R1, _CORRUPT_SPAN)
        a.label("span")
        a.store(DW, R10, OFFSET, R1)
        self.draw(2)
        a.load(DW, R1, R10, OFFSET)
        a.alu("mod", R0, R1)
        a.alu("add", R8, R0)
        self.fetch(R8, SCRATCH, 1, "failed-write")
        a.load(B, R1, R10, SCRATCH)
        a.store(DW, R10, BEFORE, R1)
        self.draw(3)
        a.alu("and", R0, 7)
        a.mov(R1, 1)
        a.alu("lsh", R1, R0)
        a.load(B, R2, R10, SCRATCH)
        a.alu("xor", R2, R1)
        a.store(B, R10, SCRATCH, R2)
        a.mov(R2, R8)
        self._write(SCRATCH, 1, "failed-write")
        a.label("checksum")
        if self.action.fix_checksum:
            self._mend_checksum()
        else:
            self._break_checksum()
        if self.action.target:
            self._to_target()
        else:
            a.goto("pass")
        a.label("failed-write")
        self.count(FAILED)
        a.goto("pass")

    def _mend_checksum(self) -> None:
        """Tell the checksum which byte changed; with an offloaded one there is nothing to mend."""
        a = self.asm
        a.alu("sub", R8, R7)
        a.alu("and", R8, 1)
        if sys.byteorder == "big":
            a.alu("xor", R8, 1)
        a.alu("lsh", R8, 3)
        a.load(DW, R3, R10, BEFORE)
        a.alu("lsh", R3, R8)
        a.load(B, R4, R10, SCRATCH)
        a.alu("lsh", R4, R8)
        a.mov(R1, R6)
        a.load(DW, R2, R10, CSUM)
        a.alu("add", R2, R7)
        a.load(DW, R5, R10, CSUM_FLAGS)
        a.call(L4_CSUM)
        a.jump("ne", R0, 0, "failed-write")

    def _break_checksum(self) -> None:
        """Turn two bits of the checksum and withdraw the driver's word that it was right.

        Of an offloaded checksum this is the seed, so what the device computes is wrong as well. One
        flipped payload bit can never cancel a difference of 0x0101.
        """
        a = self.asm
        a.mov(R1, R6)
        a.mov(R2, CSUM_LEVEL_RESET)
        a.call(CSUM_LEVEL)
        a.load(DW, R8, R10, CSUM)
        a.alu("add", R8, R7)
        self.fetch(R8, SCRATCH, 2, "failed-write")
        a.load(H, R1, R10, SCRATCH)
        a.alu("xor", R1, 0x0101)
        a.store(H, R10, SCRATCH, R1)
        a.mov(R2, R8)
        self._write(SCRATCH, 2, "failed-write")


def note_time(reader: HeaderReader, times: int, offset: int, otherwise: str) -> None:
    """Write the boot time into the probe's entry, by the number at the very end of the packet."""
    a = reader.asm
    a.load(W, R2, R6, SKB_LEN)
    a.alu("sub", R2, 16)
    reader.fetch(R2, HEAD, 16, otherwise)
    a.load(DW, R1, R10, HEAD)
    a.mov64(R2, int.from_bytes(PROBE_TRAILER, sys.byteorder))
    a.jump("ne", R1, R2, otherwise)
    a.load(W, R1, R10, HEAD + 8)
    a.mov32(R2, reader.place.probe_mark)
    a.jump("ne", R1, R2, otherwise)
    a.call(BOOT_NS)
    a.store(DW, R10, SCRATCH, R0)
    a.load_map(R1, times)
    a.mov(R2, R10)
    a.alu("add", R2, HEAD + 12)
    a.call(LOOKUP)
    skip = a.fresh("time")
    a.jump("eq", R0, 0, skip)
    a.load(DW, R1, R10, SCRATCH)
    a.store(DW, R0, offset, R1)
    a.label(skip)


def build_return(place: Place, times: int, *, by_mark: bool = True) -> bytes:
    """The program behind a hop: puts packets back where they were taken, behind this slot.

    A redirect *into* a device sets the packet's type (for us, for others, broadcast) afresh from
    its address, one *out of* a device needs "for us", which the loopback device takes as it comes.
    Probes end here, and their time of arrival is noted. `by_mark` is False behind a tap, where the
    packet's mark was lost in user space and the trailer alone tells.
    """
    reader = HeaderReader(place)
    a = reader.asm
    a.mov(R6, R1)
    if times >= 0:
        if by_mark:
            a.load(W, R1, R6, SKB_MARK)
            a.mov32(R2, place.probe_mark)
            a.jump("ne", R1, R2, "ordinary")
        note_time(reader, times, 8, "ordinary")
        a.exit(TC_ACT_STOLEN)
        a.label("ordinary")
    a.mov(R1, place.passed)
    a.store(W, R6, SKB_TC_INDEX, R1)
    a.mov(R1, R6)
    a.mov(R2, 0)
    a.call(CHANGE_TYPE)
    a.mov(R1, place.ifindex)
    a.mov(R2, 1 if place.direction is Direction.INGRESS else 0)
    a.call(REDIRECT)
    a.exit()
    return a.bytes()


def build_injection(ifindex: int) -> bytes:
    """A program that hands probes into a device as if they had just arrived there."""
    a = Assembler()
    a.mov(R6, R1)
    a.load(W, R1, R6, SKB_MARK)
    a.alu("rsh", R1, SLOT_BITS + 1)
    a.mov32(R2, PROBE_MAGIC >> SLOT_BITS + 1)
    a.jump("ne", R1, R2, "steal")
    a.mov(R1, ifindex)
    a.mov(R2, 1)
    a.call(REDIRECT)
    a.exit()
    a.label("steal")
    a.exit(TC_ACT_STOLEN)
    return a.bytes()


def build_nothing() -> bytes:
    """A program that goes on to the next filter."""
    a = Assembler()
    a.exit(TC_ACT_UNSPEC)
    return a.bytes()
