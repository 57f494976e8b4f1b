"""Between instants and what clocks on a wall show: seconds since 1970, and naive `datetime`s.

Where clocks are put forward, some times do not occur: they stand for the instant of the change.
Where clocks are put back, some occur twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

HOUR = 3600
DAY = 24 * HOUR
SHIFT = 26 * HOUR  # no clock is put forward or back by more


def offset(instant: int, zone: tzinfo) -> int:
    """How much the clocks of a zone are ahead of UTC, in seconds."""
    shift = datetime.fromtimestamp(instant, zone).utcoffset()
    return round(shift.total_seconds()) if shift else 0


def wall(instant: int, zone: tzinfo) -> datetime:
    """What clocks show at an instant."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)


def text(instant: float, zone: tzinfo) -> str:
    """An instant for people, with the offset of the zone, to the second."""
    return datetime.fromtimestamp(instant, zone).replace(microsecond=0).isoformat()


def passes(shown: datetime, zone: tzinfo) -> tuple[int, ...]:
    """The instants at which clocks show a time: one, two in order, or none."""
    first = round(shown.replace(tzinfo=zone, fold=0).timestamp())
    second = round(shown.replace(tzinfo=zone, fold=1).timestamp())
    if first == second:
        return (first,)
    return (first, second) if first < second else ()


def first_instant(shown: datetime, zone: tzinfo) -> int:
    """When clocks show a time first; for one that they leave out, when they leave it out."""
    first = round(shown.replace(tzinfo=zone, fold=0).timestamp())
    second = round(shown.replace(tzinfo=zone, fold=1).timestamp())
    # In a gap the time is read on the old clocks, which is after the change, or on the new ones.
    return first if first <= second else change(second, first, zone)


def last_instant(shown: datetime, zone: tzinfo) -> int:
    """When clocks show a time last; for one that they leave out, when they leave it out."""
    found = passes(shown, zone)
    return found[-1] if found else first_instant(shown, zone)


def change(before: int, after: int, zone: tzinfo) -> int:
    """The instant at which the offset at `before` ends, which is another than that at `after`."""
    old = offset(before, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if offset(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after


def put_back(instant: int, zone: tzinfo) -> timedelta:
    """By how much clocks are put back in the day after an instant."""
    back = offset(instant, zone) - offset(instant + SHIFT, zone)
    return timedelta(seconds=max(0, back))


def utc_stamp(instant: int) -> str:
    """An instant as part of a name: `20261121-030000`."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y%m%d-%H%M%S")
