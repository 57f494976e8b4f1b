"""By how much two groups differ: the interval is right as often as it says, and never says more."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.errors import ObserveFailed
from faultline.probes.effect_size import (
    Comparison,
    Size,
    dominance,
    independent,
    paired,
    student,
)

ALPHA = 0.05
TRIALS = 500
SURE = 4.0  # standard errors of the number of hits: once in 30,000 if it is right

Draw = Callable[[random.Random], float]
DRAWS: dict[str, Draw] = {
    "normal": lambda chance: chance.gauss(20, 2),
    "skewed": lambda chance: chance.expovariate(1) + 0.01,
    "wild": lambda chance: chance.lognormvariate(0, 1.5),
}
SIZES: tuple[Size, ...] = ("difference", "mean", "percent", "delta")
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def most(expected: float, trials: int = TRIALS) -> float:
    """How many of the trials may come out so, if each does with at most this probability."""
    return trials * expected + SURE * math.sqrt(trials * expected * (1 - expected))


def sample(draw: Draw, chance: random.Random, n: int) -> list[float]:
    return [draw(chance) for _ in range(n)]


@pytest.mark.parametrize("how", [paired, independent])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DRAWS)
def test_groups_of_one_distribution_are_told_apart_no_more_often_than_alpha(
    name: str, size: Size, how: Callable[..., Comparison]
) -> None:
    chance = random.Random(f"{name} {size} {how.__name__}")
    found = [
        how(sample(DRAWS[name], chance, n), sample(DRAWS[name], chance, n), size).shown
        for n in (7, 12)
        for _ in range(TRIALS // 2)
    ]
    assert sum(found) <= most(ALPHA), f"{sum(found)} of {TRIALS}"


@pytest.mark.parametrize("how", [paired, independent])
@pytest.mark.parametrize(
    ("size", "truth"),
    [
        ("difference", 3.0),
        ("mean", 3.0),
        ("percent", 0.15),
        # Of two normal distributions of which one lies d standard deviations higher.
        ("delta", 2 * statistics.NormalDist().cdf(3.0 / 2 / math.sqrt(2)) - 1),
    ],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(
    size: Size, truth: float, how: Callable[..., Comparison]
) -> None:
    chance = random.Random(f"{size} {how.__name__}")
    missed = 0
    for _ in range(TRIALS):
        unhit = sample(DRAWS["normal"], chance, 15)
        hit = sample(DRAWS["normal"], chance, 15)
        hit = [v * 1.15 for v in hit] if size == "percent" else [v + 3.0 for v in hit]
        one = how(hit, unhit, size)
        missed += not one.low <= truth <= one.high
    # Not too often, and not so seldom that the interval would be needlessly wide.
    assert most(ALPHA) >= missed >= TRIALS * ALPHA / 5, missed


def test_what_hits_both_goes_out_of_pairs() -> None:
    chance = random.Random(5)
    unhit, hit = [], []
    for _ in range(20):
        load = chance.gauss(500, 100)  # of the hour
        unhit.append(load + chance.gauss(0, 5))
        hit.append(load + 20 + chance.gauss(0, 5))
    assert paired(hit, unhit).shown
    assert not independent(hit, unhit).shown
    assert paired(hit, unhit).effect == pytest.approx(20, abs=5)


def test_neighbours_in_time_that_are_alike_widen_the_interval() -> None:
    chance = random.Random(11)
    shown = {True: 0, False: 0}
    for _ in range(TRIALS // 2):
        wander = [0.0]
        for _ in range(60):
            wander.append(0.7 * wander[-1] + chance.gauss(0, 1))
        for serial in shown:
            shown[serial] += paired(wander, [0.0] * len(wander), serial=serial).shown
    assert shown[False] > 4 * ALPHA * TRIALS / 2, "60 points of it are worth far fewer"
    assert shown[True] <= most(2 * ALPHA, TRIALS // 2)
    assert all(a != b for a, b in pairwise(wander))


def test_an_outlier_does_not_move_it() -> None:
    unhit = [10.0 + 0.1 * n for n in range(20)]
    hit = [value + 2.0 + 0.01 * (n % 3) for n, value in enumerate(unhit)]
    hit[7] = 1e6
    found = paired(hit, unhit)
    assert found.low == pytest.approx(2.0, abs=0.05)
    assert found.high == pytest.approx(2.0, abs=0.05)


def test_known_intervals() -> None:
    """Against R: wilcox.test(x, conf.int = TRUE), wilcox.test(x, y, conf.int = TRUE), qt()."""
    # Hollander and Wolfe, table 3.1: depression scale factors of nine patients.
    first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    second = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = paired(first, second)
    assert (found.effect, found.low, found.high) == pytest.approx((0.46, 0.01, 0.786), abs=1e-3)
    # Hollander and Wolfe, table 4.1: permeability of ten and five placentas.
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    found = independent(term, early)
    assert (found.effect, found.low, found.high) == pytest.approx((0.305, -0.15, 0.76), abs=1e-3)
    assert [student(n, 0.95) for n in (1.0, 5.0, 30.0)] == pytest.approx(
        [12.7062, 2.5706, 2.0423], abs=1e-4
    )


@pytest.mark.parametrize("size", ["difference", "percent"])
def test_too_few_are_refused_and_not_guessed(size: Size) -> None:
    with pytest.raises(ObserveFailed, match="5 pairs are too few"):
        paired([1.0] * 5, [2.0] * 5, size)
    with pytest.raises(ObserveFailed, match="too small"):
        independent([1.0] * 3, [2.0] * 3, size)
    for nothing in ([], [1.0]):
        with pytest.raises(ObserveFailed):
            paired(nothing, nothing, "mean")
        with pytest.raises(ObserveFailed):
            independent(nothing, [1.0] * 9, "delta")
    with pytest.raises(ObserveFailed, match="above 0"):
        paired([0.0] * 9, [1.0] * 9, "percent")


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=6, max_size=30),
    st.sampled_from(("difference", "mean", "delta")),
)
def test_it_is_consistent(pairs: list[tuple[float, float]], size: Size) -> None:
    hit, unhit = [a for a, _ in pairs], [b for _, b in pairs]
    for how in (paired, independent):
        one, other = how(hit, unhit, size), how(unhit, hit, size)
        room = 1e-6 * max(map(abs, (*hit, *unhit, 1.0)))
        assert one.low - room <= one.effect <= one.high + room
        assert one.shown == (one.certain != 0)
        assert abs(one.certain) <= abs(one.effect) + room
        assert (one.effect, one.low) == pytest.approx((-other.effect, -other.high), abs=room)
        assert one.delta == -other.delta
        assert -1 <= one.delta <= 1
        same = how(hit, hit, size)
        assert not same.shown
        assert same.low - room <= 0 <= same.high + room


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.lists(NUMBERS, min_size=1, max_size=20))
def test_dominance_is_what_counting_all_pairs_gives(hit: list[float], unhit: list[float]) -> None:
    signs = [(a > b) - (a < b) for a in hit for b in unhit]
    assert dominance(hit, unhit) == pytest.approx(sum(signs) / len(signs))


@given(st.floats(0.1, 100), st.integers(6, 400))
def test_groups_without_any_chance_in_them(value: float, n: int) -> None:
    found = paired([2 * value] * n, [value] * n, "percent")
    assert (found.effect, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert found.n == min(n, 250)
