"""Quantities with units: what is written is read back, and a bare number is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.errors import InvalidParameter
from faultline.units import ByteRate, Duration, Percent, Rate, Size

QUANTITIES = (Duration, Size, Rate, ByteRate)


@pytest.mark.parametrize("kind", QUANTITIES)
@given(value=st.integers(0, 10**18))
def test_what_is_written_is_read_back_exactly(kind: type[Duration], value: int) -> None:
    assert int(kind.parse(str(kind(value)))) == value


@given(value=st.floats(0, 100).filter(lambda each: each == 0 or each > 1e-9))
def test_a_percentage_is_read_back_exactly(value: float) -> None:
    assert Percent.parse(str(Percent(value))) == value


@given(hours=st.integers(0, 99), seconds=st.integers(0, 3599))
def test_parts_of_a_duration_add_up(hours: int, seconds: int) -> None:
    assert Duration.parse(f"{hours}h{seconds}s").seconds == hours * 3600 + seconds


@pytest.mark.parametrize("kind", [*QUANTITIES, Percent])
@pytest.mark.parametrize(
    "bad", [17, "17", 1.5, "1.5", "", "many", "-1s", "1 parsec", "s", "1e3s", None]
)
def test_what_has_no_unit_is_refused_with_the_units_named(
    kind: type[Duration], bad: object
) -> None:
    with pytest.raises(InvalidParameter) as raised:
        kind.parse(bad, "latency")
    assert raised.value.field == "latency"
    assert "such as" in raised.value.expected


@given(text=st.text(max_size=12))
def test_no_text_ends_in_anything_but_a_value_or_a_refusal(text: str) -> None:
    for kind in (*QUANTITIES, Percent):
        try:
            assert kind.parse(text) >= 0
        except InvalidParameter:
            continue


def test_a_millisecond_is_not_a_minute_and_a_mebibyte_not_a_megabyte() -> None:
    assert Duration.parse("1ms") == 10**6
    assert Duration.parse("1m") == 60 * 10**9
    assert Size.parse("1MiB") == 2**20
    assert Size.parse("1MB") == 10**6
    assert Rate.parse("1mbit") == 10**6
    assert str(Duration.parse("90s")) == "90s"
    assert str(Duration.parse("1h30m")) == "90m"
