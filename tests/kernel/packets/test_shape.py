"""What happens to which packet and when: a virtual clock, seeds, and no kernel."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.errors import InvalidParameter
from faultline.workers.packet_shape import DISTRIBUTIONS, Chance, Jitter, Line, Shape, Wire

MS = 1_000_000
SECOND = 10**9


def untouched(packet: bytes, rng: random.Random) -> bytes:
    return packet


def line(seed: int = 1, **asked: object) -> Line:
    return Line(Shape.from_json(asked), random.Random(seed), untouched)


def released(subject: Line, now: int) -> list[bytes]:
    out: list[bytes] = []
    while held := subject.release(now):
        out.append(held.packet)
    return out


shapes = st.builds(
    Shape,
    delay=st.integers(0, SECOND),
    jitter=st.integers(0, SECOND),
    distribution=st.sampled_from(DISTRIBUTIONS),
    delay_correlation=st.floats(0, 1),
    keep_order=st.booleans(),
    reorder=st.floats(0, 1),
    reorder_correlation=st.floats(0, 1),
    gap=st.integers(0, 5),
    rate=st.one_of(st.just(0), st.integers(8_000, 10**9)),
    burst=st.integers(0, 10_000),
    backlog=st.integers(0, 100_000),
    loss=st.floats(0, 1),
    loss_correlation=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    duplicate_correlation=st.floats(0, 1),
    corrupt=st.floats(0, 1),
    queue_packets=st.integers(1, 50),
    queue_bytes=st.integers(1, 100_000),
)
arrivals = st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(14, 65_000)), max_size=60)


@given(shapes, arrivals, st.integers())
def test_every_packet_is_released_once_per_copy_or_counted_as_gone(
    shape: Shape, steps: list[tuple[int, int]], seed: int
) -> None:
    subject = Line(shape, random.Random(seed), untouched)
    now = 0
    for number, (wait, size) in enumerate(steps):
        now += wait
        subject.take(now, b"%d" % number, size)
    held = len(subject)
    out = released(subject, 1 << 62)
    counts = subject.counts
    assert len(out) == held == counts.released
    assert counts.released + counts.lost + counts.overflowed == len(steps) + counts.duplicated
    assert subject.bytes == 0
    assert len(subject) == 0


@given(shapes, arrivals, st.integers())
def test_no_packet_leaves_before_it_came_and_releases_are_in_the_order_of_their_times(
    shape: Shape, steps: list[tuple[int, int]], seed: int
) -> None:
    subject = Line(shape, random.Random(seed), untouched)
    now = 0
    for wait, size in steps:
        now += wait
        subject.take(now, b"", size)
    before = 0
    while held := subject.release(1 << 62):
        assert held.due >= held.arrived
        assert held.due >= before
        before = held.due


@given(shapes, arrivals, st.integers())
def test_the_queue_never_holds_more_than_asked_except_for_one_packet(
    shape: Shape, steps: list[tuple[int, int]], seed: int
) -> None:
    subject = Line(shape, random.Random(seed), untouched)
    now = 0
    for wait, size in steps:
        now += wait
        subject.take(now, b"", size)
        assert len(subject) <= shape.queue_packets
        assert len(subject) <= 1 or subject.bytes <= shape.queue_bytes


@given(st.integers(0, SECOND), arrivals)
def test_a_plain_delay_keeps_order_and_holds_each_packet_for_exactly_that_long(
    delay: int, steps: list[tuple[int, int]]
) -> None:
    subject = line(delay=delay)
    now, expected = 0, []
    for number, (wait, size) in enumerate(steps):
        now += wait
        subject.take(now, b"%d" % number, size)
        expected.append((now + delay, b"%d" % number))
    out = []
    while held := subject.release(1 << 62):
        out.append((held.due, held.packet))
    assert out == expected


@given(st.integers(8_000, 10**9), arrivals, st.integers(0, 20_000))
def test_a_rate_is_never_exceeded_over_any_span_beyond_the_burst(
    rate: int, steps: list[tuple[int, int]], burst: int
) -> None:
    wire = Wire(Shape(rate=rate, burst=burst, backlog=10**9))
    now, sent = 0, []
    for wait, size in steps:
        now += wait
        due = wire.send(now, size)
        assert due is not None
        assert due >= now
        sent.append((due, size))
    for first in range(len(sent)):
        total = 0
        for due, size in sent[first:]:
            total += size
            # The first of the span may have been under way before the span began.
            span = due - sent[first][0]
            allowed = rate * span / (8 * SECOND) + sent[first][1] + burst
            assert total <= allowed + len(sent)


def test_a_rate_takes_the_time_of_every_bit_and_fills_the_wire_without_gaps() -> None:
    subject = line(rate=8_000_000)  # one byte a microsecond
    for number in range(5):
        subject.take(0, b"%d" % number, 1000)
    dues = []
    while held := subject.release(1 << 62):
        dues.append(held.due)
    assert dues == [MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS]


def test_a_full_backlog_drops_and_counts_and_takes_packets_again_later() -> None:
    subject = line(rate=8_000_000, backlog=3000)
    for _ in range(10):
        subject.take(0, b"", 1000)
    assert len(subject) == 4  # what waits may exceed the backlog by the packet that crosses it
    assert subject.counts.overflowed == 6
    subject.take(4 * MS, b"", 1000)
    assert subject.counts.overflowed == 6


def test_the_burst_leaves_at_once_and_the_rest_at_the_rate() -> None:
    wire = Wire(Shape(rate=8_000_000, burst=2000, backlog=10**6))
    assert [wire.send(0, 1000) for _ in range(4)] == [0, 0, MS, 2 * MS]


@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.75, 0.95])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_choice_keeps_its_share_at_any_correlation(share: float, correlation: float) -> None:
    chance = Chance(share, correlation, random.Random(7))
    draws = [chance.draw() for _ in range(200_000)]
    # The variance of a correlated mean is larger by (1 + r) / (1 - r).
    error = math.sqrt(share * (1 - share) / len(draws) * (1 + correlation) / (1 - correlation))
    assert abs(statistics.fmean(draws) - share) < 5 * error


@pytest.mark.parametrize("correlation", [0.25, 0.75])
def test_correlated_choices_repeat_as_often_as_asked(correlation: float) -> None:
    chance = Chance(0.3, correlation, random.Random(11))
    draws = [float(chance.draw()) for _ in range(100_000)]
    assert statistics.correlation(draws[:-1], draws[1:]) == pytest.approx(correlation, abs=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_uniform_jitter_is_uniform_and_correlated_as_asked(correlation: float) -> None:
    shape = Shape(delay=100 * MS, jitter=20 * MS, delay_correlation=correlation)
    jitter = Jitter(shape, random.Random(3))
    draws = [float(jitter.draw()) for _ in range(100_000)]
    assert min(draws) >= 80 * MS
    assert max(draws) <= 120 * MS
    deciles = statistics.quantiles(draws, n=10)
    for number, value in enumerate(deciles, 1):
        assert value == pytest.approx((80 + 4 * number) * MS, abs=1.2 * MS)
    assert statistics.correlation(draws[:-1], draws[1:]) == pytest.approx(correlation, abs=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_normal_jitter_has_the_deviation_and_the_correlation_asked(correlation: float) -> None:
    shape = Shape(
        delay=SECOND, jitter=10 * MS, distribution="normal", delay_correlation=correlation
    )
    jitter = Jitter(shape, random.Random(3))
    draws = [float(jitter.draw()) for _ in range(100_000)]
    assert statistics.fmean(draws) == pytest.approx(SECOND, abs=0.6 * MS)
    assert statistics.stdev(draws) == pytest.approx(10 * MS, rel=0.03)
    assert statistics.correlation(draws[:-1], draws[1:]) == pytest.approx(correlation, abs=0.02)


@pytest.mark.parametrize(("name", "deviation"), [("pareto", 0.75), ("paretonormal", 0.62)])
def test_pareto_jitter_has_a_long_tail_to_one_side(name: str, deviation: float) -> None:
    shape = Shape(delay=SECOND, jitter=10 * MS, distribution=name)
    jitter = Jitter(shape, random.Random(3))
    draws = sorted(float(jitter.draw()) for _ in range(100_000))
    assert draws[-1] == SECOND + 40 * MS  # cut at four deviations, as in the tables of netem
    assert statistics.fmean(draws) == pytest.approx(SECOND, abs=1.5 * MS)
    assert statistics.stdev(draws) == pytest.approx(deviation * 10 * MS, rel=0.1)
    assert draws[50_000] < SECOND
    below, above = SECOND - draws[1000], draws[-1000] - SECOND
    assert above > 1.5 * below


def test_jitter_never_makes_a_packet_leave_before_it_came() -> None:
    jitter = Jitter(Shape(delay=MS, jitter=100 * MS), random.Random(3))
    assert min(jitter.draw() for _ in range(1000)) == 0


def test_every_third_packet_goes_at_once() -> None:
    subject = line(delay=10 * MS, gap=3)
    for number in range(9):
        subject.take(0, b"%d" % number, 100)
    assert released(subject, 0) == [b"2", b"5", b"8"]
    assert released(subject, 10 * MS) == [b"0", b"1", b"3", b"4", b"6", b"7"]
    assert subject.counts.reordered == 3


def test_the_share_asked_goes_before_the_others() -> None:
    subject = line(delay=10 * MS, reorder=0.25)
    for _ in range(40_000):
        subject.take(0, b"", 100)
    early = len(released(subject, 0))
    assert early == subject.counts.reordered
    assert abs(early / 40_000 - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 40_000)


@given(st.integers(0, SECOND), st.integers(0, SECOND), arrivals, st.integers())
def test_jitter_with_order_kept_never_lets_a_packet_overtake(
    delay: int, jitter: int, steps: list[tuple[int, int]], seed: int
) -> None:
    subject = line(seed, delay=delay, jitter=jitter, keep_order=True)
    now = 0
    for number, (wait, size) in enumerate(steps):
        now += wait
        subject.take(now, b"%d" % number, size)
    assert released(subject, 1 << 62) == [b"%d" % number for number in range(len(steps))]


def test_loss_and_duplication_keep_their_shares() -> None:
    subject = line(loss=0.1, duplicate=0.2, queue_packets=200_000)
    for _ in range(50_000):
        subject.take(0, b"", 100)
    for got, share in ((subject.counts.lost, 0.1), (subject.counts.duplicated, 0.2)):
        assert abs(got / 50_000 - share) < 5 * math.sqrt(share * (1 - share) / 50_000)
    assert len(subject) == 50_000 + subject.counts.duplicated - subject.counts.lost


def test_only_chosen_packets_are_damaged() -> None:
    damaged: list[bytes] = []

    def damage(packet: bytes, rng: random.Random) -> bytes:
        damaged.append(packet)
        return b"bad"

    subject = Line(Shape(corrupt=0.5), random.Random(5), damage)
    for number in range(1000):
        subject.take(0, b"%d" % number, 100)
    out = released(subject, 0)
    assert out.count(b"bad") == len(damaged) == subject.counts.corrupted
    assert 400 < len(damaged) < 600


@settings(max_examples=30)
@given(shapes, arrivals, st.integers())
def test_the_same_seed_gives_the_same_fate(
    shape: Shape, steps: list[tuple[int, int]], seed: int
) -> None:
    fates = []
    for _ in range(2):
        subject = Line(shape, random.Random(seed), untouched)
        now = 0
        for number, (wait, size) in enumerate(steps):
            now += wait
            subject.take(now, b"%d" % number, size)
        fate = []
        while held := subject.release(1 << 62):
            fate.append((held.due, held.packet))
        fates.append(fate)
    assert fates[0] == fates[1]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"delay": -1}, "shape.delay"),
        ({"delay": 1.5}, "shape.delay"),
        ({"delay": True}, "shape.delay"),
        ({"loss": 1.01}, "shape.loss"),
        ({"loss": "10%"}, "shape.loss"),
        ({"keep_order": 1}, "shape.keep_order"),
        ({"distribution": "gamma"}, "shape.distribution"),
        ({"checksum": "none"}, "shape.checksum"),
        ({"queue_packets": 0}, "shape.queue_packets"),
        ({"latency": 5}, "shape.latency"),
    ],
)
def test_a_wrong_shape_is_refused_with_the_name_of_the_field(
    document: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Shape.from_json(document)
    assert caught.value.field == field
