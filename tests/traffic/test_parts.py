"""The pure parts of the load: schedule, histogram, merging."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.api.traffic import TrafficFigures, TrafficSecond, TrafficStatus, with_earlier
from faultline.errors import Unsupported
from faultline.traffic import summary
from faultline.traffic.histogram import Histogram
from faultline.traffic.model import SECOND, Load, Tick, sum_errors
from faultline.traffic.series import Series

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


@given(st.integers(1, 1000), st.integers(1, 16))
def test_the_shares_of_clients_are_all_clients(concurrency: int, workers: int) -> None:
    shares = Load("http", {}, SECOND, concurrency=concurrency).shares(workers)
    users = [u for share in shares for u in range(share.index, concurrency, share.workers)]
    assert sorted(users) == list(range(concurrency))
    assert len(shares) == min(workers, concurrency)


@given(st.integers(1, 100), st.integers(1, 16))
def test_connections_are_dealt_out_and_no_generator_has_none(most: int, workers: int) -> None:
    shares = Load("http", {}, SECOND, rate=1.0, connections=most).shares(workers)
    assert sum(share.connections for share in shares) == max(most, workers)
    assert all(share.connections for share in shares)


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


def test_no_more_is_answered_than_was_sent_also_behind_the_warm_up() -> None:
    series = Series(2 * SECOND)
    first = replace(tick(0, 1_000_000), sent=3, waiting=(5_000, 4_000))
    second = replace(tick(1, 1_000_000), sent=1, waiting=(9_000, 8_000))  # one of them answered
    third = tick(2, 2_000_000, 2_000_000, 2_000_000)
    fourth = replace(tick(3, 1_000_000), sent=2, waiting=(7_000, 6_000))
    third = replace(third, sent=2, waiting=(3_000,))
    series.extend([[first, second, third, fourth]], 3, 100.0)
    totals = series.totals()
    assert (totals.sent, totals.ok) == (2 + 2 + 2, 3 + 1), "two were under way at its beginning"
    assert totals.sent == totals.ok + series.unanswered


def test_the_totals_after_a_restart_cover_what_was_before_it() -> None:
    def second(at: float, count: int, top: float) -> TrafficSecond:
        return TrafficSecond(at=at, sent=count, ok=count - 1, errors=1, lag=0.1, max=top)

    status = TrafficStatus(
        name="load",
        started=100.02,
        restarts=[110.0],
        seconds=[
            second(100.0, 1000, 9.0),  # warm-up, as is the one after the restart
            second(101.0, 10, 0.4),
            second(102.0, 10, 0.7),
            second(110.0, 1000, 9.0),
            second(111.0, 5, 0.5),
        ],
    )
    last = TrafficFigures(sent=5, ok=4, errors=1, seconds=1.0, p50=0.2, max=0.5)
    found = with_earlier(status, 1.0, last)
    assert (found.sent, found.ok, found.errors, found.seconds) == (25, 22, 3, 3.0)
    assert (found.max, found.p50, found.lag) == (0.7, 0.2, 0.1)
    whole = status.model_copy(update={"restarts": []})
    assert with_earlier(whole, 1.0, last) == last


def test_errors_add_up_with_the_most_frequent_first() -> None:
    total = sum_errors([{"reset": 1}, {"timeout": 3, "reset": 1}])
    assert list(total.items()) == [("timeout", 3), ("reset", 2)]


def test_a_tick_survives_its_line() -> None:
    before = tick(3, 5_000_000, waiting=(7,))
    assert Tick.from_json(json.loads(before.to_line())["tick"]) == before
