"""The two lanes of the suite: which module runs where, and who waits for whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import beside


@dataclass
class Item:
    """As much of a collected test as lanes go by."""

    module: str
    marks: tuple[str, ...] = ()

    @property
    def location(self) -> tuple[str, int, str]:
        return (self.module, 1, "test")

    def iter_markers(self) -> Iterator[pytest.Mark]:
        return iter(getattr(pytest.mark, name).mark for name in self.marks)


TESTS = [
    Item("plain"),
    Item("mixed"),
    Item("kernel", ("both_kernels", "needs_root")),
    Item("mixed", ("needs_netns",)),
    Item("machine in a machine", ("needs_second_kernel", "beside")),
    Item("plain", ("slow", "needs_apiserver")),
]


def modules(lane: str) -> list[str]:
    return [each.module for each in beside.of(lane, TESTS)]  # type: ignore[arg-type, list-item]


def test_each_module_is_in_one_lane_as_a_whole_and_in_its_order() -> None:
    assert modules(beside.BESIDE) == ["plain", "machine in a machine", "plain"]
    assert modules(beside.MACHINE) == ["mixed", "kernel", "mixed"]


def test_who_measures_the_machine_waits_until_the_other_lane_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "runs"
    there.touch()
    monkeypatch.setenv(beside.OTHER, str(there))
    waiting = threading.Thread(target=beside.wait_alone)
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    there.unlink()
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.parametrize("other", [None, "", beside.BESIDE])
def test_who_has_nobody_beside_it_waits_for_nobody(
    other: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(beside.OTHER, raising=False)
    if other is not None:
        monkeypatch.setenv(beside.OTHER, other)
    beside.wait_alone()
