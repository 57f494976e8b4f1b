"""The pure parts of the load: schedule, histogram, merging."""

from __future__ import annotations

import json
import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.errors import Unsupported
from faultline.traffic import summary
from faultline.traffic.histogram import Histogram
from faultline.traffic.model import SECOND, Load, Tick, sum_errors

durations = st.integers(1_000, 3_000_000_000_000)


def tick(index: int, *latencies: int, waiting: tuple[int, ...] = ()) -> Tick:
    histogram = Histogram()
    for each in latencies:
        histogram.record(each)
    return Tick(
        index=index,
        until=(index + 1) * SECOND,
        sent=len(latencies),
        ok=len(latencies),
        errors={},
        waiting=waiting,
        latency=histogram.encode() if latencies else "",
        lag_max=0,
    )


@given(st.floats(0.5, 50_000), st.integers(1, 8))
def test_the_shares_of_a_rate_are_the_whole_schedule(rate: float, workers: int) -> None:
    load = Load("http://x/", SECOND, rate=rate)
    due = sorted(
        share.phase + number * SECOND / share.rate
        for share in load.shares(workers)
        for number in range(5)
    )
    for number, at in enumerate(due):
        assert math.isclose(at, number * SECOND / rate, abs_tol=2.0)


@given(st.integers(1, 1000), st.integers(1, 16))
def test_the_shares_of_clients_are_all_clients(concurrency: int, workers: int) -> None:
    shares = Load("http://x/", SECOND, concurrency=concurrency).shares(workers)
    assert sum(share.concurrency for share in shares) == concurrency
    assert all(share.concurrency for share in shares)


@settings(deadline=None)
@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_is_right_to_three_digits(values: list[int], percent: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    ordered = [value // 1000 / 1e6 for value in sorted(values)]
    rank = percent / 100 * len(values)  # between two values either is right
    low = ordered[max(math.floor(rank) - 1, 0)]
    high = ordered[min(math.ceil(rank), len(values) - 1)]
    assert low * 0.998 - 1e-6 <= histogram.percentiles([percent])[percent] <= high * 1.002 + 1e-6


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(durations, max_size=50), min_size=1, max_size=5))
def test_merging_is_the_same_as_counting_in_one(parts: list[list[int]]) -> None:
    ticks = [tick(0, *part) for part in parts]
    merged = summary.merge(ticks)
    whole = tick(0, *(value for part in parts for value in part))
    assert merged.sent == whole.sent
    assert summary.second(merged, 0.0) == summary.second(whole, 0.0)


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(Unsupported, match="hdrhistogram") as caught:
        Histogram()
    assert "faultline[experiments]" in caught.value.hint


def test_an_empty_histogram_has_no_percentiles() -> None:
    histogram = Histogram()
    assert histogram.percentiles([50.0]) == {}
    assert histogram.mean is None
    assert histogram.largest is None


def test_what_waits_longer_than_the_median_counts_with_its_age() -> None:
    quick = [2_000_000] * 10
    alone = summary.live([tick(0, *quick)])
    waits = summary.live([tick(0, *quick, waiting=(3 * SECOND,) * 10)])
    young = summary.live([tick(0, *quick, waiting=(1_000_000, 50_000_000))])
    assert alone.p95 is not None
    assert waits.p95 is not None
    assert alone.p95 < 0.01
    assert waits.p95 > 2.9
    assert young.p95 == alone.p95
    assert waits.ok == alone.ok


def test_errors_add_up_with_the_most_frequent_first() -> None:
    total = sum_errors([{"reset": 1}, {"timeout": 3, "reset": 1}])
    assert list(total.items()) == [("timeout", 3), ("reset", 2)]


def test_a_tick_survives_its_line() -> None:
    before = tick(3, 5_000_000, waiting=(7,))
    assert Tick.from_json(json.loads(before.to_line())["tick"]) == before
