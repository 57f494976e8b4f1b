"""Loss, duplicates and corruption, seen by the programs that send and receive."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lanes import HALF, Lane, datagram, numbers, off, on, order, send, stream
from netrig import three_sigma

from faultline.injection import engines
from faultline.injection.injector import Injector

COUNT = 2000

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def test_the_share_that_was_asked_is_lost_without_a_word_to_the_sender(
    way: Lane, on_way: Injector
) -> None:
    sender, receiver = way.udp()
    with on(on_way, "loss", percent="20%", protocol="udp", **way.here):
        arrived = numbers(send(sender, receiver, COUNT))
    assert len(arrived) == len(set(arrived))
    lost = 100 * (1 - len(arrived) / COUNT)
    assert lost == pytest.approx(20, abs=three_sigma(20, COUNT) * 4 / 3)
    assert numbers(send(sender, receiver, 300)) == list(range(300))


def test_tcp_repeats_what_is_lost_and_nothing_is_missing(few: Lane, on_few: Injector) -> None:
    assert stream(few, 1_000_000).intact
    before = few.repeated()
    with on(on_few, "loss", percent="8%", protocol="tcp", **few.here):
        assert stream(few, 8_000_000).intact
        repeated = few.repeated() - before
    assert repeated > 0
    settled = few.repeated()
    assert stream(few, 1_000_000).intact
    assert few.repeated() - settled <= repeated / 2


def test_correlated_losses_come_in_longer_runs(few: Lane, on_few: Injector) -> None:
    sender, receiver = few.udp()

    def runs(correlation: str) -> float:
        wanted = {"percent": "30%", "correlation": correlation, "protocol": "udp"}
        with on(on_few, "loss", **wanted, **few.here):
            arrived = set(numbers(send(sender, receiver, COUNT)))
        lost = [number not in arrived for number in range(COUNT)]
        begun = sum(now and not then for then, now in zip([False, *lost], lost, strict=False))
        return sum(lost) / begun

    assert runs("80%") > 2 * runs("0%")


@pytest.mark.parametrize("engine", ["ebpf", "netem", "packets"])
def test_the_same_seed_hits_the_same_packets(few: Lane, on_few: Injector, engine: str) -> None:
    if why := engines.obstacles()[engine]:
        pytest.skip(why)
    sender, receiver = few.udp()

    def arrived(seed: int) -> list[int]:
        wanted = {"percent": "30%", "protocol": "udp", "engine": engine}
        made = replace(order("loss", **wanted, **few.here), seed=seed)
        uid = on_few.inject(made).uid
        try:
            return numbers(send(sender, receiver, 400))
        finally:
            off(on_few, uid)

    first = arrived(7)
    assert 200 < len(first) < 360
    assert arrived(7) == first
    assert arrived(8) != first


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_the_share_that_was_asked_arrives_twice_and_whole(way: Lane, on_way: Injector) -> None:
    sender, receiver = way.udp()
    with on(on_way, "duplicate", percent="25%", protocol="udp", **way.here):
        arrived = send(sender, receiver, COUNT, size=200)
    assert set(numbers(arrived)) == set(range(COUNT))
    assert all(
        data == datagram(number, 200)
        for data, number in zip(arrived, numbers(arrived), strict=True)
    )
    assert max(numbers(arrived).count(number) for number in range(50)) <= 2
    twice = 100 * (len(arrived) - COUNT) / COUNT
    assert twice == pytest.approx(25, abs=three_sigma(25, COUNT) * 4 / 3)
    assert numbers(send(sender, receiver, 300)) == list(range(300))


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_damage_with_a_wrong_checksum_never_reaches_a_program(way: Lane, on_way: Injector) -> None:
    sender, receiver = way.udp()
    before = way.wrong_checksums()
    with on(on_way, "corrupt", percent="25%", protocol="udp", **way.here):
        arrived = send(sender, receiver, COUNT, size=200)
    refused = way.wrong_checksums() - before
    assert all(
        data == datagram(number, 200)
        for data, number in zip(arrived, numbers(arrived), strict=True)
    )
    assert refused == COUNT - len(arrived)
    share = 100 * refused / COUNT
    assert share == pytest.approx(25, abs=three_sigma(25, COUNT) * 4 / 3)
    assert len(send(sender, receiver, 300)) == 300


@pytest.mark.parametrize("way", HALF, indirect=True)
def test_damage_with_a_mended_checksum_is_delivered(way: Lane, on_way: Injector) -> None:
    sender, receiver = way.udp()
    before = way.wrong_checksums()
    wanted = {"percent": "25%", "checksum": "fixed", "protocol": "udp"}
    with on(on_way, "corrupt", **wanted, **way.here):
        arrived = send(sender, receiver, COUNT, size=200)
    assert len(arrived) == COUNT
    assert way.wrong_checksums() == before
    known = {datagram(number, 200) for number in range(COUNT)}
    wrong = 100 * sum(data not in known for data in arrived) / COUNT
    assert wrong == pytest.approx(25, abs=three_sigma(25, COUNT) * 4 / 3)


def test_tcp_carries_the_right_bytes_through_damage(few: Lane, on_few: Injector) -> None:
    before = few.repeated()
    with on(on_few, "corrupt", percent="8%", protocol="tcp", **few.here):
        assert stream(few, 8_000_000).intact
    assert few.repeated() > before
