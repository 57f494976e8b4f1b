"""Filters of ours on a device: attach, find, count, detach; all of it safe to call at any time.

Every filter is one fault on one device in one direction. Its name is our mark, its priority its
slot. The kernel holds everything: program, maps and deadline stay when this process dies, and
whoever has the rights finds them again from the filter alone.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from faultline.errors import Unsupported
from faultline.kernel import bpf, filter_maps, link, program, tc
from faultline.kernel.bpf import Map, MapType
from faultline.kernel.headers import COUNTER_BYTES, MAX_SLOT, PROBE_TIMES, Maps, Place
from faultline.kernel.link import CONF_ACCEPT_LOCAL, CONF_ROUTE_LOCALNET, Link
from faultline.kernel.mark import PREFIX, Mark
from faultline.kernel.match import (
    Action,
    ActionKind,
    Guard,
    Match,
    network_key,
)
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction, Filter

PRIORITY_BASE = 100

_COUNTERS, _SOURCES, _DESTINATIONS = "fl_counters", "fl_sources", "fl_destinations"
_HEARTBEAT, _TIMES = "fl_heartbeat", "fl_times"
RETURN = ".return"  # ends the step in the mark of a return program


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets as the program counted them; a large send that is still in one piece counts once."""

    seen: int = 0
    matched: int = 0
    hit: int = 0
    matched_bytes: int = 0
    hit_bytes: int = 0
    exempted: int = 0
    failed: int = 0

    @property
    def share(self) -> float | None:
        """Hit of matched in percent; None when nothing matched."""
        return 100 * self.hit / self.matched if self.matched else None


@dataclass(frozen=True, slots=True)
class Attached:
    """One filter of ours as it was found."""

    mark: Mark
    ifindex: int
    direction: Direction
    slot: int
    program: int
    filter: Filter


@dataclass(frozen=True, slots=True)
class Found:
    """A filter of ours together with the device's name."""

    device: str
    attached: Attached


def next_place(nl: Netlink, ifindex: int, direction: Direction) -> Place:
    """The place behind all faults that the device has in this direction."""
    device = link.get(nl, ifindex)
    try:
        cookie = nl.cookie()
    except OSError as problem:  # before Linux 5.14: device and direction alone make the tag
        if problem.errno != errno.ENOPROTOOPT:
            raise
        cookie = 0
    slot = free_slot(nl, ifindex, direction)
    return Place(ifindex, direction, slot, cookie, device.header_bytes, device.loopback)


def on_device(nl: Netlink, ifindex: int, direction: Direction) -> list[Attached]:
    """Our filters on one device in one direction, in the order in which packets meet them."""
    found: list[Attached] = []
    for one in tc.filters(nl, ifindex, direction.parent):
        mark = Mark.read(one.name)
        if mark is not None and one.kind == "bpf":
            slot = one.priority - PRIORITY_BASE
            found.append(Attached(mark, ifindex, direction, slot, one.program, one))
    return sorted(found, key=lambda one: one.slot)


def find(nl: Netlink, ifindex: int, direction: Direction, uid: str, step: str) -> Attached | None:
    """The filter of one step of a fault, or None."""
    ours = on_device(nl, ifindex, direction)
    return next((a for a in ours if (a.mark.uid, a.mark.step) == (uid, step)), None)


def scan(nl: Netlink) -> list[Found]:
    """Every filter of ours in this network namespace, found by its mark alone."""
    names = {one.index: one.name for one in link.links(nl)}
    places = {q.index for q in tc.qdiscs(nl) if q.handle == tc.CLSACT_HANDLE}
    return [
        Found(names.get(ifindex, str(ifindex)), one)
        for ifindex in sorted(places)
        for direction in Direction
        for one in on_device(nl, ifindex, direction)
    ]


def free_slot(nl: Netlink, ifindex: int, direction: Direction) -> int:
    """One above the highest in use, or the lowest free one once the highest is taken."""
    parent = direction.parent
    used = {f.priority - PRIORITY_BASE for f in tc.filters(nl, ifindex, parent)}
    ours = {slot for slot in used if 1 <= slot <= MAX_SLOT}
    above = max(ours, default=0) + 1
    if above <= MAX_SLOT:
        return above
    lowest = next((slot for slot in range(1, MAX_SLOT + 1) if slot not in ours), None)
    if lowest is None:
        raise Unsupported(
            f"device {ifindex} holds {MAX_SLOT} faults for {direction} already",
            hint="recover some of them first: faultline query",
        )
    return lowest


def attach(
    nl: Netlink, place: Place, mark: Mark, match: Match, action: Action, guard: Guard,
    times: Map | None = None,
) -> Attached:  # fmt: skip
    """Make the filter, with clsact below it when there is none. The same step twice is once.

    `place` is `next_place(...)`. Raises OSError (EPERM without CAP_NET_ADMIN and CAP_BPF; ENODEV;
    EEXIST when another filter took the slot meanwhile) and Unsupported where an `ingress`
    discipline of somebody else leaves no place for outgoing packets.
    """
    there = find(nl, place.ifindex, place.direction, mark.uid, mark.step)
    if there is not None:
        return there
    device = link.get(nl, place.ifindex)
    made = _make_room(nl, device, place.direction)
    ours = [one for side in Direction for one in on_device(nl, device.index, side)]
    mark = replace(mark, made=made or any(one.mark.made for one in ours))
    mark = replace(mark, loopback=_loopback(nl, device, place.direction, action, ours))
    try:
        fd = load(place, match, action, guard, times)
        try:
            priority = PRIORITY_BASE + place.slot
            tc.add_bpf(nl, device.index, place.direction.parent, priority, fd, str(mark))
        finally:
            os.close(fd)
    except OSError:
        _tidy(nl, device.index, made, mark.loopback)
        raise
    attached = find(nl, device.index, place.direction, mark.uid, mark.step)
    if attached is None:
        raise OSError(errno.ENOENT, "the filter vanished while it was added", device.name)
    return attached


def _make_room(nl: Netlink, device: Link, direction: Direction) -> bool:
    """Make clsact where there is none; True when we made it."""
    if tc.ingress_kind(nl, device.index) == "ingress":
        if direction is Direction.INGRESS:
            return False
        raise Unsupported(
            f"{device.name} has an 'ingress' queueing discipline of somebody else, which has no "
            "place for filters on outgoing packets",
            hint="replace it with clsact, which serves both directions: "
            f"tc qdisc replace dev {device.name} clsact",
        )
    return tc.add_clsact(nl, device.index)


def _loopback(
    nl: Netlink, device: Link, direction: Direction, action: Action, ours: list[Attached]
) -> tuple[int, int] | None:
    """Let the loopback device take packets that come back from a hop.

    Such a packet has lost its route, and the kernel refuses 127.0.0.0/8 and local sources from the
    wire. On `lo` no wire is behind it, so accepting them there is harmless. Gives what was set
    before.
    """
    before = next((one.mark.loopback for one in ours if one.mark.loopback is not None), None)
    returns = (
        action.target
        or action.kind is ActionKind.ANSWER
        or (action.kind is ActionKind.DUPLICATE and direction is Direction.INGRESS)
    )
    if before is not None or not device.loopback or not returns:
        return before
    before = device.setting4(CONF_ACCEPT_LOCAL), device.setting4(CONF_ROUTE_LOCALNET)
    link.set_setting4(nl, device.index, {CONF_ACCEPT_LOCAL: 1, CONF_ROUTE_LOCALNET: 1})
    return before


def load(place: Place, match: Match, action: Action, guard: Guard, times: Map | None = None) -> int:
    """Load the program and give its descriptor. Its maps live as long as it does."""
    made: dict[str, Map] = {}
    try:
        made[_COUNTERS] = Map.create(MapType.ARRAY, 4, COUNTER_BYTES, 1, name=_COUNTERS)
        for name, networks in ((_SOURCES, match.sources), (_DESTINATIONS, match.destinations)):
            if networks is not None:
                made[name] = filter_maps.trie(name, networks)
        if match.members is not None:
            made |= filter_maps.of_members(match.members)
        if guard.heartbeat:
            flags = bpf.F_MMAPABLE
            made[_HEARTBEAT] = Map.create(MapType.ARRAY, 4, 8, 1, name=_HEARTBEAT, flags=flags)
        maps = Maps(
            counters=made[_COUNTERS].fd,
            sources=made[_SOURCES].fd if _SOURCES in made else -1,
            destinations=made[_DESTINATIONS].fd if _DESTINATIONS in made else -1,
            heartbeat=made[_HEARTBEAT].fd if _HEARTBEAT in made else -1,
            times=times.fd if times is not None else -1,
            ends=made[filter_maps.ENDS].fd if filter_maps.ENDS in made else -1,
            flows=made[filter_maps.FLOWS].fd if filter_maps.FLOWS in made else -1,
        )
        code = program.build(place, match, action, guard, maps)
        return bpf.load_program(code, name=f"fl_{action.kind}")
    finally:
        for opened in made.values():
            opened.close()


def new_times() -> Map:
    """The map in which classifier and return program note when a probe entered and left a hop."""
    return Map.create(MapType.ARRAY, 4, 16, PROBE_TIMES, name=_TIMES)


def follow(
    attached: Attached,
    *,
    sources: tuple[str, ...] | None = None,
    destinations: tuple[str, ...] | None = None,
) -> None:
    """Replace the addresses of a live filter, new ones first, so that no packet slips through.

    Only a side that was given when the filter was made can be followed; ValueError otherwise.
    """
    with bpf.maps_of_program(attached.program) as maps:
        for name, networks in ((_SOURCES, sources), (_DESTINATIONS, destinations)):
            if networks is None:
                continue
            if name not in maps:
                raise ValueError(f"the filter {attached.mark} has no list {name}")
            wanted = {network_key(network) for network in networks}
            for key in wanted:
                maps[name].update(key, b"\1")
            for key in maps[name].list_keys():
                if key not in wanted:
                    maps[name].delete(key)


def counters(attached: Attached, *, probes: bool = False) -> Counts:
    """What the filter counted: of ordinary packets, or of our probes."""
    with bpf.maps_of_program(attached.program) as maps:
        value = maps[_COUNTERS].lookup(struct.pack("=I", 0)) or bytes(COUNTER_BYTES)
    return Counts(*struct.unpack_from("=7Q", value, 64 if probes else 0))


def heartbeat(attached: Attached) -> mmap.mmap:
    """The memory in which the worker writes the boot clock (8 bytes, nanoseconds) to stay alive.

    It stays usable in the worker alone; nothing else needs to be kept open.
    """
    with bpf.maps_of_program(attached.program) as maps:
        return maps[_HEARTBEAT].mapped()


def probe_times(attached: Attached, numbers: range) -> list[tuple[int, int]]:
    """Boot times at which probes entered and left the hop; 0 for what did not happen."""
    found: list[tuple[int, int]] = []
    with bpf.maps_of_program(attached.program) as maps:
        for number in numbers:
            value = maps[_TIMES].lookup(struct.pack("=I", number)) or bytes(16)
            entered, left = struct.unpack("=QQ", value)
            found.append((entered, left))
    return found


@contextmanager
def probes_of(attached: Attached) -> Generator[tuple[Callable[[int], int], Callable[[], int]]]:
    """Two questions about probes, for as long as the block runs: how long probe number N was in the
    hop, in nanoseconds, 0 if it did not come out; and how many were hit.
    """
    with bpf.maps_of_program(attached.program) as maps:

        def held(number: int) -> int:
            value = maps[_TIMES].lookup(struct.pack("=I", number)) or bytes(16)
            entered, left = struct.unpack("=QQ", value)
            return left - entered if entered and left else 0

        def hit() -> int:
            value = maps[_COUNTERS].lookup(struct.pack("=I", 0)) or bytes(COUNTER_BYTES)
            return Counts(*struct.unpack_from("=7Q", value, 64)).hit

        yield held, hit


def clear_probe_times(attached: Attached, numbers: range) -> bool:
    """Forget earlier probes; False when the fault has no hop and keeps no times."""
    with bpf.maps_of_program(attached.program) as maps:
        if _TIMES not in maps:
            return False
        for number in numbers:
            maps[_TIMES].update(struct.pack("=I", number), bytes(16))
    return True


def attach_return(
    nl: Netlink, hop: int, place: Place, mark: Mark, times: Map, *, by_mark: bool = True
) -> None:
    """Put the return program on a hop's far end: what arrives there goes back behind `place`.

    Do it before the classifier is attached. `by_mark` is False behind a tap, where a packet's mark
    is lost on the way.
    """
    tc.add_clsact(nl, hop)
    there = find(nl, hop, Direction.INGRESS, mark.uid, mark.step + RETURN)
    if there is not None:
        tc.delete_filter(nl, there.filter)
    code = program.build_return(place, times.fd, by_mark=by_mark)
    fd = bpf.load_program(code, name="fl_return")
    name = str(Mark(mark.uid, mark.step + RETURN))
    try:
        tc.add_bpf(nl, hop, Direction.INGRESS.parent, PRIORITY_BASE, fd, name)
    finally:
        os.close(fd)


def pause(nl: Netlink, attached: Attached) -> bool:
    """Let every packet pass from now on, but keep mark, slot and settings; counters are lost.

    For the time in which a hop empties: what comes back from it on the loopback device still needs
    the settings that go with the filter. False when the filter is gone.
    """
    fd = bpf.load_program(program.build_nothing(), name="fl_paused")
    try:
        return tc.replace_bpf(nl, attached.filter, fd)
    finally:
        os.close(fd)


def detach(
    nl: Netlink, ifindex: int, direction: Direction, uid: str, step: str, *, made: bool = False
) -> bool:
    """Remove the filter of this step, then what only we still needed; False when it was not there.

    clsact goes when we made it and no filter of anybody is left on it. `made` adds what the caller
    remembers from before it began, for a crash between clsact and the filter. Nothing is an error
    that only means "it is gone already".
    """
    if link.find(nl, ifindex) is None:
        return False
    there = find(nl, ifindex, direction, uid, step)
    removed = there is not None and tc.delete_filter(nl, there.filter)
    loopback = there.mark.loopback if there is not None else None
    made = made or (there is not None and there.mark.made)
    _tidy(nl, ifindex, made, loopback)
    return removed


def _tidy(nl: Netlink, ifindex: int, made: bool, loopback: tuple[int, int] | None) -> None:
    """Put back the loopback settings and clsact, each when no filter is left that needs it."""
    left = [one for side in Direction for one in on_device(nl, ifindex, side)]
    if loopback is not None and not any(one.mark.loopback is not None for one in left):
        settings = {CONF_ACCEPT_LOCAL: loopback[0], CONF_ROUTE_LOCALNET: loopback[1]}
        link.set_setting4(nl, ifindex, settings)
    if not made or tc.ingress_kind(nl, ifindex) != "clsact":
        return
    if not any(tc.filters(nl, ifindex, side.parent) for side in Direction):
        tc.delete_clsact(nl, ifindex)


def is_ours(text: str) -> bool:
    """Whether a name or alias carries our mark."""
    return text.startswith(f"{PREFIX}:") and Mark.read(text) is not None
