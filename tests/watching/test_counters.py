from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.api.watching import TargetSecond
from faultline.watching.counters import Counters, between, bounded, merged

SECOND = 10**9


def reading(seconds: float, **found: int) -> Counters:
    return Counters(1000.0 + seconds, round(seconds * SECOND), **found)


def test_rates_are_per_second_whatever_the_time_between_two_readings() -> None:
    second = between(
        reading(0, cpu=0, read=1000, cpu_pressure=0, kills=1),
        reading(2, cpu=3 * SECOND, read=5000, cpu_pressure=SECOND, kills=3, memory=7),
    )
    assert (second.cpu, second.read, second.cpu_pressure) == (1.5, 2000.0, 0.5)
    assert (second.kills, second.memory, second.span) == (2, 7.0, 2.0)


def test_what_could_not_be_read_stays_unknown_and_never_nought() -> None:
    second = between(reading(0, cpu=5), reading(1, read=5))
    assert (second.cpu, second.read, second.memory, second.processes) == (None, None, None, None)


def test_a_counter_that_went_back_is_no_change() -> None:
    assert between(reading(0, sent=500), reading(1, sent=100)).sent == 0


def test_another_incarnation_has_no_rates_and_is_counted() -> None:
    second = between(reading(0, cpu=9 * SECOND), reading(1, cpu=SECOND, memory=5, life=1))
    assert (second.cpu, second.memory, second.restarts) == (None, 5.0, 1)


def test_a_step_of_the_wall_clock_changes_no_rate() -> None:
    before = reading(0, cpu=0)
    after = Counters(5000.0, SECOND, cpu=SECOND)
    second = between(before, after)
    assert (second.cpu, second.span, second.at) == (1.0, 1.0, 4999.0)


STEPS = st.builds(lambda cpu, kills: (cpu, kills), st.none() | st.floats(0, 64), st.integers(0, 2))


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=1, max_size=300), st.integers(4, 40))
def test_a_long_run_keeps_few_steps_and_loses_no_time_and_no_event(
    steps: list[tuple[float | None, int]], most: int
) -> None:
    seconds = [TargetSecond(at=100.0 + i, cpu=c, kills=k) for i, (c, k) in enumerate(steps)]
    kept: list[TargetSecond] = []
    for each in seconds:
        kept = bounded([*kept, each], most)
        assert len(kept) <= most
    assert sum(each.span for each in kept) == len(seconds)
    assert sum(each.kills for each in kept) == sum(k for _, k in steps)
    assert [each.at for each in kept] == sorted(each.at for each in kept)
    known = [cpu for cpu, _ in steps if cpu is not None]
    shown = [each.cpu for each in kept if each.cpu is not None]
    assert bool(known) == bool(shown)
    if known:
        assert min(known) * 0.99 <= min(shown)
        assert max(shown) <= max(known) * 1.01 + 1e-9


def test_a_short_run_keeps_every_second() -> None:
    seconds = [TargetSecond(at=float(i)) for i in range(50)]
    assert bounded(seconds, 50) == seconds


def test_merged_steps_weigh_by_their_length() -> None:
    both = merged([TargetSecond(at=0, span=3, cpu=1.0), TargetSecond(at=3, span=1, cpu=5.0)])
    assert (both.cpu, both.span) == (pytest.approx(2.0), 4)
