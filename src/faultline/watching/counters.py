"""Counters of a target, and the rates between two readings; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faultline.api.watching import TargetSecond

MOST = 1800
"""Steps that are kept of one target: half an hour of seconds; of a longer run, coarser ones."""

_SECOND = 1_000_000_000
_FLOWS = ("read", "written", "reads", "writes", "received", "sent", "retransmits")
_SHARES = ("cpu", "throttled", "cpu_pressure", "memory_pressure", "io_pressure")
_RATES = (*_SHARES, *_FLOWS)


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading. Times and flows only grow; None is what could not be read."""

    at: float  # seconds since 1970
    ns: int  # CLOCK_BOOTTIME
    life: int = 0  # which incarnation of the target it is
    cpu: int | None = None  # ns
    throttled: int | None = None  # ns
    cpu_pressure: int | None = None  # ns
    memory_pressure: int | None = None  # ns
    io_pressure: int | None = None  # ns
    read: int | None = None  # bytes
    written: int | None = None
    reads: int | None = None  # requests
    writes: int | None = None
    received: int | None = None  # bytes
    sent: int | None = None
    retransmits: int | None = None  # segments
    memory: int | None = None  # bytes, now
    processes: int | None = None  # now
    kills: int | None = None


def between(before: Counters, after: Counters) -> TargetSecond:
    """What happened from one reading to the next.

    A counter that went back (a device or a process left the set) counts as no change. Of another
    incarnation of the target nothing but its size is known.
    """
    took = (after.ns - before.ns) / _SECOND
    # The wall clock may have been set meanwhile: the length is the boot clock's.
    second = TargetSecond(at=round(after.at - took, 3), span=round(took, 3))
    second.memory, second.processes = _number(after.memory), after.processes
    second.restarts = max(0, after.life - before.life)
    if second.restarts or took <= 0:
        return second
    for name in _RATES:
        first, last = getattr(before, name), getattr(after, name)
        if first is not None and last is not None:
            rate = max(0, last - first) / took
            setattr(second, name, _number(rate / _SECOND if name in _SHARES else rate))
    if before.kills is not None and after.kills is not None:
        second.kills = max(0, after.kills - before.kills)
    for name in ("cpu_pressure", "memory_pressure", "io_pressure"):
        share = getattr(second, name)
        setattr(second, name, None if share is None else min(share, 1.0))
    return second


def _number(value: float | None) -> float | None:
    """Four digits are enough for a curve, and short in a document."""
    return None if value is None else float(f"{value:.4g}")


def merged(group: Sequence[TargetSecond]) -> TargetSecond:
    """Several steps as one: rates by their mean over the time, sizes by their largest."""
    first = group[0]
    if len(group) == 1:
        return first
    out = TargetSecond(at=first.at, span=round(sum(each.span for each in group), 3))
    for name in _RATES:
        known = [(v, s.span) for s in group if (v := getattr(s, name)) is not None]
        time = sum(span for _, span in known)
        if time > 0:
            setattr(out, name, _number(sum(value * span for value, span in known) / time))
    out.memory = max((s.memory for s in group if s.memory is not None), default=None)
    out.processes = max((s.processes for s in group if s.processes is not None), default=None)
    out.restarts, out.kills = sum(s.restarts for s in group), sum(s.kills for s in group)
    return out


def bounded(seconds: Sequence[TargetSecond], most: int = MOST) -> list[TargetSecond]:
    """The same with at most `most` steps: where there are more, in steps of 2, 4, 8 ... seconds, so
    few that as many again have room.

    Steps that are known already stay as they are or become part of larger ones, so doing it while a
    run goes on gives what doing it at the end would, but for the latest.
    """
    if len(seconds) <= most:
        return list(seconds)
    begin = seconds[0].at
    length = seconds[-1].at + seconds[-1].span - begin
    step = 2.0
    while length / step > most / 2:
        step *= 2
    groups: dict[int, list[TargetSecond]] = {}
    for each in seconds:
        groups.setdefault(int((each.at - begin) / step + 1e-3), []).append(each)
    return [merged(group) for _, group in sorted(groups.items())][-most:]
