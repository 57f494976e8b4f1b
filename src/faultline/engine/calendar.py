"""When a schedule comes: pure, from its document alone.

An occurrence is the instant that the calendar names, in whole seconds since 1970: that is its
identity. When its run begins may be later: after a freeze, and by its share of the jitter.

- A line of cron that names hours is read on the clocks of the zone. A time that clocks leave out in
  spring comes at the instant of the change; one that they show twice in autumn comes at the first.
- A line for every hour goes by the hours that pass: it comes whenever the clocks show its times.
- `every` counts the time that passes.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from faultline.api.calendar import CalendarSpec, instant, zone_of
from faultline.api.schedule import Schedule
from faultline.engine import walltime
from faultline.engine.windows import Windows
from faultline.units import Duration

_SECOND = 10**9
_EVERY_HOUR = set(range(24))
FARTHEST = 100_000
"""Occurrences that are looked at to find the next ones that run."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time at which a schedule comes."""

    original: int
    """What the calendar names, seconds since 1970: its identity."""
    at: float
    """When its run begins; later than that of every earlier one."""
    skipped: str = ""
    """Why it is not run; empty if it is."""
    moved: str = ""
    """Why it begins later than the calendar says; empty if it does not."""


def occurrences(
    schedule: Schedule, after: float, calendars: Mapping[str, CalendarSpec] | None = None
) -> Iterator[Occurrence]:
    """All occurrences whose original instant lies after `after`, in order; may be endless."""
    return Timetable(schedule, calendars).occurrences(after)


class Timetable:
    """A schedule with its zone and windows read."""

    def __init__(
        self, schedule: Schedule, calendars: Mapping[str, CalendarSpec] | None = None
    ) -> None:
        self._schedule = schedule
        self._spec = schedule.spec
        self.zone = zone_of(schedule.spec.time_zone)
        self.windows = _windows(schedule, calendars or {})

    # ------------------------------------------------------------------ what the calendar names

    def originals(self, after: float) -> Iterator[int]:
        """The instants that `when` names, in order, each once; after `after`."""
        when, start = self._spec.when, int(after // 1)
        if when.at is not None:
            once = _read(when.at, self.zone)
            return iter([once] if once > after else [])
        if when.every is not None:
            return self._every(when.every, start)
        lines = [_line(line, self.zone, start) for line in when.lines]
        return _once_each(heapq.merge(*lines), start)

    def _every(self, every: Duration, after: int) -> Iterator[int]:
        step, anchor = every // _SECOND, self._spec.when.anchor
        if anchor is None:
            begin = int(self._schedule.metadata.creation_timestamp) + step
        else:
            begin = _read(anchor, self.zone)
        return itertools.count(max(begin, begin + ((after - begin) // step + 1) * step), step)

    # ------------------------------------------------------------------ what becomes of it

    def occurrences(self, after: float) -> Iterator[Occurrence]:
        ahead = self.originals(after)
        here = next(ahead, None)
        while here is not None:
            following = next(ahead, None)
            yield self._occurrence(here, following)
            here = following

    def _occurrence(self, here: int, following: int | None) -> Occurrence:
        why = self.windows.blocked(here)
        if not why:
            return self._begun(here, here, following, "")
        if self._spec.on_freeze == "skip":
            return Occurrence(here, here, skipped=why)
        opens = self.windows.opens(here)
        if opens is None:
            return Occurrence(here, here, skipped=f"{why}, which has no end in sight")
        if following is not None and following <= opens:
            return Occurrence(here, here, skipped=f"{why}; a later one comes after it")
        return self._begun(here, opens, following, why)

    def _begun(self, original: int, at: int, following: int | None, why: str) -> Occurrence:
        jitter = self._spec.jitter or 0
        if not jitter:
            return Occurrence(original, at, moved=why)
        limit = at + -(-jitter // _SECOND)
        limit = limit if following is None else min(limit, following)
        room = min(jitter / _SECOND, self.windows.closes(at, limit) - at)
        late = int(self._share(original) * room * 1000) / 1000
        told = ", ".join(filter(None, (why, f"jitter of {late:.3f} s" if late else "")))
        return Occurrence(original, at + late, moved=told)

    def _share(self, original: int) -> float:
        """A number from 0 to 1, the end excluded, that is always the same for an occurrence."""
        seed = self._spec.seed or self._schedule.metadata.name
        drawn = hashlib.sha256(f"{seed}\0{original}".encode()).digest()
        return (int.from_bytes(drawn[:8]) >> 11) / 2**53


def ahead(table: Timetable, start: float, number: int) -> list[Occurrence]:
    """So many occurrences that run, with those left out before and between them."""
    found: list[Occurrence] = []
    runs = 0
    for each in itertools.islice(table.occurrences(start), FARTHEST):
        found.append(each)
        runs += not each.skipped
        if runs == number:
            break
    return found


def _windows(schedule: Schedule, calendars: Mapping[str, CalendarSpec]) -> Windows:
    used: list[CalendarSpec] = []
    for each in schedule.spec.calendars:
        if not each.name:
            used.append(each)
        elif each.name in calendars:
            used.append(calendars[each.name])
        else:
            return Windows(broken=f"there is no Calendar {each.name!r}")
    return Windows(used, schedule.spec.time_zone)


def _read(text: str, zone: tzinfo) -> int:
    found = instant(text)
    if found.tzinfo is None:
        return walltime.first_instant(found.replace(microsecond=0), zone)
    return int(found.timestamp() // 1)


def _line(line: str, zone: tzinfo, after: int) -> Iterator[int]:
    """When a line of cron comes, in order; the same instant several times where clocks leave out
    several of its times.
    """
    from cronsim import CronSim

    start = walltime.wall(after, zone)
    if zone is UTC:
        return (round(shown.replace(tzinfo=UTC).timestamp()) for shown in CronSim(line, start))
    if CronSim(line, start).hours != _EVERY_HOUR:
        return (walltime.first_instant(shown, zone) for shown in CronSim(line, start))
    return _hours_that_pass(line, zone, start - walltime.put_back(after, zone))


def _hours_that_pass(line: str, zone: tzinfo, start: datetime) -> Iterator[int]:
    """All instants at which clocks show the times of a line, in order."""
    from cronsim import CronSim

    again: list[int] = []  # what clocks show for the second time later than what comes next
    for shown in CronSim(line, start):
        found = walltime.passes(shown, zone)
        if not found:
            continue
        while again and again[0] <= found[0]:
            yield heapq.heappop(again)
        yield found[0]
        for second in found[1:]:
            heapq.heappush(again, second)


def _once_each(instants: Iterator[int], after: int) -> Iterator[int]:
    last = after
    for each in instants:
        if each > last:
            last = each
            yield each
