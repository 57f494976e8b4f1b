"""The hop: packets of a fault leave the device, wait somewhere, and go on behind the fault.

The in-kernel hop is a pair of devices of ours: the classifier redirects to the near end, whose root
queue holds the packets; they arrive at the far end, whose return program sends them back to the
original device in their direction, marked as having been past this slot. So overlapping faults work
one after the other: delays add up, each rate limits. Nobody's root queue is touched.

A hop of another kind (a tap served by a worker) is bound by the same `bind`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import time
import zlib
from dataclasses import dataclass, replace

from faultline.kernel import classifier, link, shaping, tc
from faultline.kernel.classifier import Attached
from faultline.kernel.link import Link
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, Guard, Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.shaping import Shape
from faultline.kernel.tc import Direction

_SLOT_ATTEMPTS = 5
_POLL = 0.005
_LARGEST_MTU = 65535
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17


@dataclass(frozen=True, slots=True)
class Hop:
    """Both ends of a hop: packets go in at `near` and come out at `far`."""

    mark: Mark
    near: Link
    far: Link


def names(mark: Mark, attempt: int = 0) -> tuple[str, str]:
    """The names of both ends, the same for the same step."""
    number = zlib.crc32(f"{mark.uid}:{mark.step}:{attempt}".encode())
    return f"fl{number:08x}a", f"fl{number:08x}b"


def find(nl: Netlink, uid: str, step: str) -> Hop | None:
    """The hop of one step of a fault, found by its mark."""
    return next((hop for hop in scan(nl) if (hop.mark.uid, hop.mark.step) == (uid, step)), None)


def scan(nl: Netlink) -> list[Hop]:
    """Every hop of ours in this network namespace; half a pair counts as one."""
    ends: dict[tuple[str, str], list[Link]] = {}
    for one in link.links(nl):
        mark = Mark.read(one.alias)
        if mark is not None and one.kind == "veth":
            ends.setdefault((mark.uid, mark.step), []).append(one)
    found: list[Hop] = []
    for (uid, step), pair in ends.items():
        pair.sort(key=lambda one: one.name)
        found.append(Hop(Mark(uid, step), pair[0], pair[-1]))
    return found


def create(nl: Netlink, device: Link, mark: Mark, shape: Shape | None) -> Hop:
    """Make the pair with `shape` on its near end, up and silent. The same step twice is once.

    Without a shape it is the hop of corrupted packets: it computes checksums in software, so that a
    wrong one is wrong also where the kernel would have trusted the packet (loopback, veth).
    OSError ENOENT where the kernel lacks the queueing discipline; nothing is left behind then.
    """
    there = find(nl, mark.uid, mark.step)
    mtu = min(device.mtu, _LARGEST_MTU)
    if there is None:
        there = _create_pair(nl, mark, mtu)
    try:
        if tc.root(nl, there.near.index) is None or not there.near.up:
            _furnish(nl, there, device, shape)
    except OSError:
        link.delete(nl, there.near.index)
        raise
    return there


def _create_pair(nl: Netlink, mark: Mark, mtu: int) -> Hop:
    plain = Mark(mark.uid, mark.step)
    for attempt in range(3):
        try:
            link.add_veth(nl, names(mark, attempt), str(plain), mtu=mtu)
        except OSError as problem:
            if problem.errno != errno.EEXIST or attempt == 2:
                raise
            continue
        near, far = (link.get(nl, name) for name in names(mark, attempt))
        return Hop(plain, near, far)
    raise OSError(errno.EEXIST, "all names for the hop are taken", str(plain))


def _furnish(nl: Netlink, hop: Hop, device: Link, shape: Shape | None) -> None:
    if device.gso_max_size > hop.near.gso_max_size > 0:
        link.set_gso_max_size(nl, hop.near.index, device.gso_max_size)
    if shape is None:
        checksums_in_software(nl, hop.near.name)
    else:
        tc.delete_qdisc(nl, hop.near.index)
        shaping.add(nl, hop.near.index, shape, device.mtu)
    for end in (hop.far, hop.near):
        link.set_up(nl, end.index)


def checksums_in_software(nl: Netlink, name: str) -> None:
    """Switch off the offload of transmit checksums of a device of ours (SIOCETHTOOL)."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("=16sQ16x", name.encode(), ctypes.addressof(value))
    fcntl.ioctl(nl.fileno(), _SIOCETHTOOL, request)


def bind(  # noqa: PLR0913 - a fault is these things
    nl: Netlink, ifindex: int, direction: Direction, mark: Mark, match: Match, action: Action,
    guard: Guard, *, far: int, by_mark: bool = True,
) -> Attached:  # fmt: skip
    """Send what matches to `action.target`, and what comes out at `far` on its way.

    The return program is put in place first, so no packet is lost at the start. With a heartbeat in
    the guard nothing is redirected before the worker has written it.
    """
    there = classifier.find(nl, ifindex, direction, mark.uid, mark.step)
    if there is not None:
        return there
    for attempt in range(_SLOT_ATTEMPTS):
        place = classifier.next_place(nl, ifindex, direction)
        with classifier.new_times() as times:
            classifier.attach_return(nl, far, place, mark, times, by_mark=by_mark)
            try:
                return classifier.attach(nl, place, mark, match, action, guard, times)
            except OSError as problem:
                if problem.errno != errno.EEXIST or attempt == _SLOT_ATTEMPTS - 1:
                    raise
    raise OSError(errno.EEXIST, "no slot could be taken", str(mark))


def inject(  # noqa: PLR0913, PLR0917 - a fault is these things
    nl: Netlink, ifindex: int, direction: Direction, mark: Mark, match: Match, action: Action,
    guard: Guard, shape: Shape | None,
) -> Attached:  # fmt: skip
    """Make the hop and bind it: a delay, a rate, a reordering, or corruption with bad checksums."""
    device = link.get(nl, ifindex)
    hop = create(nl, device, mark, shape)
    try:
        pointed = replace(action, target=hop.near.index)
        return bind(nl, ifindex, direction, mark, match, pointed, guard, far=hop.far.index)
    except OSError:
        link.delete(nl, hop.near.index)
        raise


def backlog(nl: Netlink, uid: str, step: str) -> int:
    """How many packets the hop holds now; 0 when there is none."""
    hop = find(nl, uid, step)
    if hop is None:
        return 0
    queue = tc.root(nl, hop.near.index)
    return queue.stats.queued_packets if queue is not None else 0


def stats(nl: Netlink, uid: str, step: str) -> tc.Stats:
    """What the hop's queue let through, dropped, and holds."""
    hop = find(nl, uid, step)
    queue = tc.root(nl, hop.near.index) if hop is not None else None
    return queue.stats if queue is not None else tc.Stats()


def wait_empty(nl: Netlink, uid: str, step: str, seconds: float) -> bool:
    """Wait until the hop holds nothing; False when it still does after so many seconds."""
    until = time.monotonic() + seconds
    while backlog(nl, uid, step):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL)
    time.sleep(_POLL)  # the last ones are on their way through the far end
    return True


def remove(nl: Netlink, uid: str, step: str) -> bool:
    """Delete the hop and what it holds; False when there is none. Detach the filter first."""
    hop = find(nl, uid, step)
    return hop is not None and link.delete(nl, hop.near.index)


def recover(
    nl: Netlink, ifindex: int, direction: Direction, uid: str, step: str,
    *, made: bool = False, drain: float = 0.0,
) -> bool:  # fmt: skip
    """Undo `inject` from whatever point it reached; False when nothing of it was there.

    New packets pass at once. Those that are held are given up to `drain` seconds to leave; what is
    left then is lost.
    """
    if drain and backlog(nl, uid, step):
        attached = classifier.find(nl, ifindex, direction, uid, step)
        if attached is not None:
            classifier.pause(nl, attached)
        wait_empty(nl, uid, step, drain)
    detached = classifier.detach(nl, ifindex, direction, uid, step, made=made)
    removed = remove(nl, uid, step)
    return detached or removed
