from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.traffic.external.course import Course
from faultline.traffic.external.pieces import PERCENTILES, Period, Report, Sample, Times, fold

counts = st.integers(0, 5000)
lengths = st.floats(0.1, 20.0)
values = st.one_of(st.none(), st.floats(1e-6, 100.0))


@given(st.lists(st.tuples(lengths, counts, counts), min_size=1, max_size=20), st.floats(0, 50))
def test_no_answer_is_lost_or_made_up(parts: list[tuple[float, int, int]], begin: float) -> None:
    course, at = Course(1000.0, 0.0), begin
    for length, ok, errors in parts:
        course.add(Period(at, at + length, float(ok), float(errors)))
        at += length
    course.close()
    assert sum(each.ok for each in course.seconds) == pytest.approx(sum(p[1] for p in parts), abs=1)
    assert sum(each.errors for each in course.seconds) == pytest.approx(
        sum(p[2] for p in parts), abs=1
    )
    times = [each.at for each in course.seconds]
    assert times == pytest.approx([1000.0 + begin + n for n in range(len(times))])
    assert all(each.ok >= 0 and each.errors >= 0 for each in course.seconds)


@given(st.lists(st.tuples(st.integers(0, 1000), st.tuples(*[values] * 6)), max_size=12))
def test_folded_times_lie_between_those_of_the_parts(
    parts: list[tuple[int, tuple[float | None, ...]]],
) -> None:
    weighed = [(float(weight), Times(*each)) for weight, each in parts]
    found = fold(weighed)
    for name in (*PERCENTILES, "mean", "max"):
        there = [v for w, t in weighed if w > 0 and (v := getattr(t, name)) is not None]
        value = getattr(found, name)
        assert (value is None) == (not there)
        if there:
            assert min(there) * (1 - 1e-9) <= value <= max(there) * (1 + 1e-9)


def test_a_slow_second_with_few_answers_does_not_decide_a_percentile() -> None:
    fast, slow = Times(p95=0.01), Times(p95=1.0)
    assert fold([(1000.0, fast), (2.0, slow)]).p95 == 0.01
    assert fold([(1000.0, fast), (250.0, slow)]).p95 == 1.0


def test_a_long_period_is_spread_and_short_ones_are_added_up() -> None:
    course = Course(0.0, 0.0)
    course.add(Period(2.0, 5.0, 300.0, 3.0, Times(p95=0.2)))
    for quarter in range(4):
        course.add(Period(5 + quarter / 4, 5.25 + quarter / 4, 10.0, times=Times(mean=quarter)))
    assert [(each.ok, each.errors, each.p95) for each in course.seconds[:3]] == [(100, 1, 0.2)] * 3
    assert (course.seconds[3].ok, course.seconds[3].mean) == (40, 1.5)


def test_a_second_in_which_nothing_was_answered_is_in_the_series() -> None:
    course = Course(0.0, 0.0)
    for at in (0.5, 0.9, 3.2, 3.9, 5.5):
        course.add(Sample(at, 0.1))
    course.add(Sample(3.3, None, "refused"))  # told late
    course.close()
    assert [each.ok for each in course.seconds] == [2, 0, 1, 1, 0, 1]
    assert sum(each.ok for each in course.seconds) == 5
    assert sum(each.errors for each in course.seconds) == 1


def test_a_clock_that_jumps_makes_no_million_seconds() -> None:
    course = Course(0.0, 0.0)
    course.add(Sample(1.0, 0.1))
    course.add(Sample(1e9, 0.1))
    course.add(Period(5.0, 1e9, 5.0))
    course.close()
    assert len(course.seconds) < 5
    assert sum(each.ok for each in course.seconds) == 2


def test_the_report_counts_unless_there_was_a_warm_up() -> None:
    report = Report(1000, 5, 10.0, Times(p50=0.1))
    for warmup, wanted in ((0.0, 1000), (2.0, 80)):
        course = Course(0.0, warmup)
        for second in range(10):
            course.add(Period(second, second + 1, 10.0, times=Times(p50=0.2, p95=0.5)))
        course.close()
        totals = course.totals(report)
        assert totals.ok == wanted
        assert totals.p95 == 0.5  # what the report does not say
    assert Course(0.0, 2.0).totals(report).text == "its warm-up is in the figures"


def test_a_window_is_counted_back_from_now() -> None:
    course = Course(100.0, 0.0)
    for second in range(10):
        course.add(Period(second, second + 1, 10.0))
    assert course.live(110.2, 5).ok == 50
    assert course.live(110.2, 5).seconds == 5.0
    assert course.live(114.2, 5).ok == 20  # it lacks what nobody has told
    assert course.live(200.0, 5).seconds == 0.0
    assert course.live(110.2, 5).histogram == ""
