"""Calendars as documents: when nothing may be broken, and when alone something may be.

A window is written in one of three forms, told apart by how `from` and `to` look: hours of certain
days (`09:00`), a stretch of every year (`12-20`), or a stretch that happens once (`2026-12-20`).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from faultline.api.model import Model, Resource, Shorthand

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_OF_DAY = 24 * 60
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_YEARLY = re.compile(r"(\d\d)-(\d\d)")
_LEAP = 2000  # a year that has every day

Edge = int | tuple[int, int] | date | datetime
"""A minute of the day, a day of every year, a day, or an instant."""


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name; raises ValueError."""
    if name in ("UTC", "Etc/UTC"):
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("expected an IANA time zone, such as Europe/Berlin or UTC") from error


def _zone_text(name: str) -> str:
    zone_of(name)
    return name


Zone = Annotated[str, AfterValidator(_zone_text)]
"""An IANA time zone."""


def edge(text: str) -> Edge:
    """What `from` or `to` says; raises ValueError. A `datetime` without a zone is one of a wall
    clock.
    """
    if found := _CLOCK.fullmatch(text):
        return int(found[1]) * 60 + int(found[2]) if found[1] else MINUTES_OF_DAY
    if found := _YEARLY.fullmatch(text):
        return _month_day(text)
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            "expected a time of day (09:00), a day of every year (12-24), a day (2026-12-24) or an "
            "instant (2026-12-24T18:00)"
        ) from error


def day(text: str) -> tuple[int, int] | date:
    """A day of every year or of one; raises ValueError."""
    try:
        return _month_day(text) if _YEARLY.fullmatch(text) else date.fromisoformat(text)
    except ValueError as error:
        raise ValueError("expected a day, as 2026-12-24 or, for every year, 12-24") from error


def _month_day(text: str) -> tuple[int, int]:
    found = date(_LEAP, int(text[:2]), int(text[3:]))
    return found.month, found.day


def instant(text: str) -> datetime:
    """A time as ISO 8601; without a zone it is one of a wall clock. Raises ValueError."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            "expected a time as ISO 8601, such as 2026-12-24T18:00 or 2026-12-24T18:00:00Z"
        ) from error


def _edge_text(text: str | None) -> str | None:
    if text is not None:
        edge(text)
    return text


def _day_text(text: str) -> str:
    day(text)
    return text


class Window(Model):
    """A stretch of time: once, of every year, or hours of certain days."""

    begin: Annotated[str | None, AfterValidator(_edge_text), Field(alias="from")] = None
    """When it begins: `09:00` (of each day; without it 00:00), `12-20` (of each year), `2026-12-20`
    or `2026-12-20T18:00` (once; without it, since ever)."""
    end: Annotated[str | None, AfterValidator(_edge_text), Field(alias="to")] = None
    """When it ends, in the same form. A time is not part of it any more (without it 24:00), a day
    is, to its end. Hours that end earlier than they begin end on the next day."""
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(
        default_factory=list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]]
    )
    """Only on these days of the week, on which the hours begin."""
    dates: list[Annotated[str, AfterValidator(_day_text)]] = Field(default_factory=list[str])
    """Only on these days: `2026-05-01`, or `12-24` for every year."""
    why: str = ""
    """What for; said where an occurrence is skipped or moved."""

    @property
    def edges(self) -> tuple[Edge | None, Edge | None]:
        """Both ends, read."""
        return (
            None if self.begin is None else edge(self.begin),
            None if self.end is None else edge(self.end),
        )

    @model_validator(mode="after")
    def _one_form(self) -> Window:
        begin, end = self.edges
        forms = {_form(each) for each in (begin, end) if each is not None}
        if len(forms) > 1:
            raise ValueError("expected `from` and `to` in the same form")
        if self.days and self.dates:
            raise ValueError("expected `days` or `dates`, not both; write two windows")
        if not forms and not self.days and not self.dates:
            raise ValueError("expected `from` and `to`, `days` or `dates`")
        if forms and "hours" not in forms and (self.days or self.dates):
            raise ValueError("expected hours (09:00) as `from` and `to` with `days` or `dates`")
        if forms == {"yearly"} and (begin is None or end is None):
            raise ValueError("expected both `from` and `to` for a stretch of every year")
        if forms == {"hours"} and begin == end:
            raise ValueError("expected two different times; leave both out for the whole day")
        if begin == MINUTES_OF_DAY or end == 0:
            raise ValueError("expected a beginning before 24:00 and an end after 00:00")
        return self


def _form(value: Edge) -> str:
    if isinstance(value, int):
        return "hours"
    return "yearly" if isinstance(value, tuple) else "once"


class CalendarSpec(Model):
    """Freeze windows and working hours."""

    time_zone: Zone | None = None
    """The IANA zone whose clocks the windows are read on; without it that of the schedule."""
    freeze: list[Window] = Field(default_factory=list[Window])
    """When nothing starts."""
    working: list[Window] = Field(default_factory=list[Window])
    """When something may start: outside of all of these nothing does. Empty: always."""


class CalendarUse(CalendarSpec, Shorthand):
    """A calendar of a schedule: one of the store by its name, or its windows in place."""

    shorthand = "name"

    name: str = ""
    """The name of a Calendar in the store. A text in place of the mapping means the same."""

    @model_validator(mode="after")
    def _either(self) -> CalendarUse:
        if bool(self.name) == bool(self.freeze or self.working):
            raise ValueError("expected the name of a Calendar, or `freeze` or `working`")
        return self


class Calendar(Resource):
    """Windows that several schedules share."""

    plural: ClassVar[str] = "calendars"

    kind: Literal["Calendar"] = "Calendar"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: CalendarSpec
    """The windows."""
    status: None = None
    """A calendar has none."""
