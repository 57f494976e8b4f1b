"""When requests are due: properties of the curve, of its shares, and of the pacer."""

from __future__ import annotations

import asyncio
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.kernel.clock import now
from faultline.traffic.model import SECOND, Load
from faultline.traffic.pacing import Pacer
from faultline.traffic.schedule import Curve

rates = st.floats(0.5, 20_000)
stages = st.lists(
    st.tuples(st.integers(0, 20 * SECOND), st.one_of(st.just(0.0), rates)), max_size=5
)


def area(curve: Curve, until: int, steps: int = 500) -> float:
    width = until / steps
    return sum(curve.value(round((n + 0.5) * width)) for n in range(steps)) * width / SECOND


@given(rates, st.integers(0, 1_000_000))
def test_at_a_constant_rate_number_n_is_due_at_n_over_the_rate(rate: float, number: int) -> None:
    assert Curve(rate).when(number) == round(number * SECOND / rate)


@settings(deadline=None, max_examples=60)
@given(rates, stages)
def test_requests_are_in_order_and_as_many_as_the_area_says(
    first: float, given_stages: list[tuple[int, float]]
) -> None:
    curve = Curve(first, given_stages)
    numbers = [0, 1, 2, 3, 10, 100, 1000]
    due = [curve.when(number) for number in numbers]
    there = [at for at in due if at is not None]
    assert there == sorted(there)
    assert due[: len(there)] == there, "once there is no more, there never is"
    for number, at in zip(numbers, there, strict=False):
        if at:
            top = max([first, *(value for _, value in given_stages)])
            jumps = top * at / SECOND * (len(given_stages) + 1) / 500  # of the sum itself
            assert math.isclose(area(curve, at), number, abs_tol=1 + jumps, rel_tol=0.01)


@settings(deadline=None)
@given(rates, stages, st.integers(1, 8))
def test_the_shares_of_all_generators_are_one_schedule_without_bursts(
    first: float, given_stages: list[tuple[int, float]], workers: int
) -> None:
    whole = Curve(first, given_stages)
    expected = [whole.when(number) for number in range(40)]
    load = Load("http", {}, SECOND, rate=first, stages=tuple(given_stages))
    found: list[tuple[int, int | None]] = []
    for share in load.shares(workers):
        curve = Curve(share.rate, share.stages)
        found += [(n, curve.when(n)) for n in range(share.index, 40, share.workers)]
    assert [due for _, due in sorted(found)] == expected


def test_a_ramp_from_nothing_begins_slowly_and_ends_at_its_rate() -> None:
    curve = Curve(0.001, [(10 * SECOND, 100.0)])
    due = [curve.when(number) or 0 for number in range(600)]
    assert due[1] - due[0] > SECOND // 3
    assert math.isclose(due[500] - due[499], SECOND / 100, rel_tol=0.05)
    assert math.isclose(due[599] - due[598], SECOND / 100, rel_tol=1e-6)


def test_a_rate_of_nothing_is_never_due() -> None:
    curve = Curve(10.0, [(SECOND, 0.0)])
    assert curve.when(4) is not None
    assert curve.when(6) is None
    assert Curve(10.0, [(SECOND, 0.0), (SECOND, 10.0)]).when(6) is not None


def test_users_follow_the_curve() -> None:
    curve = Curve(2, [(0, 10), (10 * SECOND, 0)])
    assert curve.value(0) == 10
    assert curve.value(5 * SECOND) == 5
    assert curve.value(99 * SECOND) == 0


def fired(rate: float, length: int, held: float = 0.0) -> list[tuple[int, int, int]]:
    """What a pacer does: number, when it was due, and when it came, from the beginning."""
    found: list[tuple[int, int, int]] = []

    async def run() -> None:
        start = now() + SECOND // 100

        def fire(number: int, due: int) -> bool:
            found.append((number, due - start, now() - start))
            return True

        pacer = Pacer(Curve(rate), (start, start + length), (0, 1), fire)
        pacer.begin()
        if held:
            await asyncio.sleep(0.05)
            until = now() + round(held * SECOND)
            while now() < until:
                pass
        await asyncio.wait_for(pacer.finished.wait(), 20)

    asyncio.run(run())
    return found


def test_the_pacer_keeps_every_due_time_also_after_it_was_held_up() -> None:
    for held in (0.0, 0.3):
        found = fired(500.0, SECOND // 2, held)
        assert [number for number, _, _ in found] == list(range(250))
        assert [due for _, due, _ in found] == [round(n * SECOND / 500) for n in range(250)]
        assert all(came >= due for _, due, came in found)
    assert max(came - due for _, due, came in found) > SECOND // 4
