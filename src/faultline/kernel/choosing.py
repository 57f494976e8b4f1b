"""Choosing packets in eBPF: gates, exemptions, the predicate, and the share that is hit."""

from __future__ import annotations

import sys

from faultline.kernel.assembler import DW, R0, R1, R2, R3, R6, R7, R9, R10, B, H, W
from faultline.kernel.headers import (
    BOOT_NS,
    DESTINATION,
    EXEMPTED,
    FRAGMENT,
    HAS_PORTS,
    HIT,
    HIT_BYTES,
    LOOKUP,
    MATCHED,
    MATCHED_BYTES,
    MAX_SLOT,
    PORTS,
    PRANDOM,
    PROBE,
    PROBE_BLOCK,
    PROTO,
    SCRATCH,
    SKB_MARK,
    SKB_TC_INDEX,
    SLOT_BITS,
    SOURCE,
    STATE,
    Maps,
    Place,
    swap16,
)  # fmt: skip
from faultline.kernel.match import Action, Guard, Match, address_bytes
from faultline.kernel.membership import Owned
from faultline.kernel.tc import Direction

_STEP, _APART = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 0))
"""Shifts and factors of SplitMix64."""


class Choosing(Owned):
    """The part of a classifier that all actions share.

    It ends in one of the labels `pass` (not ours), `unmatched` (looked at, left alone), `steal`, or
    falls through with a packet that is hit.
    """

    def __init__(
        self, place: Place, match: Match, action: Action, guard: Guard, maps: Maps
    ) -> None:
        super().__init__(place)
        self.match = match
        self.action = action
        self.guard = guard
        self.maps = maps

    def passed(self) -> None:
        """Go on when the packet carries our tag and has been past this slot."""
        a = self.asm
        a.load(W, R1, R6, SKB_TC_INDEX)
        a.mov(R2, R1)
        a.alu("rsh", R2, SLOT_BITS)
        a.jump("ne", R2, self.place.tag, "fresh")
        a.alu("and", R1, MAX_SLOT)
        a.jump("ge", R1, self.place.slot, "pass")
        a.label("fresh")

    def probe(self) -> None:
        """Note probes for this slot; those of a slot before it should be gone, so they go now."""
        a = self.asm
        a.store(DW, R10, PROBE, 0)
        a.load(W, R1, R6, SKB_MARK)
        a.mov(R2, R1)
        a.alu("rsh", R2, SLOT_BITS)
        a.mov32(R3, self.place.probe_mark >> SLOT_BITS)
        a.jump("ne", R2, R3, "no-probe")
        a.alu("and", R1, MAX_SLOT)
        a.jump("lt", R1, self.place.slot, "steal")
        a.jump("gt", R1, self.place.slot, "pass")
        a.store(DW, R10, PROBE, 1)
        a.label("no-probe")

    def counters(self) -> None:
        a = self.asm
        self.lookup(self.maps.counters, "pass")
        a.mov(R9, R0)
        a.load(DW, R1, R10, PROBE)
        a.jump("eq", R1, 0, "counting")
        a.alu("add", R9, PROBE_BLOCK)
        a.label("counting")

    def gates(self) -> None:
        """Stand aside after the deadline, or when the worker has not been heard of."""
        a = self.asm
        if not self.guard.deadline and not self.guard.heartbeat:
            return
        a.call(BOOT_NS)
        a.mov(R7, R0)
        if self.guard.deadline:
            a.mov64(R1, self.guard.deadline)
            a.jump("gt", R7, R1, "unmatched")
        if self.guard.heartbeat:
            self.lookup(self.maps.heartbeat, "unmatched")
            a.load(DW, R1, R0, 0)
            a.jump("ge", R1, R7, "alive")
            a.alu("sub", R7, R1)
            a.mov64(R2, self.guard.heartbeat)
            a.jump("gt", R7, R2, "unmatched")
            a.label("alive")

    def exempt(self) -> None:
        """Leave listed connections alone: remote address, remote port, local port."""
        a = self.asm
        outgoing = self.place.direction is Direction.EGRESS
        remote, remote_port = (DESTINATION, PORTS + 2) if outgoing else (SOURCE, PORTS)
        local_port = PORTS if outgoing else PORTS + 2
        for one in self.guard.exempt:
            follow = a.fresh("not-exempt")
            packed = address_bytes(one.remote)
            a.load(DW, R1, R10, PROTO)
            a.jump("ne", R1, 6, follow)
            for word in range(0, len(packed), 4):
                a.load(W, R1, R10, remote + 4 + word)
                a.mov32(R2, int.from_bytes(packed[word : word + 4], sys.byteorder))
                a.jump("ne", R1, R2, follow)
            for port, at in ((one.remote_port, remote_port), (one.local_port, local_port)):
                if port:
                    a.load(H, R1, R10, at)
                    a.jump("ne", R1, swap16(port), follow)
            self.count(EXEMPTED)
            a.goto("unmatched")
            a.label(follow)

    def predicate(self) -> None:
        a = self.asm
        no, yes = ("matched", "unmatched") if self.match.exclude else ("unmatched", "matched")
        if self.match.numbers:
            a.load(DW, R1, R10, PROTO)
            for number in self.match.numbers:
                a.jump("eq", R1, number, "protocol")
            a.goto(no)
            a.label("protocol")
        ranges = (self.match.source_ports, PORTS), (self.match.destination_ports, PORTS + 2)
        for wanted, at in ranges:
            if wanted:
                self._port_ranges(wanted, at, no)
        if self.match.flags or self.match.no_flags:
            self._flags(no)
        keys = (self.maps.sources, SOURCE), (self.maps.destinations, DESTINATION)
        for fd, key in keys:
            if fd >= 0:
                a.load_map(R1, fd)
                a.mov(R2, R10)
                a.alu("add", R2, key)
                a.call(LOOKUP)
                a.jump("eq", R0, 0, no)
        a.mov(R1, 0)  # a plain jump would leave code that nothing reaches when all is excluded
        a.jump("eq", R1, 0, yes)
        a.label("matched")

    def _flags(self, no: str) -> None:
        """Only TCP headers with these flags set and those clear."""
        a = self.asm
        for slot, wanted in ((PROTO, 6), (FRAGMENT, 0)):
            a.load(DW, R1, R10, slot)
            a.jump("ne", R1, wanted, no)
        self.fetch(R7, SCRATCH, 1, no, plus=13)
        a.load(B, R1, R10, SCRATCH)
        a.alu("and", R1, self.match.flags | self.match.no_flags)
        a.jump("ne", R1, self.match.flags, no)

    def _port_ranges(self, ranges: tuple[tuple[int, int], ...], at: int, no: str) -> None:
        a = self.asm
        inside = a.fresh("port")
        a.load(DW, R1, R10, HAS_PORTS)
        a.jump("eq", R1, 0, no)
        self.be16(R1, at, R2)
        for first, last in ranges:
            beyond = a.fresh("beyond")
            a.jump("lt", R1, first, beyond)
            a.jump("le", R1, last, inside)
            a.label(beyond)
        a.goto(no)
        a.label(inside)

    def decide(self) -> None:
        """Count the match and go on only with the packets that are hit."""
        a = self.asm
        self.count(MATCHED)
        self.count(MATCHED_BYTES, None)
        if self.action.every:
            a.mov(R1, 1)
            a.atomic_add(R9, 8 * STATE, R1, fetch=True)
            a.alu("add", R1, 1)
            a.alu("mod", R1, self.action.every)
            a.jump("ne", R1, 0, "unmatched")
        elif self.action.percent < 100:
            self._chance()
        self.count(HIT)
        self.count(HIT_BYTES, None)

    def draw(self, what: int) -> None:
        """A random number of 32 bits in r0. With a seed it follows from that and the number of the
        matched packet alone (SplitMix64); `what` tells apart the draws for one packet.
        """
        a, seed = self.asm, self.action.seed
        if not seed:
            a.call(PRANDOM)
            return
        a.load(DW, R0, R9, 8 * MATCHED)
        a.mov64(R1, _STEP)
        a.alu("mul", R0, R1)
        a.mov64(R1, (seed + what * _APART) % 2**64)
        a.alu("add", R0, R1)
        for shift, factor in _MIX:
            a.mov(R1, R0)
            a.alu("rsh", R1, shift)
            a.alu("xor", R0, R1)
            if factor:
                a.mov64(R1, factor)
                a.alu("mul", R0, R1)
        a.alu("rsh", R0, 32)

    def _chance(self) -> None:
        a = self.asm
        if self.action.correlation:
            self.draw(0)
            a.mov64(R1, round(self.action.correlation / 100 * 2**32))
            a.jump("ge", R0, R1, "draw")
            a.load(DW, R1, R9, 8 * STATE)
            a.jump("eq", R1, 0, "unmatched")
            a.goto("hit")
            a.label("draw")
        self.draw(1)
        a.mov64(R1, round(self.action.percent / 100 * 2**32))
        if not self.action.correlation:
            a.jump("ge", R0, R1, "unmatched")
            return
        a.mov(R2, 1)
        a.jump("lt", R0, R1, "keep")
        a.mov(R2, 0)
        a.label("keep")
        a.store(DW, R9, 8 * STATE, R2)
        a.jump("eq", R2, 0, "unmatched")
        a.label("hit")
