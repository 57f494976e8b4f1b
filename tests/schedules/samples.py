"""Schedules for the tests, and the zones and their transitions."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Any

from faultline.api.model import Metadata
from faultline.api.schedule import Schedule, ScheduleSpec

ZONES = sorted(zoneinfo.available_timezones())
HOUR, DAY = 3600, 86400


def schedule(
    when: dict[str, Any], name: str = "nightly", created: float = 0.0, **spec: Any
) -> Schedule:
    return Schedule(
        metadata=Metadata(name=name, uid="u", creation_timestamp=created),
        spec=ScheduleSpec.model_validate({"experiment": "checkout", "when": when, **spec}),
    )


def utc(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def offset(instant: int, zone: tzinfo) -> int:
    shift = datetime.fromtimestamp(instant, zone).utcoffset()
    assert shift is not None
    return round(shift.total_seconds())


@cache
def transitions(name: str, first: int, last: int) -> tuple[int, ...]:
    """Every instant in these years at which the offset changes, found by looking at each 6 h."""
    zone = zoneinfo.ZoneInfo(name)
    start, end = utc(f"{first}-01-01"), utc(f"{last}-01-01")
    found: list[int] = []
    before = offset(start, zone)
    for at in range(start, end, 6 * HOUR):
        here = offset(at, zone)
        if here != before:
            low, high = at - 6 * HOUR, at
            while high - low > 1:
                middle = (low + high) // 2
                if offset(middle, zone) == before:
                    low = middle
                else:
                    high = middle
            found.append(high)
            before = here
    return tuple(found)
