"""What this kernel can do for network faults, found by doing it in a network namespace of its own.

Configuration files lie, modules may be missing, rights may be withheld: each feature is tried. The
namespace vanishes with its last descriptor, and nothing outside it is touched. Devices that were
made in it go with it: deleting one by one makes the caller wait for all processors each time.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from faultline.errors import FaultlineError
from faultline.kernel import bpf, classifier, hop, link, netlink, netns, shaping, tc
from faultline.kernel.assembler import Assembler
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, ActionKind, Guard, Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction

_LO = 1
_FUTURE = 1 << 62
_MARK = Mark("probe", "1")


@dataclass(frozen=True, slots=True)
class Features:
    """What works, and for the rest why not."""

    present: frozenset[str] = frozenset()
    missing: dict[str, str] = field(default_factory=dict[str, str])


class _NoEffectError(OSError):
    """The kernel accepted it, and nothing happened."""


def probe_features() -> Features:
    """Try everything once, some 100 ms. Without the right to make a namespace nothing is there."""
    try:
        namespace = netns.create()
    except OSError as problem:
        reason = f"no network namespace could be made to try it: {problem.strerror}"
        return Features(frozenset(), dict.fromkeys(_TRIALS, reason))
    try:
        with netns.entered(namespace):
            nl = Netlink.open()
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with nl, receiver:
            link.set_up(nl, _LO)
            return _try_all(nl, receiver)
    finally:
        os.close(namespace)


def _try_all(nl: Netlink, receiver: socket.socket) -> Features:
    present: set[str] = set()
    missing: dict[str, str] = {}
    for name, trial in _TRIALS.items():
        try:
            trial(nl, receiver)
            present.add(name)
        except (OSError, FaultlineError) as problem:
            missing[name] = getattr(problem, "strerror", "") or str(problem)
    return Features(frozenset(present), missing)


def _clsact(nl: Netlink, _: socket.socket) -> None:
    tc.add_clsact(nl, _LO)


def _bpf(nl: Netlink, receiver: socket.socket) -> None:
    """A classifier that counts a packet and takes it away, in both senses of the word."""
    drop = Action(ActionKind.DROP)
    _classify(nl, receiver, drop, Guard())


def _boot_clock(nl: Netlink, receiver: socket.socket) -> None:
    _classify(nl, receiver, Action(ActionKind.DROP), Guard(deadline=_FUTURE))


def _every(nl: Netlink, receiver: socket.socket) -> None:
    _classify(nl, receiver, Action(ActionKind.DROP, every=1), Guard())


def _classify(nl: Netlink, receiver: socket.socket, action: Action, guard: Guard) -> None:
    receiver.setblocking(False)
    if receiver.getsockname()[1] == 0:
        receiver.bind(("127.0.0.1", 0))
    place = classifier.next_place(nl, _LO, Direction.EGRESS)
    attached = classifier.attach(nl, place, _MARK, Match(protocols=("udp",)), action, guard)
    try:
        receiver.sendto(b"x", receiver.getsockname())
        counted = classifier.counters(attached).hit
        try:
            receiver.recv(16)
        except BlockingIOError:
            if counted == 1:
                return
        raise _NoEffectError("a filter was accepted, but the packet was not stolen")
    finally:
        classifier.detach(nl, _LO, Direction.EGRESS, _MARK.uid, _MARK.step)


def _veth(nl: Netlink, _: socket.socket) -> None:
    hop.create(nl, link.get(nl, _LO), _MARK, None)


def _on_veth(step: str, shape: shaping.Shape) -> Callable[[Netlink, socket.socket], None]:
    def trial(nl: Netlink, _: socket.socket) -> None:
        hop.create(nl, link.get(nl, _LO), Mark(_MARK.uid, step), shape)

    return trial


def _htb(nl: Netlink, _: socket.socket) -> None:
    parameters = struct.pack("=5I", 3, 10, 0, 0, 0)  # version, quantum divisor
    tc.add_qdisc(nl, _LO, "htb", netlink.attribute(2, parameters))


def _ifb(nl: Netlink, _: socket.socket) -> None:
    link.add_simple(nl, "ifbtry", "ifb")


def _with_u32(nl: Netlink, target: int) -> None:
    tc.add_clsact(nl, _LO)
    egress = Direction.EGRESS.parent
    tc.add_u32(nl, _LO, egress, 1, target)
    for one in tc.filters(nl, _LO, egress):
        tc.delete_filter(nl, one)


def _u32(nl: Netlink, _: socket.socket) -> None:
    _with_u32(nl, 0)


def _mirred(nl: Netlink, _: socket.socket) -> None:
    """The action alone, on a filter that chooses nothing."""
    tc.add_clsact(nl, _LO)
    code = Assembler()
    code.exit(0)
    fd = bpf.load_program(code.bytes(), name="fl_nothing")
    egress = Direction.EGRESS.parent
    try:
        tc.add_bpf_mirred(nl, _LO, egress, 1, fd, "nothing", _LO)
    finally:
        os.close(fd)
    for one in tc.filters(nl, _LO, egress):
        tc.delete_filter(nl, one)


def _u32_mirred(nl: Netlink, _: socket.socket) -> None:
    _with_u32(nl, _LO)


_TRIALS: dict[str, Callable[[Netlink, socket.socket], None]] = {
    "clsact": _clsact,
    "bpf": _bpf,
    "boot-clock": _boot_clock,
    "bpf-fetch": _every,
    "veth": _veth,
    "netem": _on_veth("2", shaping.Netem(delay=1)),
    "tbf": _on_veth("3", shaping.Tbf(rate=1_000_000)),
    "htb": _htb,
    "ifb": _ifb,
    "u32": _u32,
    "mirred": _mirred,
    "u32-mirred": _u32_mirred,
}
FEATURES = tuple(_TRIALS)
