"""How much is burned, how fast, and by which group it is paid."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.model import End, mark
from faultline.injection import scratch
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import cgroup, procfs
from faultline.places.find import Target, find
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels, pytest.mark.quiet]
MIB = 1 << 20


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def order(folder: Path | str, target: Target | None = None, **params: Any) -> Order:
    given = {"folder": str(folder), "bytes": "8MiB", "block": "64KiB", **params}
    return Order("diskio.burn", given, Duration.parse("60s"), target=target or Target())


def written(uid: str) -> int:
    """Bytes that the kernel charged our processes for, as it tells everybody."""
    total = 0
    for process in procfs.find_marked(mark(uid, 0)):
        for line in Path(f"/proc/{process.pid}/io").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith("write_bytes") else 0
    return total


def test_an_amount_is_written_and_no_more(injector, disk):
    record = injector.inject(order(disk[0], mode="write", amount="4MiB", count=2))
    until(lambda: written(record.uid) >= 4 * MIB)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE
    assert 4 * MIB <= written(record.uid) < 5 * MIB
    assert injector.recover(record.uid).end is End.RECOVERED
    assert not procfs.find_marked(mark(record.uid, 0))


def test_a_rate_is_kept(injector, disk):
    record = injector.inject(order(disk[0], mode="write", rate="2MiB/s"))
    reading = injector.observe(record.uid)
    assert reading.values["own"] < 1.5 * 2 * MIB
    assert reading.values["asked"] == 2 * MIB
    assert injector.recover(record.uid).end is End.RECOVERED


def test_on_a_place_its_control_groups_pay(injector, disk, tmp_path):
    tmp_path.chmod(0o755)
    folder = str(disk[0]).removeprefix(str(tmp_path))
    with scratch.capsule(tmp_path) as inside:
        target = Target(pid=inside.pid)
        record = injector.inject(order(folder, target, mode="write"))
        layout = cgroup.layout()
        counted = [each for each in ("io", "blkio") if each in layout.controllers()]
        wanted = {each: find(target).group_of(each).path for each in counted}
        pids = [each.pid for each in procfs.find_marked(mark(record.uid, 0))]
        assert pids
        for pid in pids:
            assert {each: layout.group_of(pid, each).path for each in counted} == wanted
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert injector.recover(record.uid).end is End.RECOVERED
