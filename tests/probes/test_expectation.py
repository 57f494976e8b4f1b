"""The interval grammar and the judgement, by their laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.api.expectation import Expect, judge, read_interval
from faultline.errors import InvalidParameter
from faultline.units import Duration, Size

judge(Expect(cel="true"), "", None, {}, None)  # loading CEL changes the recursion limit, once

numbers = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9).map(lambda x: round(x, 6))


def written(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".") if isinstance(number, float) else str(number)


@given(numbers, numbers, numbers)
def test_both_bounds_are_included(a: float, b: float, value: float) -> None:
    low, high = min(a, b), max(a, b)
    interval = read_interval(f"{written(low)},{written(high)}", "")
    assert interval.holds(float(written(low)))
    assert interval.holds(float(written(high)))
    assert interval.holds(value) == (float(written(low)) <= value <= float(written(high)))


@given(numbers, numbers)
def test_an_open_side_has_no_bound(bound: float, value: float) -> None:
    at = float(written(bound))
    assert read_interval(f"{written(bound)},", "").holds(value) == (value >= at)
    assert read_interval(f" , {written(bound)} ", "").holds(value) == (value <= at)


@given(numbers, numbers)
def test_a_single_number_means_exactly_that(bound: float, value: float) -> None:
    interval = read_interval(written(bound), "")
    assert interval.holds(float(written(bound)))
    assert interval.holds(value) == (value == float(written(bound)))


@given(numbers, numbers)
def test_a_lower_bound_above_the_upper_is_refused(a: float, b: float) -> None:
    low, high = sorted((float(written(a)), float(written(b))))
    if low < high:
        with pytest.raises(InvalidParameter, match="lower bound"):
            read_interval(f"{written(high)},{written(low)}", "")


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_times_and_sizes_are_read_with_their_units(a: int, b: int) -> None:
    low, high = sorted((a, b))
    times = read_interval(f"{Duration(low)},{Duration(high)}", "s")
    assert times == (low / 1e9, high / 1e9)
    sizes = read_interval(f"{Size(low)},{Size(high)}", "B")
    assert sizes == (float(low), float(high))


@given(st.text(max_size=20), st.sampled_from(["", "s", "ratio", "B", "percent"]))
def test_any_text_is_an_interval_or_is_refused_by_name(text: str, unit: Any) -> None:
    try:
        low, high = read_interval(text, unit)
    except InvalidParameter:
        return  # never another error
    assert low <= high
    assert not math.isnan(low)


@pytest.mark.parametrize("text", ["", ",", "1,2,3", "a,b", "nan,", "inf,", "0x10", "1 2", "--1"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        read_interval(text, "")


@pytest.mark.parametrize(
    ("text", "unit"), [("300", "s"), ("0.3", "ratio"), ("10", "B"), ("5%", "s")]
)
def test_a_bound_without_its_unit_is_refused(text: str, unit: Any) -> None:
    with pytest.raises(InvalidParameter):
        read_interval(f",{text}", unit)


@given(st.floats(0.001, 1e6), st.floats(-90, 500), st.floats(0.5, 50))
def test_a_relative_expectation_follows_the_value_before(
    initial: float, change: float, slack: float
) -> None:
    value = initial * (1 + change / 100)
    inside = Expect(interval=f"{change - slack:.6f}%,{change + slack:.6f}%", relative="percent")
    outside = Expect(interval=f"{change + slack:.6f}%,", relative="percent")
    assert judge(inside, "", value, {}, initial).ok is True
    assert judge(outside, "", value, {}, initial).ok is False
    difference = Expect(interval=f"{value - initial - 1:.6f},{value - initial + 1:.6f}")
    relative = difference.model_copy(update={"relative": "difference"})
    assert judge(relative, "", value, {}, initial).ok is True


def test_what_cannot_be_compared_is_not_judged() -> None:
    relative = Expect(interval=",10%", relative="percent")
    assert judge(relative, "", 1.0, {}, None).ok is None
    assert judge(relative, "", 1.0, {}, 0.0).ok is None
    assert judge(Expect(interval="1"), "", None, {}, None).ok is None
    assert judge(Expect(interval="1,"), "", math.nan, {}, None).ok is None


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_an_expression_agrees_with_the_interval_that_says_the_same(
    bound: float, value: float
) -> None:
    at = round(bound, 3)
    by_cel = judge(Expect(cel=f"value <= {at:.3f}"), "", value, {}, None)
    assert by_cel.ok is (value <= at)


def test_an_expression_sees_what_the_probe_saw() -> None:
    expect = Expect(cel='result.code == 200 && value < 2.0 * initial && result.body.contains("ok")')
    good = {"code": 200, "body": "it is ok"}
    assert judge(expect, "s", 0.1, good, 0.2).ok is True
    assert judge(expect, "s", 0.1, {**good, "code": 500}, 0.2).ok is False
    missing = judge(expect, "s", 0.1, {"body": "ok"}, 0.2)
    assert missing.ok is None
    assert "code" in missing.text


@pytest.mark.parametrize(
    "text", ["value <", "nobody > 1.0", "value = 3", "", "open('/etc/passwd')"]
)
def test_an_expression_that_cannot_work_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Expect(cel=text)


def test_an_expression_that_gives_no_truth_value_is_not_judged() -> None:
    assert judge(Expect(cel="value + 1.0"), "", 1.0, {}, None).ok is None
