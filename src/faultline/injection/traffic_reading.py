"""How network faults measure themselves: by the filter's counters and by probes that never leave
the host.

A probe is sent through the very filter, counted and timed by it, and taken away by it. Where there
is no filter of eBPF (an unprivileged namespace) probes go over loopback and are read where they
arrive.
"""

from __future__ import annotations

import math
import select
import socket
import statistics
import struct
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from faultline.changes.classifier import match_from
from faultline.changes.model import Record, Step
from faultline.changes.worker import tap_name
from faultline.errors import ObserveFailed
from faultline.injection import loopback_probing
from faultline.injection.reading import Effect, Reading, mean_is, share_is
from faultline.kernel import classifier, hop, probing
from faultline.kernel.classifier import Attached
from faultline.kernel.match import Action, ActionKind, Exempt
from faultline.kernel.netlink import Netlink
from faultline.kernel.predicate import Headers, example
from faultline.kernel.probing import Probed
from faultline.kernel.tc import Direction
from faultline.units import Duration, Rate

MANY, FEW = 1000, 20  # probes for a share, probes for a time
ROUNDS = 3  # measurements of a time before it is said to be wrong
FULL = 1400  # bytes that a probe of a bandwidth carries
_HEADERS = 58  # link, IP, UDP and trailer of a probe
_FILL = 32  # bytes that any other carries
PROBES = "probes through the filter, counted and timed by eBPF; they never leave the host"
BEHIND = "probes through the filter, read where they come out; they never leave the host"
FLOOR = 1_000_000  # ns: a delay is right within 5 % or this


@dataclass(frozen=True, slots=True)
class _Sent:
    """What became of the probes of one filter, and when they entered and left."""

    probed: Probed
    times: list[tuple[int, int]]


def _steps_of(record: Record) -> list[tuple[int, Step]]:
    """The steps that carry a filter, with their numbers."""
    return [
        (index, step)
        for index, step in enumerate(record.steps)
        if step.change.kind in ("classifier", "hop") and not step.change.spec.get("learns")
    ]


def _holds(step: Step) -> bool:
    """Whether packets wait in this step's hop; the one of corrupted packets only passes them."""
    spec = step.change.spec
    return step.change.kind == "hop" and (spec["shape"] or spec["tap_step"] is not None)


@dataclass(frozen=True, slots=True)
class _How:
    """How probes are sent: how many, seconds to wait for them, seconds between two, bytes each."""

    count: int
    wait: float
    interval: float = 0.0
    fill: int = _FILL


@contextmanager
def _sender() -> Generator[socket.socket]:
    """A packet socket. Closing one waits for all processors, some 10 ms; that is done aside."""
    made = probing.packet_socket()
    try:
        yield made
    finally:
        threading.Thread(target=made.close, daemon=True).start()


def _send(record: Record, how: _How) -> list[_Sent]:
    """Probe every filter of the fault; raises ObserveFailed if that is impossible."""
    found: list[_Sent] = []
    with Netlink.open() as nl, _sender() as sock:
        for index, step in _steps_of(record):
            spec = step.change.spec
            direction = Direction(spec["direction"])
            attached = classifier.find(nl, spec["ifindex"], direction, record.uid, str(index))
            if attached is None:
                raise ObserveFailed(f"the filter on {spec['device']} is not there")
            timed = _holds(step)
            found.append(_probe(nl, sock, attached, spec, how, timed=timed))
    return found


def _probe(
    nl: Netlink,
    sock: socket.socket,
    attached: Attached,
    spec: dict[str, Any],
    how: _How,
    *,
    timed: bool,
) -> _Sent:
    headers = _headers(spec, attached.direction)
    probed = probing.probe(
        nl, sock, attached, headers,
        count=how.count, interval=how.interval, wait=how.wait, fill=how.fill,
    )  # fmt: skip
    if not probed.matched:
        raise ObserveFailed(
            "the probes did not reach the filter: an earlier one may have ended them"
        )
    times = classifier.probe_times(attached, range(how.count)) if timed else []
    return _Sent(probed, times)


def _headers(spec: dict[str, Any], direction: Direction) -> Headers:
    """Those of a packet that matches; raises ObserveFailed when none can."""
    exempt = tuple(Exempt(**each) for each in spec.get("exempt", ()))
    headers = example(match_from(spec["match"]), direction, exempt)
    if headers is None:
        raise ObserveFailed("no packet can match: the addresses, ports and exclusions leave none")
    return headers


def share(record: Record, words: str, action: Action) -> Reading:
    """How many of the packets a fault hits, against the share asked.

    With a correlation hits come in runs, and a share of so many packets spreads wider.
    """
    asked, correlation = action.percent / 100, action.correlation / 100
    if not _steps_of(record):
        return _share_of_loopback(record, words, asked, correlation)
    held = any(_holds(step) for step in record.steps)
    behind = held and action.kind in (ActionKind.DUPLICATE, ActionKind.CORRUPT)
    hits = n = 0
    while True:
        more, probes = _seen_behind(record) if behind else _counted(record, held=held)
        hits, n = hits + more, n + probes
        reading = _judge_share(words, asked, hits, n, BEHIND if behind else PROBES, correlation)
        # One measurement in 370 is more than three standard errors off by chance alone.
        if reading.effect is Effect.EFFECTIVE or n >= ROUNDS * probes:
            return reading


def _counted(record: Record, *, held: bool) -> tuple[int, int]:
    """How many of how many probes the filter hit, or a queue behind it lost."""
    sent = _send(record, _How(MANY, 0.5))
    hits = sum(
        each.probed.hit - len(each.probed.delays) if held else each.probed.hit for each in sent
    )
    return hits, sum(each.probed.matched for each in sent)


def _seen_behind(record: Record) -> tuple[int, int]:
    """Of how many probes that came out behind a queue how many are copies or no longer whole.

    The queue decides there and counts nothing: a packet socket sees them where they come out.
    """
    with ExitStack() as stack:
        nl = stack.enter_context(Netlink.open())
        ears: list[socket.socket] = []
        for index, step in _steps_of(record):
            name = _exit(nl, record.uid, index, step.change.spec)
            headers = _headers(step.change.spec, Direction(step.change.spec["direction"]))
            size = len(probing.frame(headers, bytes(14), 0, 0, _FILL))
            ears.append(stack.enter_context(loopback_probing.listener(name, size)))
        sent = _send(record, _How(MANY, 0.5, fill=_FILL))
        frames = [_heard(ear) for ear in ears]
    hits = 0
    for probes in frames:
        body = Counter(each[:-4] for each in probes).most_common(1)[0][0] if probes else b""
        sent_so = {body + struct.pack("=I", number) for number in range(MANY)}
        hits += len(probes) - len(sent_so.intersection(probes))
    return hits, sum(each.probed.matched for each in sent)


def _exit(nl: Netlink, uid: str, index: int, spec: dict[str, Any]) -> str:
    """The device at which packets come out of a hop."""
    if spec["tap_step"] is not None:
        return tap_name(uid, spec["tap_step"])
    found = hop.find(nl, uid, str(index))
    if found is None:
        raise ObserveFailed("the devices of this fault are not there")
    return found.far.name


def _heard(ear: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while select.select((ear,), (), (), 0.1)[0]:
        found.append(ear.recv(65536))
    return found


def _judge_share(
    words: str, asked: float, hits: int, n: int, method: str, correlation: float
) -> Reading:
    # The variance of the mean of a chain whose values correlate by c is (1 + c) / (1 - c) times
    # that of independent ones.
    right = share_is(asked, hits, n, 3.0 * math.sqrt((1 + correlation) / (1 - correlation)))
    measured = f"{100 * hits / n:.3g}% (n={n})"
    values = {"asked": asked, "measured": hits / n, "n": n}
    if right:
        return Reading(Effect.EFFECTIVE, words, measured, method, values=values)
    reason = f"{hits} of {n} is more than three standard errors from {100 * asked:.4g}%"
    return Reading(Effect.INEFFECTIVE, words, measured, method, reason, values)


def delay(record: Record, words: str, asked: int, jitter: int) -> Reading:
    """How long packets are held, against `asked` ns. Tried again when the host was too busy to
    tell.
    """
    for _ in range(ROUNDS - 1):
        reading = _delay(record, words, asked, jitter)
        if reading.effect is Effect.EFFECTIVE:
            return reading
    return _delay(record, words, asked, jitter)


def _delay(record: Record, words: str, asked: int, jitter: int) -> Reading:
    wait = (asked + 4 * jitter) / 1e9 + 0.5
    if _steps_of(record):
        sent = _send(record, _How(FEW, wait, interval=0.0001))
        delays, method = [d for each in sent for d in each.probed.delays], PROBES
    else:
        returned = loopback_probing.send(record, FEW, gap=0.002, wait=wait)
        delays, method = returned.delays, loopback_probing.METHOD
    if not delays:
        return Reading.unmeasured(words, method, "no probe came out of the hop in time")
    middle = statistics.median(delays)
    floor = max(FLOOR, 0.05 * asked)
    near = abs(middle - asked) <= floor or mean_is(asked, [*map(float, delays)], floor)
    measured = f"p50 {Duration(round(middle)).short} (n={len(delays)})"
    values = {"asked": asked / 1e9, "measured": middle / 1e9, "n": len(delays)}
    if near:
        return Reading(Effect.EFFECTIVE, words, measured, method, values=values)
    reason = f"off by {Duration(round(abs(middle - asked))).short}"
    return Reading(Effect.INEFFECTIVE, words, measured, method, reason, values)


def overtaking(record: Record, words: str, asked: float, latency: int) -> Reading:
    """Which share of the packets does not wait, against `asked` (0..1)."""
    wait = latency / 1e9 + 0.5
    if _steps_of(record):
        delays = [
            d for each in _send(record, _How(120, wait, interval=0.001)) for d in each.probed.delays
        ]
        method = PROBES
    else:
        returned = loopback_probing.send(record, 120, gap=0.001, wait=wait)
        delays, method = returned.delays, loopback_probing.METHOD
    if not delays:
        return Reading.unmeasured(words, method, "no probe came out of the hop in time")
    early = sum(d < latency / 2 for d in delays)
    n = len(delays)
    values = {"asked": asked, "measured": early / n, "n": n}
    measured = f"{100 * early / n:.3g}% overtook, the others waited (n={n})"
    text = f"{100 * asked:.3g}% {words}"
    if share_is(asked, early, n) or abs(early - asked * n) <= 2:
        return Reading(Effect.EFFECTIVE, text, measured, method, values=values)
    return Reading(Effect.INEFFECTIVE, text, measured, method, f"{early} of {n}", values)


def rate(record: Record, words: str, asked: int, burst: int = 0) -> Reading:
    """Bits per second at which probes leave a hop that is offered more, against `asked`.

    The first `burst` bytes do not count, which pass at once. Tried again when the host was too busy
    to tell.
    """
    for _ in range(ROUNDS - 1):
        reading = _rate(record, words, asked, burst)
        if reading.effect is not Effect.INEFFECTIVE:
            return reading
    return _rate(record, words, asked, burst)


def _rate(record: Record, words: str, asked: int, burst: int) -> Reading:
    size = FULL + _HEADERS
    first = burst // size + 1
    if first > MANY - FEW:
        reason = f"the burst alone takes {first} probes; {MANY} are possible"
        return Reading.unmeasured(words, PROBES, reason)
    # Half a second's worth.
    count = min(MANY, first + max(40, asked // (8 * size * 2)))
    measured: list[float] = []
    offered = 0.0
    ways, method = _crossings(record, count)
    for entered, left in ways:
        if len(entered) > 5:
            span = (entered[-1] - entered[0]) / 1e9
            offered = max(offered, (len(entered) - 1) * size * 8 / span)
        tail = left[max(len(left) // 2, first) :]  # what had no token waiting for it
        if len(tail) > 5 and tail[-1] > tail[0]:
            measured.append((len(tail) - 1) * size * 8 / ((tail[-1] - tail[0]) / 1e9))
    if not measured:
        return Reading.unmeasured(words, method, "too few probes came out of the hop")
    if offered < 1.1 * asked:
        reason = f"this host could offer only {Rate(round(offered)).short}/s of probes"
        return Reading.unmeasured(words, method, reason)
    worst = max(measured, key=lambda found: abs(found - asked))
    values = {"asked": float(asked), "measured": worst, "n": count}
    text = f"{Rate(round(worst)).short}/s (n={count})"
    if abs(worst - asked) <= 0.05 * asked:
        return Reading(Effect.EFFECTIVE, words, text, method, values=values)
    reason = f"off by {100 * abs(worst - asked) / asked:.1f}%"
    return Reading(Effect.INEFFECTIVE, words, text, method, reason, values)


def _crossings(record: Record, count: int) -> tuple[list[tuple[list[int], list[int]]], str]:
    """When full-size probes entered and left each way of the fault, and how it is known."""
    if _steps_of(record):
        sent = _send(record, _How(count, 1.5, fill=FULL))
        times = [each.times for each in sent]
        entered = [sorted(into for into, _ in each if into) for each in times]
        left = [sorted(out for _, out in each if out) for each in times]
        return list(zip(entered, left, strict=True)), PROBES
    returned = loopback_probing.send(record, count, wait=1.5, fill=FULL)
    arrivals = sorted(at for copies in returned.arrived.values() for at in copies)
    return [(sorted(returned.sent.values()), arrivals)], loopback_probing.METHOD


def _share_of_loopback(record: Record, words: str, asked: float, correlation: float) -> Reading:
    """Each kind of fate is told in its own way: missing, more than one copy, or other bytes."""
    returned = loopback_probing.send(record, MANY, wait=0.5)
    shape = next(
        step.change.spec["spec"]["shape"] for step in record.steps if step.change.kind == "worker"
    )
    if shape["duplicate"]:
        hits = sum(len(copies) > 1 for copies in returned.arrived.values())
    elif shape["corrupt"]:
        hits = returned.damaged
    else:
        hits = len(returned.sent) - len(returned.arrived)
    n, method = len(returned.sent), loopback_probing.METHOD
    return _judge_share(words, asked, hits, n, method, correlation)
