"""What looking at the targets of a run costs: processor time and memory of a reading a second.

    python -m benchmarks.watching

The host, and processes that stand still, each with its own curve. A reading is timed by the
processor time of the thread that makes it.
"""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.figure import Figure, Measured, alone, median
from faultline.watching.watcher import Watcher

PROCESSES = (1, 16)
READINGS = 40
AIM = "under 1 %"


@contextmanager
def standing(count: int) -> Generator[list[int]]:
    """Processes that do nothing."""
    begun = [subprocess.Popen(["sleep", "600"]) for _ in range(count)]
    try:
        yield [each.pid for each in begun]
    finally:
        for each in begun:
            each.kill()
            each.wait()


def readings(watcher: Watcher) -> list[float]:
    """Milliseconds of processor time of each of several readings of everything."""
    found: list[float] = []
    for _ in range(READINGS):
        begun = time.thread_time()
        watcher.look()
        found.append((time.thread_time() - begun) * 1000)
        time.sleep(0.02)
    return found[5:]  # the first ones look for the targets


def measure() -> Measured:
    """One reading of the host, and of the host with processes; memory of a kept hour."""
    for count in (0, *PROCESSES):
        with standing(count) as pids:
            watcher = Watcher(every=3600.0)  # looks when it is asked to
            watcher.start("host", {})
            for pid in pids:
                watcher.start(f"pid {pid}", {"pid": pid})
            took = readings(watcher)
            watcher.stop()
        what = f"the host and {count} processes" if count else "the host"
        yield median(f"watching {what}: one reading, processor time", took, "ms")
        share = sum(took) / len(took) / 10
        yield Figure(f"watching {what}: share of a core at one a second", share, "%", AIM)
    yield from _kept()


def _kept() -> Measured:
    watcher = Watcher(every=3600.0)
    watcher.start("host", {})
    time.sleep(0.3)
    watcher.look()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    count = 200
    for _ in range(count):
        watcher.look()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    watcher.stop()
    each = (after - before) / count
    yield Figure("watching: memory of one kept second of a target", each, "bytes", "", "", count)


if __name__ == "__main__":
    sys.exit(alone(measure))
