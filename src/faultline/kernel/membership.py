"""Whose packet it is, in eBPF: told by the control group of the socket that sends it.

An arriving packet has no socket yet, so conversations are learned from what leaves: the filter for
outgoing packets notes both ends, the one for arriving packets knows them from there. A socket keeps
the group that it was made in, also when its process moves on, and a connection has that of its
listener: so those that were there before the fault are told by their addresses (`ends`). Helpers:
bpf-helpers(7), `bpf_skb_ancestor_cgroup_id`, Linux 4.19.
"""

from __future__ import annotations

from faultline.kernel.assembler import DW, R0, R1, R2, R3, R4, R6, R10, B, H, W
from faultline.kernel.headers import (
    DESTINATION,
    ENDS,
    HAS_PORTS,
    LOOKUP,
    PORTS,
    PROBE,
    PROTO,
    SCRATCH,
    SKB_ANCESTOR,
    SOURCE,
    UPDATE,
    HeaderReader,
    Maps,
)
from faultline.kernel.match import Match
from faultline.kernel.tc import Direction

DEPTH = 16  # levels of groups that are looked at


class Owned(HeaderReader):
    """The part of a classifier that leaves the packets of everybody else alone."""

    match: Match
    maps: Maps

    def members(self) -> None:
        """Go on with packets that a member sends or gets; a probe of ours counts as such."""
        members = self.match.members
        if members is None:
            return
        a = self.asm
        a.load(DW, R1, R10, PROBE)
        a.jump("ne", R1, 0, "member")
        outgoing = self.place.direction is Direction.EGRESS
        if outgoing:
            self._sender(members.group)
            self._known(sent=True)
        if members.both or not outgoing:
            self._known(sent=False)
        a.goto("unmatched")
        if outgoing:
            a.label("sender")
            self._learn()
        a.label("member")

    def _sender(self, group: int) -> None:
        """Compare the group with every level above that of the socket (the root is level 0)."""
        a = self.asm
        for level in range(1, DEPTH + 1):
            a.mov(R1, R6)
            a.mov(R2, level)
            a.call(SKB_ANCESTOR)
            a.jump("eq", R0, 0, "not-sender")
            a.mov64(R1, group)
            a.jump("eq", R0, R1, "sender")
        a.label("not-sender")

    def _learn(self) -> None:
        a = self.asm
        a.load(DW, R1, R10, HAS_PORTS)
        a.jump("eq", R1, 0, "member")
        self._ends(sent=True)
        a.store(B, R10, SCRATCH, 1)
        a.load_map(R1, self.maps.flows)
        a.mov(R2, R10)
        a.alu("add", R2, ENDS)
        a.mov(R3, R10)
        a.alu("add", R3, SCRATCH)
        a.mov(R4, 0)
        a.call(UPDATE)

    def _ends(self, *, sent: bool) -> None:
        """Both ends of the packet, that of this host first, as `End.key` writes them."""
        a = self.asm
        a.load(W, R1, R10, PROTO)
        a.store(W, R10, ENDS, R1)
        ends = ((SOURCE, PORTS), (DESTINATION, PORTS + 2))
        for number, (address, port) in enumerate(ends if sent else reversed(ends)):
            for word in range(0, 20, 4):
                a.load(W, R1, R10, address + 4 + word)
                a.store(W, R10, ENDS + 4 + 20 * number + word, R1)
            a.load(H, R1, R10, port)
            a.store(H, R10, ENDS + 44 + 2 * number, R1)

    def _known(self, *, sent: bool) -> None:
        """Whether a socket that was there before, or was learned of, has these ends."""
        a = self.asm
        unknown = a.fresh("unknown")
        a.load(DW, R1, R10, HAS_PORTS)
        a.jump("eq", R1, 0, unknown)
        self._ends(sent=sent)
        self._in(self.maps.flows)
        if self.maps.ends >= 0:
            self._in(self.maps.ends)
            for word in range(24, 44, 4):  # whoever is at the other end
                a.store(W, R10, ENDS + word, 0)
            a.store(H, R10, ENDS + 46, 0)
            self._in(self.maps.ends)
            for word in range(8, 24, 4):  # at any address of this host
                a.store(W, R10, ENDS + word, 0)
            self._in(self.maps.ends)
        a.label(unknown)

    def _in(self, ends: int) -> None:
        a = self.asm
        a.load_map(R1, ends)
        a.mov(R2, R10)
        a.alu("add", R2, ENDS)
        a.call(LOOKUP)
        a.jump("ne", R0, 0, "member")
