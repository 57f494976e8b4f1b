from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faultline.report import scale, series, words
from faultline.report.chart import TALL, WIDE, Frame, Wanted, panel
from faultline.report.series import Series

FINITE = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


@given(st.lists(FINITE, min_size=1), st.booleans())
def test_every_value_lies_on_an_axis_that_was_fitted_to_it(values: list[float], log: bool) -> None:
    axis = scale.fit(values, log=log)
    assert axis.low < axis.high
    for value in values:
        assert 0 <= axis.at(value) <= 1
    inside = [v for v in values if v >= axis.low]
    for value in inside:
        assert axis.place(axis.at(value)) == pytest.approx(value, rel=1e-6, abs=(axis.high) * 1e-6)


@given(st.lists(FINITE, min_size=1), st.booleans())
@example([5e-324], True)
def test_ticks_are_few_round_and_on_the_axis(values: list[float], log: bool) -> None:
    axis = scale.fit(values, log=log)
    found = axis.ticks(4)
    assert len(found) <= 12
    air = (axis.high - axis.low) * 0.01
    assert all(axis.low - air <= tick <= axis.high + air for tick in found)
    digits = {f"{abs(t):e}"[0] for t in found if t} if log else {"1"}
    assert digits <= {"1", "2", "5"}


def test_thinning_keeps_peaks_and_gaps_of_ten_thousand_samples() -> None:
    rng = random.Random(7)
    points: list[series.Point] = [(i / 100, rng.random()) for i in range(10_000)]
    points[4321] = (43.21, 99.0)
    points[6000] = (60.0, -5.0)
    points[7500:7600] = [(75 + i / 100, None) for i in range(100)]
    thinned = series.thin(points, 0, 100)
    assert len(thinned) <= 5 * series.COLUMNS
    assert (43.21, 99.0) in thinned
    assert (60.0, -5.0) in thinned
    assert len(series.runs(thinned)) == 2, "the gap is still a gap"
    assert [t for t, _ in thinned] == sorted(t for t, _ in thinned)


def test_few_samples_are_not_thinned() -> None:
    points = [(float(i), float(i)) for i in range(50)]
    assert series.thin(points, 0, 50) == tuple(points)


def test_a_silence_is_a_gap_and_an_interval_is_not() -> None:
    points = series.with_gaps([(0, 1.0), (1, 1.0), (2, 1.0), (9, 1.0), (10, 1.0)])
    assert [len(run) for run in series.runs(points)] == [3, 2]
    assert len(series.runs(series.with_gaps([(0, 1.0), (1, 1.0), (3, 1.0)]))) == 1


def test_a_gap_breaks_the_line_of_the_picture() -> None:
    points = ((0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 2.0), (4.0, 1.0), (5.0, None), (6.0, 1.5))
    drawn = panel(Frame(10.0), Wanted("k", "t", "s", (Series("v", points),)))
    line, dot = drawn.plots[0].marks
    assert line.path.count("M") == 2, "two stretches, drawn apart"
    assert dot.shape == "dots", "a single sample between gaps is a dot"


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1e6)), max_size=300))
def test_nothing_is_drawn_outside_the_picture(points: list[series.Point]) -> None:
    wanted = Wanted("k", "t", "s", (Series("v", tuple(points)),), low=1.0, high=2.0, log=True)
    for plot in panel(Frame(100.0), wanted).plots:
        for mark in plot.marks:
            numbers = mark.path.replace("M", " ").replace("L", " ").replace("h.01", " ").split()
            assert all(-1 <= int(x) <= WIDE + 1 for x in numbers[::2])
            assert all(0 <= int(y) <= TALL for y in numbers[1::2])
        assert all(0 <= tick.place <= 100 for tick in plot.ticks)


def test_tick_labels_keep_their_distance_from_the_bounds_of_an_expectation() -> None:
    points = tuple((float(i), 0.101 if i % 2 else 0.003) for i in range(20))
    wanted = Wanted("k", "t", "s", (Series("v", points),), low=0.099, high=0.1)
    plot = panel(Frame(20.0), wanted).plots[0]
    places = sorted(tick.place for tick in plot.ticks if tick.label)
    assert all(b - a > 9 for a, b in pairwise(places))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, words.NONE),
        (0.0, "0 s"),
        (0.00001234, "12.3 µs"),
        (0.31, "310 ms"),
        (0.9996, "1.00 s"),
        (15.24, "15.2 s"),
        (99.97, "1 min 40 s"),
        (125.0, "2 min 5 s"),
        (3725.0, "1 h 2 min"),
        (200_000.0, "2 d 7 h"),
        (math.inf, words.NONE),
    ],
)
def test_a_length_of_time_is_written_for_people(seconds: float | None, text: str) -> None:
    assert words.span(seconds) == text


def test_values_carry_their_unit_and_three_digits() -> None:
    assert words.amount(0.0153846, "ratio") == "1.54 %"
    assert words.amount(123_456_789.0, "B") == "123 MB"
    assert words.amount(1234.5678, "") == "1,235"
    assert words.spread(0.00302, 0.00681, "s") == "3.02 to 6.81 ms"
    assert words.spread(0.9, 1.2, "s") == "900 ms to 1.20 s"
    assert words.spread(1.0, 1.0, "") == ""


def test_an_unknown_word_is_shown_and_never_rounded_to_a_known_one() -> None:
    assert words.answer(words.VERDICTS, "mostly held").word == "mostly held"
    assert words.answer(words.VERDICTS, "mostly held").tone == "unknown"
