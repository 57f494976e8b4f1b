"""A disk below a mounted file system that answers late, or with errors."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, Record
from faultline.errors import InvalidParameter, Unsupported
from faultline.injection import scratch
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import devmapper
from faultline.kernel.blockio import Device
from faultline.kernel.devmapper import Mapper, Target
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]


def order(fault: str, folder: Path, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, {"folder": str(folder), **params}, Duration.parse(duration))


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    if not Path(devmapper.CONTROL).exists():
        pytest.skip("this kernel has no device mapper")
    with scratch.mapped(tmp_path / "volume") as point:
        yield point


@pytest.fixture
def mapper(volume: Path) -> Iterator[Mapper]:
    control = devmapper.open_control()
    yield Mapper(control)
    os.close(control)


def read(volume: Path) -> float:
    """Seconds that a program waits for a block that no cache has."""
    fd = os.open(f"/dev/{Device.of_path(volume).name}", os.O_RDONLY | os.O_DIRECT)
    begin = time.monotonic()
    try:
        os.preadv(fd, [mmap.mmap(-1, 4096)], 1 << 20)
    finally:
        os.close(fd)
    return time.monotonic() - begin


def test_a_table_is_known_again_as_the_kernel_shows_it():
    ours = Target(0, 8, "flakey", "7:0 0 0 1")
    assert ours.is_like(Target(0, 8, "flakey", "7:0 0 0 1 2 error_reads error_writes"))
    for other in (
        Target(0, 8, "flakey", "7:0 0 0 2"),
        Target(0, 8, "linear", "7:0 0"),
        Target(0, 16, "flakey", "7:0 0 0 1"),
    ):
        assert not ours.is_like(other)


def test_a_disk_that_cannot_be_hit_is_told(injector, tmp_path):
    folder = tmp_path / "on"
    folder.mkdir()
    with scratch.disk(folder) as (point, _), pytest.raises(Unsupported, match="device mapper"):
        injector.plan(order("disk.delay", point, latency="10ms"))


def test_turns_are_whole_seconds(injector, tmp_path):
    for bad in ({"percent": "1%"}, {"percent": "99%"}, {"interval": "2500ms"}):
        with pytest.raises(InvalidParameter):
            injector.plan(order("disk.error", tmp_path, **bad))


def test_requests_wait_until_the_fault_ends(injector, volume, mapper):
    device = Device.of_path(volume)
    before = mapper.table(device)
    record = injector.inject(order("disk.delay", volume, latency="200ms"))
    assert read(volume) >= 0.19
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    (volume / "file").write_text("written meanwhile")
    assert injector.recover(record.uid).end is End.RECOVERED
    assert mapper.table(device) == before
    assert read(volume) < 0.19
    assert (volume / "file").read_text() == "written meanwhile"
    assert injector.residue(record.uid) == []


def test_only_writes_wait(injector, volume):
    record = injector.inject(order("disk.delay", volume, latency="200ms", mode="write"))
    assert read(volume) < 0.19
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE
    assert reading.values["measured"] >= 0.19
    assert injector.recover(record.uid).end is End.RECOVERED


def test_reads_fail_and_then_do_not(injector, volume):
    record = injector.inject(order("disk.error", volume, mode="read"))
    with pytest.raises(OSError, match="Input/output error"):
        read(volume)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    read(volume)
    (volume / "file").write_text("fine")


def test_a_file_system_that_cannot_write_its_own_records_gets_its_disk_back(injector, volume):
    record = injector.inject(order("disk.error", volume, "4s"))
    with pytest.raises(OSError, match=r"error|Read-only|shutdown|cleaning"):
        _write_much(volume)
    _ended(injector, record)
    read(volume)


def _write_much(volume: Path) -> None:
    for n in range(200):
        with (volume / f"file-{n}").open("w") as file:
            file.write("x" * 4096)
            os.fsync(file.fileno())


def _ended(injector: Injector, record: Record) -> None:
    until = time.monotonic() + 30
    while injector.get(record.uid).end is None:
        assert time.monotonic() < until, "it never ended"
        time.sleep(0.05)
    assert injector.get(record.uid).end is End.RECOVERED


def test_a_table_of_somebody_else_is_left(injector, volume, mapper):
    device = Device.of_path(volume)
    before = mapper.table(device)
    record = injector.inject(order("disk.delay", volume, latency="5s", mode="read"))
    theirs = [Target(each.start, each.length, "flakey", f"{each.params} 9 1") for each in before]
    mapper.exchange(device, theirs)
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    ended = injector.recover(record.uid)
    assert ended.end is End.PERSON
    assert ended.steps[0].outcome is not None
    assert ended.steps[0].outcome.commands[0][:2] == ("dmsetup", "load")
    mapper.exchange(device, before)
    assert injector.recover(record.uid).end is End.RECOVERED


def test_one_that_was_killed_in_the_middle_is_set_going_again(injector, volume, mapper):
    """Suspended with our table waiting: as it is between two of our ioctls."""
    device = Device.of_path(volume)
    before = mapper.table(device)
    record = injector.inject(order("disk.delay", volume, latency="5s"))
    ours = mapper.table(device)
    mapper.exchange(device, before)
    mapper.load(device, ours)
    mapper.suspend(device)
    assert injector.residue(record.uid)
    assert injector.recover(record.uid).end is End.RECOVERED
    status = mapper.status(device)
    assert not status.suspended
    assert not status.inactive
    assert mapper.table(device) == before
    assert read(volume) < 4
