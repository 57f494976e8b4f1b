"""A really full disk: measured, undone by the keepers alone, even with their own store on it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.kind import Context, kinds
from faultline.changes.model import End, Undone
from faultline.errors import InvalidParameter, Protected, Refused, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.units import Duration

pytestmark = pytest.mark.needs_root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 64 MiB behind a loop device."""
    image, point = tmp_path / "image", tmp_path / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "2048", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=False).returncode:
        pytest.skip("no loop devices here")
    yield point
    until(lambda: not subprocess.run(["umount", str(point)], check=False).returncode)


@pytest.fixture
def injector(disk: Path) -> Iterator[Injector]:
    """Its store lies on the very disk that is filled."""
    with Injector(disk / "store") as found:
        yield found
        found.recover_all()
    until(lambda: not keepers_of(disk))


def keepers_of(disk: Path) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"keeper:{disk}".encode() in text:
                found.append(int(entry.name))
    return found


def order(fault: str, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration))


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def available(disk: Path) -> int:
    info = os.statvfs(disk)
    return info.f_bavail * info.f_frsize


@pytest.mark.parametrize("params", [{"percent": "100%"}, {"percent": "100%", "reserve": True}])
def test_the_deadline_is_met_on_the_full_disk_with_the_store_on_it(injector, disk, params):
    record = injector.inject(order("disk.fill", "3s", folder=str(disk), **params))
    assert available(disk) == 0
    if "reserve" in params:
        with pytest.raises(OSError, match="space"):
            (disk / "x").write_bytes(b"x" * 65536)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    before = record.steps[0].prior["available"]  # with the store's own files already there
    until(lambda: available(disk) > 0.9 * before)
    until(lambda: injector.get(record.uid).end is End.RECOVERED)
    assert injector.residue(record.uid) == []


def test_inodes_run_out_and_come_back_at_the_deadline(injector, disk):
    record = injector.inject(order("disk.inodes", "3s", folder=str(disk), percent="100%"))
    assert os.statvfs(disk).f_favail == 0
    with pytest.raises(OSError, match="space"):
        (disk / "x").touch()
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    before = record.steps[0].prior["available"]  # with the store's own files already there
    until(lambda: os.statvfs(disk).f_favail >= before - 5)
    until(lambda: injector.get(record.uid).end is End.RECOVERED)


def test_the_share_is_within_a_percent(injector, disk):
    record = injector.inject(order("disk.fill", folder=str(disk), percent="70%"))
    info = os.statvfs(disk)
    used = info.f_blocks - info.f_bfree
    assert 100 * used / (used + info.f_bavail) == pytest.approx(70, abs=1)
    reading = injector.observe(record.uid)
    assert reading.values["measured"] == pytest.approx(70, abs=1)
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_fill_that_somebody_removed_is_told(injector, disk):
    record = injector.inject(order("disk.fill", folder=str(disk), bytes="20MiB"))
    (disk / "others").write_bytes(b"x" * (8 << 20))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE
    assert reading.values["measured"] == pytest.approx(20 << 20, rel=0.01)
    next(disk.glob(".faultline-*.fill")).unlink()
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


def test_either_a_share_or_an_amount(injector, disk):
    for params in ({}, {"percent": "10%", "bytes": "1MiB"}, {"percent": "101%"}, {"bytes": "5"}):
        with pytest.raises(InvalidParameter):
            injector.plan(order("disk.fill", folder=str(disk), **params))


@pytest.fixture
def beside(tmp_path: Path, disk: Path) -> Iterator[Injector]:
    """Its store does not lie on the disk: with files of its own open there, nothing could be set
    read-only.
    """
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


def test_a_file_system_is_read_only_until_the_deadline(beside, disk):
    (disk / "before").write_text("kept")
    record = beside.inject(order("disk.readonly", "3s", path=str(disk)))
    with pytest.raises(OSError, match="Read-only"):
        (disk / "x").touch()
    assert (disk / "before").read_text() == "kept"
    assert beside.observe(record.uid).effect is Effect.EFFECTIVE
    until(lambda: beside.get(record.uid).end is End.RECOVERED)
    (disk / "x").touch()
    assert beside.residue(record.uid) == []


def test_who_writes_is_named_and_nothing_is_done(beside, disk):
    with (
        (disk / "open").open("w"),
        pytest.raises(Refused, match=f"open for writing, by .*pid {os.getpid()}"),
    ):
        beside.inject(order("disk.readonly", path=str(disk)))
    (disk / "x").touch()
    assert not beside.unfinished()


def test_what_somebody_made_writable_is_told_and_left(beside, disk):
    record = beside.inject(order("disk.readonly", path=str(disk)))
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert beside.observe(record.uid).effect is Effect.INEFFECTIVE
    assert beside.recover(record.uid).end is End.RECOVERED


def test_its_note_is_enough_to_make_it_writable(beside, disk):
    record = beside.inject(order("disk.readonly", path=str(disk)))
    kind = kinds()["mount_readonly"]
    (found,) = [each for each in kind.scan(None, ()) if each.uid == record.uid]
    stranger = Context(found.uid, found.index, 0)  # of another store, or of none
    outcome = kind.undo(found.change.spec, found.prior, {}, stranger)
    assert outcome.end is Undone.UNDONE, outcome
    assert not [each for each in kind.scan(None, ()) if each.uid == record.uid]
    (disk / "x").touch()


def test_the_file_systems_of_the_host_are_protected(beside, disk):
    with pytest.raises((Protected, Unsupported)):
        beside.plan(order("disk.readonly", path="/"))
    (disk / "folder").mkdir()
    with pytest.raises(Unsupported, match=f"it lies on {disk}"):
        beside.plan(order("disk.readonly", path=str(disk / "folder")))
