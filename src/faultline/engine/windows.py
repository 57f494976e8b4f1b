"""Freeze windows and working hours as functions of an instant.

Hours, days and dates are read on the clocks of a zone: an instant lies in such a window if what the
clocks show then does, in both of two equal hours and in none of a missing one. A stretch that
happens once lies between two instants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import cast

from faultline.api.calendar import DAYS, MINUTES_OF_DAY, CalendarSpec, Edge, Window, day, zone_of
from faultline.engine import walltime

FAR = 366 * walltime.DAY
"""How far ahead the end of a freeze is looked for, in seconds."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Once:
    """From one instant to another, the end excluded."""

    begin: int | None
    end: int | None
    why: str

    def contains(self, instant: int) -> bool:
        begun = self.begin is None or self.begin <= instant
        return begun and (self.end is None or instant < self.end)

    def edge_after(self, instant: int) -> int | None:
        later = [each for each in (self.begin, self.end) if each is not None and each > instant]
        return min(later, default=None)


@dataclass(frozen=True, slots=True)
class Recurring:
    """Hours of certain days, on the clocks of a zone."""

    zone: tzinfo
    why: str
    begin: int = 0  # minutes of the day
    end: int = MINUTES_OF_DAY
    weekdays: frozenset[int] = frozenset()  # Monday is 0; none: all
    dates: frozenset[date | tuple[int, int]] = frozenset()  # none: all
    yearly: tuple[tuple[int, int], tuple[int, int]] | None = None  # both days included

    def contains(self, instant: int) -> bool:
        shown = walltime.wall(instant, self.zone)
        minute = shown.hour * 60 + shown.minute
        if self.begin < self.end:
            return self.begin <= minute < self.end and self._on(shown.date())
        if minute >= self.begin:
            return self._on(shown.date())
        return minute < self.end and self._on(shown.date() - _DAY)

    def _on(self, day: date) -> bool:
        if self.yearly is not None:
            first, last = self.yearly
            here = (day.month, day.day)
            return first <= here <= last if first <= last else here >= first or here <= last
        if self.dates:
            return day in self.dates or (day.month, day.day) in self.dates
        return not self.weekdays or day.weekday() in self.weekdays

    def edge_after(self, instant: int) -> int | None:
        """The next instant at which it may begin or end; never more than a day and a bit ahead."""
        today = walltime.wall(instant, self.zone).date()
        shown = [
            _at(today + _DAY * ahead, minute)
            for ahead in (0, 1)
            for minute in {0, self.begin, self.end}
        ]
        found = [
            each
            for one in shown
            for each in walltime.passes(one, self.zone) or (walltime.first_instant(one, self.zone),)
        ]
        tomorrow = instant + walltime.DAY
        if walltime.offset(instant, self.zone) != walltime.offset(tomorrow, self.zone):
            found.append(walltime.change(instant, tomorrow, self.zone))
        return min(each for each in found if each > instant)


def _at(day: date, minute: int) -> datetime:
    return datetime.combine(day, time()) + timedelta(minutes=minute)


def compiled(window: Window, zone: tzinfo) -> Once | Recurring:
    """A window of a document on the clocks of a zone."""
    begin, end = window.edges
    if isinstance(begin, date) or isinstance(end, date):
        return Once(
            None if begin is None else _instant(begin, zone, last=False),
            None if end is None else _instant(end, zone, last=True),
            window.why,
        )
    if isinstance(begin, tuple) and isinstance(end, tuple):
        return Recurring(zone, window.why, yearly=(begin, end))
    return Recurring(
        zone,
        window.why,
        cast("int | None", begin) or 0,
        MINUTES_OF_DAY if end is None else cast("int", end),
        frozenset(map(DAYS.index, window.days)),
        frozenset(map(day, window.dates)),
    )


def _instant(edge: Edge, zone: tzinfo, *, last: bool) -> int:
    if not isinstance(edge, datetime):
        found = cast("date", edge) + _DAY if last else cast("date", edge)
        edge = datetime.combine(found, time())
    if edge.tzinfo is not None:
        return round(edge.timestamp())
    return (walltime.last_instant if last else walltime.first_instant)(edge, zone)


class Windows:
    """All calendars of a schedule together."""

    def __init__(
        self, calendars: Iterable[CalendarSpec] = (), zone: str = "UTC", broken: str = ""
    ) -> None:
        self.broken = broken
        """Why nothing is allowed at all: a calendar that is named and not there."""
        self._freeze: list[Once | Recurring] = []
        self._working: list[Sequence[Once | Recurring]] = []
        for calendar in calendars:
            its = zone_of(calendar.time_zone or zone)
            self._freeze += [compiled(window, its) for window in calendar.freeze]
            if calendar.working:
                self._working.append([compiled(window, its) for window in calendar.working])
        self._closed = (0, 0)  # a stretch that was found to be blocked throughout
        self._all = [*self._freeze, *(window for hours in self._working for window in hours)]

    def blocked(self, instant: float) -> str:
        """Why nothing may start then; empty if something may."""
        if self.broken:
            return self.broken
        at = int(instant // 1)
        for window in self._freeze:
            if window.contains(at):
                return f"freeze: {window.why}" if window.why else "freeze"
        if any(not any(w.contains(at) for w in hours) for hours in self._working):
            return "outside of working hours"
        return ""

    def _edge_after(self, instant: int) -> int | None:
        edges = [edge for window in self._all if (edge := window.edge_after(instant)) is not None]
        return min(edges, default=None)

    def opens(self, instant: int) -> int | None:
        """The first instant from this one on at which something may start; None: not in sight."""
        begin, end = self._closed
        known = begin <= instant < end
        begin, at = (begin, end) if known else (instant, instant)
        limit = instant + FAR
        while at < limit and self.blocked(at):
            at = self._edge_after(at) or limit
        self._closed = (begin, at)
        return at if at < limit else None

    def closes(self, instant: int, limit: int) -> int:
        """The first instant after this one, up to a limit, at which nothing may start."""
        at = self._edge_after(instant)
        while at is not None and at < limit:
            if self.blocked(at):
                return at
            at = self._edge_after(at)
        return limit
