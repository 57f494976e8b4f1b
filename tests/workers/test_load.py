"""Load: tasks that wait and use no processor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from faultline.kernel import cpustat, procfs

pytestmark = pytest.mark.both_kernels
Start = Callable[..., Any]


@pytest.mark.parametrize("count", [1, 12, 150])
def test_as_many_tasks_wait_as_were_asked_for(worker: Start, count: int) -> None:
    run = worker("load", {"count": count})
    assert run.ready["waiting"] == count
    ours = [each.pid for each in run.processes()]
    assert len(ours) == count + 2  # the parent, and the last link, which waits for nobody
    assert procfs.thread_states(ours)["D"] == count
    run.end()
    assert run.wait_gone()


def test_waiting_tasks_use_no_processor_and_raise_the_average(worker: Start) -> None:
    before = cpustat.load_average().one
    run = worker("load", {"count": 60})
    ours = [each.pid for each in run.children()]
    used = sum(map(_ticks, ours))
    begin = time.monotonic()
    # The kernel looks every 5 s: 60 waiting tasks add nearly 5 each time.
    while cpustat.load_average().one < before + 3:
        assert time.monotonic() < begin + 25
        time.sleep(0.2)
    assert sum(map(_ticks, ours)) - used <= 2
    assert run.figures()["load"][0] >= 0


def _ticks(pid: int) -> int:
    """Processor time of a process in clock ticks."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
