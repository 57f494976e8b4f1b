"""Connections that are denied where they are asked for: `connect` and `sendto` fail with EPERM.

An eBPF program on a control group of version 2 is asked before the kernel looks for a route (the
hooks of `connect` and `sendmsg`, Linux 4.18). It compares the boot clock with its deadline and
the network namespace by its cookie (Linux 5.7), since a group may have processes in several. What
it belongs to is written in a map of it, so that a scan reads the kernel alone.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faultline.kernel import bpf, filter_maps
from faultline.kernel.assembler import R0, R1, R2, R6, R7, R9, R10, Assembler, W
from faultline.kernel.bpf import Map, MapType
from faultline.kernel.headers import BOOT_NS, LOOKUP
from faultline.kernel.mark import Mark
from faultline.kernel.match import Match

CONNECT4, CONNECT6, SENDMSG4, SENDMSG6 = 10, 11, 14, 15
HOOKS = (CONNECT4, CONNECT6, SENDMSG4, SENDMSG6)
_PROG_TYPE = 18  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
_NETNS_COOKIE = 122
_NAME, _COUNTERS, _MARK, _ADDRESSES = "fl_denied", "fl_counters", "fl_mark", "fl_addresses"
_MARK_BYTES, _COUNTER_BYTES = 256, 16
_KEY, _ZERO = -24, -32  # on the stack
_IP4, _IP6, _PORT, _PROTOCOL = 4, 8, 24, 36  # struct bpf_sock_addr
_MAPPED = int.from_bytes(bytes((0, 0, 0xFF, 0xFF)), sys.byteorder)


@dataclass(frozen=True, slots=True)
class Attached:
    """One program of ours on a control group."""

    mark: Mark
    hook: int
    program: int


def attach(group: Path, mark: Mark, match: Match, cookie: int, deadline: int) -> None:
    """Deny what matches in the network namespace, until the deadline (boot clock, ns; 0: for ever).

    Only destinations, their ports and protocols are looked at. The same step twice is once. OSError
    EPERM without CAP_BPF and CAP_NET_ADMIN, EINVAL where the kernel has no such hook.
    """
    there = {each.hook for each in find(group, mark)}
    maps = _maps(mark, match)
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for hook in (each for each in HOOKS if each not in there):
            code = _build(hook, match, cookie, deadline, maps)
            fd = bpf.load_program(code, name=_NAME, kind=_PROG_TYPE, attach=hook)
            try:
                bpf.attach_program(folder, fd, hook)
            finally:
                os.close(fd)
    finally:
        os.close(folder)
        for opened in maps.values():
            opened.close()


def _maps(mark: Mark, match: Match) -> dict[str, Map]:
    made = {_COUNTERS: Map.create(MapType.ARRAY, 4, _COUNTER_BYTES, 1, name=_COUNTERS)}
    try:
        made[_MARK] = Map.create(MapType.ARRAY, 4, _MARK_BYTES, 1, name=_MARK)
        made[_MARK].update(bytes(4), str(mark).encode().ljust(_MARK_BYTES, b"\0"))
        if match.destinations is not None:
            made[_ADDRESSES] = filter_maps.trie(_ADDRESSES, match.destinations)
    except OSError:
        for opened in made.values():
            opened.close()
        raise
    return made


def _build(hook: int, match: Match, cookie: int, deadline: int, maps: dict[str, Map]) -> bytes:
    """r6 is what the program asks for, r9 are the counters; 1 allows, 0 denies."""
    a = Assembler()
    a.mov(R6, R1)
    for name in (_MARK, _COUNTERS):  # the first only so that it lives as long as the program
        a.store(W, R10, _ZERO, 0)
        a.load_map(R1, maps[name].fd)
        a.mov(R2, R10)
        a.alu("add", R2, _ZERO)
        a.call(LOOKUP)
        a.jump("eq", R0, 0, "allow")
    a.mov(R9, R0)
    if deadline:
        a.call(BOOT_NS)
        a.mov64(R1, deadline)
        a.jump("gt", R0, R1, "allow")
    a.mov(R1, R6)
    a.call(_NETNS_COOKIE)
    a.mov64(R1, cookie)
    a.jump("ne", R0, R1, "allow")
    no, yes = ("deny", "allow") if match.exclude else ("allow", "deny")
    _predicate(a, hook, match, maps, no)
    a.mov(R1, 0)  # a plain jump would leave code that nothing reaches
    a.jump("eq", R1, 0, yes)
    a.label("deny")
    a.mov(R1, 1)
    a.atomic_add(R9, 0, R1)
    a.exit(0)
    a.label("allow")
    a.exit(1)
    return a.bytes()


def _predicate(a: Assembler, hook: int, match: Match, maps: dict[str, Map], no: str) -> None:
    if match.numbers:
        a.load(W, R1, R6, _PROTOCOL)
        for number in match.numbers:
            a.jump("eq", R1, number, "protocol")
        a.goto(no)
        a.label("protocol")
    if match.destination_ports:
        a.load(W, R7, R6, _PORT)
        a.alu("and", R7, 0xFFFF)
        a.big_endian(R7, 16)
        for first, last in match.destination_ports:
            beyond = a.fresh("beyond")
            a.jump("lt", R7, first, beyond)
            a.jump("le", R7, last, "port")
            a.label(beyond)
        a.goto(no)
        a.label("port")
    if _ADDRESSES in maps:
        _key(a, hook)
        a.load_map(R1, maps[_ADDRESSES].fd)
        a.mov(R2, R10)
        a.alu("add", R2, _KEY)
        a.call(LOOKUP)
        a.jump("eq", R0, 0, no)


def _key(a: Assembler, hook: int) -> None:
    """The key of the address asked for; an IPv4 address in an IPv6 one is what it means."""
    a.store(W, R10, _KEY, 160)
    if hook in (CONNECT4, SENDMSG4):
        a.store(W, R10, _KEY + 4, 4)
        a.load(W, R1, R6, _IP4)
        a.store(W, R10, _KEY + 8, R1)
        for word in (12, 16, 20):
            a.store(W, R10, _KEY + word, 0)
        return
    a.store(W, R10, _KEY + 4, 6)
    for word in range(0, 16, 4):
        a.load(W, R1, R6, _IP6 + word)
        a.store(W, R10, _KEY + 8 + word, R1)
    for at, value in ((8, 0), (12, 0), (16, _MAPPED)):
        a.load(W, R1, R10, _KEY + at)
        a.mov32(R2, value)
        a.jump("ne", R1, R2, "plain")
    a.store(W, R10, _KEY + 4, 4)
    a.load(W, R1, R10, _KEY + 20)
    a.store(W, R10, _KEY + 8, R1)
    for word in (16, 20):
        a.store(W, R10, _KEY + word, 0)
    a.label("plain")


def on_group(group: Path) -> Iterator[Attached]:
    """Programs of ours on a control group; none where it is gone."""
    try:
        folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for hook in HOOKS:
            for number in bpf.attached_programs(folder, hook):
                mark = _mark_of(number)
                if mark is not None:
                    yield Attached(mark, hook, number)
    finally:
        os.close(folder)


def _mark_of(number: int) -> Mark | None:
    try:
        if bpf.program_name(number) != _NAME:
            return None
        with bpf.maps_of_program(number) as maps:
            value = maps[_MARK].lookup(bytes(4)) if _MARK in maps else None
    except FileNotFoundError:
        return None
    return Mark.read((value or b"").rstrip(b"\0").decode(errors="replace"))


def find(group: Path, mark: Mark) -> list[Attached]:
    """The programs of one step of a fault."""
    return [each for each in on_group(group) if each.mark.same(mark)]


def denied(group: Path, mark: Mark) -> int:
    """How many calls were denied so far."""
    found = find(group, mark)
    if not found:
        return 0
    with bpf.maps_of_program(found[0].program) as maps:  # all of a step count in one map
        value = maps[_COUNTERS].lookup(bytes(4)) or bytes(_COUNTER_BYTES)
    return struct.unpack_from("=Q", value)[0]


def detach(group: Path, mark: Mark) -> bool:
    """Take the programs of one step away; False when there was none."""
    found = find(group, mark)
    if not found:
        return False
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for each in found:
            bpf.detach_program(folder, each.program, each.hook)
    finally:
        os.close(folder)
    return True
