"""When schedules come: over zones, transitions, freezes and jitter; cronsim and zoneinfo judge."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.schedules.samples import DAY, HOUR, ZONES, offset, schedule, transitions, utc

from faultline.api.calendar import CalendarSpec
from faultline.engine.calendar import Occurrence, Timetable, occurrences
from faultline.testing.sampling import examples

QUICK = settings(
    max_examples=examples(20, 200), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
INSTANTS = st.integers(utc("1972-01-01"), utc("2099-12-01"))
zones = st.sampled_from(ZONES)
hours = st.integers(0, 23)
minutes = st.integers(0, 59)


def first(found: Iterable[Occurrence], count: int) -> list[Occurrence]:
    return list(itertools.islice(found, count))


def shown(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat()


# ---------------------------------------------------------------------------- stated examples


def at_times(line: str, zone: str, after: str, count: int) -> list[str]:
    made = schedule({"cron": line}, timeZone=zone)
    return [shown(each.at, zone) for each in first(occurrences(made, utc(after)), count)]


def test_a_time_that_clocks_leave_out_comes_once_at_the_instant_of_the_change() -> None:
    assert at_times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    twice = at_times("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2)
    assert twice == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]


def test_a_time_that_clocks_show_twice_comes_at_the_first() -> None:
    assert at_times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    # Asked in the hour that is shown for the second time.
    assert at_times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", 1) == [
        "2026-10-26T02:30:00+01:00"
    ]


def test_a_line_for_every_hour_goes_by_the_hours_that_pass() -> None:
    assert at_times("30 * * * *", "Europe/Berlin", "2026-10-24T23:59", 4) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:30:00+01:00",
        "2026-10-25T04:30:00+01:00",
    ]
    assert at_times("30 * * * *", "Europe/Berlin", "2026-03-29T00:00", 2) == [
        "2026-03-29T01:30:00+01:00",
        "2026-03-29T03:30:00+02:00",
    ]


def test_a_day_that_a_country_left_out_comes_at_the_beginning_of_the_next() -> None:
    """Samoa had no 30 December 2011."""
    assert at_times("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00", 3) == [
        "2011-12-29T09:00:00-10:00",
        "2011-12-31T00:00:00+14:00",
        "2011-12-31T09:00:00+14:00",
    ]


def test_an_interval_counts_the_time_that_passes() -> None:
    """The cases of a peer's own tests, and one over the end of summer time."""
    made = schedule({"every": "5s"}, created=utc("2026-11-21T05:59:35") + 0.3)
    assert next(occurrences(made, utc("2026-11-21T05:59:35"))).at == utc("2026-11-21T05:59:40")
    assert next(occurrences(made, utc("2026-11-21T05:59:40"))).at == utc("2026-11-21T05:59:45")
    daily = schedule({"every": "1d", "anchor": "2026-10-24T09:00"}, timeZone="Europe/Berlin")
    assert [shown(each.at, "Europe/Berlin") for each in first(occurrences(daily, 0), 3)] == [
        "2026-10-24T09:00:00+02:00",
        "2026-10-25T08:00:00+01:00",
        "2026-10-26T08:00:00+01:00",
    ]


def test_once_comes_once() -> None:
    made = schedule({"at": "2026-03-29T02:30"}, timeZone="Europe/Berlin")
    assert [each.at for each in occurrences(made, 0)] == [utc("2026-03-29T01:00")]
    assert list(occurrences(made, utc("2026-03-29T01:00"))) == []
    exact = schedule({"at": "2026-03-29T02:30:00-05:00"}, timeZone="Europe/Berlin")
    assert next(occurrences(exact, 0)).at == utc("2026-03-29T07:30")


def test_several_lines_are_one_calendar() -> None:
    made = schedule({"cron": ["0 9 * * MON-FRI", "0 9 1 * *", "@monthly"]})
    assert [
        shown(each.at, "UTC")[:16] for each in first(occurrences(made, utc("2026-05-29")), 4)
    ] == [
        "2026-05-29T09:00",
        "2026-06-01T00:00",
        "2026-06-01T09:00",
        "2026-06-02T09:00",
    ]


# ---------------------------------------------------------------------------- zones


@QUICK
@given(zones, INSTANTS, hours, minutes)
def test_on_plain_days_it_agrees_with_cronsim_and_zoneinfo(
    zone: str, after: int, hour: int, minute: int
) -> None:
    place = ZoneInfo(zone)
    assume(len({offset(after + day * DAY, place) for day in range(-2, 12)}) == 1)
    for line in (
        f"{minute} {hour} * * *",
        f"*/7 {hour} * * MON-FRI",
        "13 * * * *",
        "5 0 */2 * * *",
    ):
        mine = first(occurrences(schedule({"cron": line}, timeZone=zone), after), 5)
        theirs = CronSim(line, datetime.fromtimestamp(after, place))
        assert [each.original for each in mine] == [round(next(theirs).timestamp()) for _ in mine]
        assert all(each.at == each.original and not each.skipped for each in mine)


@settings(QUICK, max_examples=examples(12, 60))
@given(zones, st.integers(1975, 2060), minutes, st.data())
def test_the_rules_of_transitions_hold_at_every_transition_of_every_zone(
    zone: str, year: int, minute: int, data: st.DataObject
) -> None:
    """Brute force over the minutes around it: what clocks show, and how often."""
    place = ZoneInfo(zone)
    found = transitions(zone, year, year + 2)
    assume(found)
    change = data.draw(st.sampled_from(found))
    begin, end = change - 30 * HOUR, change + 30 * HOUR
    assume(sum(begin - DAY <= each <= end + DAY for each in found) == 1)
    old, new = offset(change - 1, place), offset(change, place)
    named = schedule({"cron": [f"{minute} 0-11 * * *", f"{minute} 12-23 * * *"]}, timeZone=zone)
    mine = [
        o.original for o in itertools.takewhile(lambda o: o.at < end, occurrences(named, begin))
    ]
    assert mine == sorted(set(mine))
    seen: dict[datetime, int] = {}
    instant = begin + 1
    while instant < end:
        wall = datetime.fromtimestamp(instant, place).replace(tzinfo=None, fold=0)
        if wall.minute == minute and wall.second == 0:
            seen.setdefault(wall, instant)
        instant += 1 if instant % 60 or old % 60 or new % 60 else 60
    expected = set(seen.values())
    left_out = [
        wall
        for wall in (
            datetime.fromtimestamp(change, UTC).replace(tzinfo=None) + timedelta(seconds=old + step)
            for step in range(max(0, new - old))
        )
        if wall.minute == minute and wall.second == 0
    ]
    if left_out:
        expected.add(change)
    # The first pass of a time may lie before the part that was looked at.
    assert set(mine) - expected == set()
    assert {each for each in expected - set(mine) if each > begin + max(0, old - new)} == set()


@settings(QUICK, max_examples=examples(10, 50))
@given(zones, st.integers(1975, 2060), st.data())
def test_a_line_for_every_hour_comes_whenever_clocks_show_its_minute(
    zone: str, year: int, data: st.DataObject
) -> None:
    place = ZoneInfo(zone)
    found = transitions(zone, year, year + 2)
    assume(found)
    change = data.draw(st.sampled_from(found))
    after = change + data.draw(st.integers(-4 * HOUR, 4 * HOUR))
    minute = data.draw(minutes)
    mine = first(occurrences(schedule({"cron": f"{minute} * * * *"}, timeZone=zone), after), 4)
    expected = (
        at
        for at in range(after + 1, after + 30 * HOUR)
        if (wall := datetime.fromtimestamp(at, place)).minute == minute and not wall.second
    )
    assert [each.original for each in mine] == list(itertools.islice(expected, 4))


# ---------------------------------------------------------------------------- freezes and jitter

clocks = st.builds("{:02d}:{:02d}".format, hours, minutes)
windows = st.one_of(
    st.fixed_dictionaries(
        {"from": clocks, "to": clocks},
        optional={"days": st.lists(st.sampled_from(["mon", "wed", "sat", "sun"]), min_size=1)},
    ).filter(lambda w: w["from"] != w["to"] and w["to"] != "00:00"),
    st.fixed_dictionaries({"days": st.lists(st.sampled_from(["tue", "fri"]), min_size=1)}),
    st.just({"from": "12-20", "to": "01-03"}),
    st.just({"from": "2026-03-20", "to": "2026-04-05"}),
    st.just({"dates": ["10-25", "2026-03-29"]}),
)
calendars = st.fixed_dictionaries(
    {"freeze": st.lists(windows, max_size=3)},
    optional={
        "working": st.lists(windows, min_size=1, max_size=2),
        "timeZone": st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    },
).filter(lambda c: c["freeze"] or c.get("working"))
whens = st.one_of(
    st.builds("{} {} * * *".format, minutes, hours).map(lambda line: {"cron": line}),
    st.sampled_from(["*/20 * * * *", "17 */3 * * *", "0 12 * * SUN"]).map(lambda c: {"cron": c}),
    st.integers(60, 200_000).map(lambda n: {"every": f"{n}s"}),
)
AROUND = st.sampled_from(["2026-03-28", "2026-10-24", "2026-12-31", "2026-06-10", "2026-04-03"])


@settings(QUICK, max_examples=examples(15, 80))
@given(
    whens,
    st.lists(calendars, min_size=1, max_size=2),
    AROUND,
    st.sampled_from(["skip", "delay"]),
    st.sampled_from(["0s", "90s", "5h"]),
    zones,
)
def test_nothing_runs_inside_a_freeze_and_everything_is_in_order(
    when: dict[str, Any], used: list[dict[str, Any]], day: str, rule: str, jitter: str, zone: str
) -> None:
    made = schedule(when, timeZone=zone, calendars=used, onFreeze=rule, jitter=jitter)
    table = Timetable(made)
    after = utc(day)
    found = first(table.occurrences(after), 60)
    assert [each.original for each in found] == sorted({each.original for each in found})
    assert [each.original for each in found] == list(
        itertools.islice(table.originals(after), len(found))
    )
    run = [each for each in found if not each.skipped]
    assert all(earlier.at < later.at for earlier, later in itertools.pairwise(run))
    for each in run:
        assert not table.windows.blocked(each.at)
        assert each.at >= each.original
        assert bool(each.moved) == (each.at > each.original)
    for each in found:
        if each.skipped:
            assert table.windows.blocked(each.original)
    if rule == "delay":
        # The last one of a freeze is run at its end, unless the next comes right there.
        for one, after_it in itertools.pairwise(found):
            opens = table.windows.opens(one.original)
            if one.skipped and opens is not None:
                assert after_it.original <= opens
    # Asked again from any of them the rest is the same.
    for index in (0, len(found) // 2):
        if found[index:]:
            again = first(
                Timetable(made).occurrences(found[index].original), len(found) - index - 1
            )
            assert again == found[index + 1 :]


@settings(QUICK, max_examples=examples(10, 40))
@given(st.lists(windows, min_size=1, max_size=2), st.lists(windows, max_size=2), AROUND, zones)
def test_the_ends_of_freezes_are_those_that_a_look_at_every_minute_finds(
    freeze: list[dict[str, Any]], working: list[dict[str, Any]], day: str, zone: str
) -> None:
    table = Timetable(schedule({"every": "1h"}, timeZone=zone,
                               calendars=[{"freeze": freeze, "working": working}]))  # fmt: skip
    begin = utc(day)
    blocked = [bool(table.windows.blocked(begin + minute * 60)) for minute in range(50 * 60)]
    for start in range(0, 48 * 60, 97):
        opens = table.windows.opens(begin + start * 60)
        rest = blocked[start:]
        expected = rest.index(False) if False in rest else None
        if expected is None:
            assert opens is None or opens >= begin + 50 * HOUR
        else:
            assert opens == begin + (start + expected) * 60
        if not blocked[start]:
            closes = table.windows.closes(begin + start * 60, begin + 50 * HOUR)
            ahead = rest.index(True) if True in rest else len(rest)
            assert closes == begin + (start + ahead) * 60


def test_windows_are_read_as_they_are_written() -> None:
    zone = "Europe/Berlin"
    freeze = [
        {"from": "fri 15:00"[4:], "days": ["fri"], "why": "weekend"},
        {"days": ["sat", "sun"], "why": "weekend"},
        {"from": "22:00", "to": "06:00", "why": "night"},
        {"from": "2026-12-20", "to": "2027-01-03", "why": "holidays"},
        {"dates": ["05-01"], "why": "day of work"},
        {"from": "2026-06-10T12:00:00Z", "to": "2026-06-10T13:00:00Z", "why": "release"},
    ]
    blocked = Timetable(schedule({"every": "1h"}, timeZone=zone,
                                 calendars=[{"freeze": freeze}])).windows.blocked  # fmt: skip

    def at(text: str) -> str:
        return blocked(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())

    assert at("2026-11-20T14:59:59") == ""
    assert at("2026-11-20T15:00") == "freeze: weekend"
    assert at("2026-11-22T12:00") == "freeze: weekend"
    assert at("2026-11-23T05:59") == "freeze: night"
    assert at("2026-11-23T06:00") == ""
    assert at("2027-01-03T23:59:59") != ""
    assert at("2027-01-04T12:00") == ""
    assert at("2029-05-01T12:00") == "freeze: day of work"
    assert at("2026-06-10T14:30") == "freeze: release"
    assert at("2026-06-10T15:00") == ""
    working = {"working": [{"days": ["mon", "tue"], "from": "09:00", "to": "17:00"}]}
    hours_ = Timetable(schedule({"every": "1h"}, timeZone=zone, calendars=[working])).windows
    assert hours_.blocked(utc("2026-11-24T15:59:59")) == ""
    assert hours_.blocked(utc("2026-11-24T16:00")) == "outside of working hours"
    assert hours_.opens(utc("2026-11-24T16:00")) == utc("2026-11-30T08:00")


def test_a_calendar_that_is_not_there_allows_nothing() -> None:
    made = schedule({"every": "1h"}, calendars=["holidays"])
    assert next(occurrences(made, 0)).skipped == "there is no Calendar 'holidays'"
    known = {"holidays": CalendarSpec.model_validate({"freeze": [{"dates": ["12-25"]}]})}
    assert next(occurrences(made, 0, known)).skipped == ""
    assert next(occurrences(made, utc("2026-12-25T10:00"), known)).skipped == "freeze"


def test_a_freeze_without_an_end_delays_nothing_for_ever() -> None:
    made = schedule({"every": "1d"}, onFreeze="delay",
                    calendars=[{"freeze": [{"from": "2026-01-01", "why": "frozen"}]}])  # fmt: skip
    found = next(occurrences(made, utc("2026-02-01")))
    assert found.skipped == "freeze: frozen, which has no end in sight"


def test_jitter_is_drawn_once_and_differs_between_schedules() -> None:
    made = {name: schedule({"cron": "0 3 * * *"}, name=name, jitter="1h") for name in ("a", "b")}
    late = {n: [o.at - o.original for o in first(occurrences(s, 0), 50)] for n, s in made.items()}
    assert late["a"] != late["b"]
    assert late["a"] == [o.at - o.original for o in first(occurrences(made["a"], 0), 50)]
    assert all(0 <= each < HOUR for each in late["a"])
    assert max(late["a"]) > 0.8 * HOUR > 0.2 * HOUR > min(late["a"])
    seeded = schedule({"cron": "0 3 * * *"}, name="b", jitter="1h", seed="a")
    assert [o.at - o.original for o in first(occurrences(seeded, 0), 50)] == late["a"]


YEARS = [2027, *(pytest.param(year, marks=pytest.mark.full) for year in range(1975, 2060, 4))]


@pytest.mark.parametrize("year", YEARS)
def test_no_occurrence_comes_twice_in_any_zone(year: int) -> None:
    """All zones, all transitions of two years, by the shortest path: identities only."""
    for zone in ZONES:
        for change in transitions(zone, year, year + 1):
            made = schedule({"cron": ["30 * * * *", "*/40 1-3 * * *"]}, timeZone=zone)
            found = [o.original for o in first(occurrences(made, change - 4 * HOUR), 12)]
            assert found == sorted(set(found)), (zone, change)
