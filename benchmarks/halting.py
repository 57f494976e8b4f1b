"""A halt of a whole cluster: everything undone on many hosts at once, with a real API server and
simulated agents.

python -m benchmarks.halting
"""

from __future__ import annotations

import os
import threading
import time

from benchmarks.figure import Figure, Measured, alone
from benchmarks.standing import FAULTS, HALTS, LIMIT, NAMESPACE, VERSION, Standing, standing

HOSTS = int(os.environ.get("FAULTLINE_BENCH_HALTED_HOSTS", "1000"))
EACH = int(os.environ.get("FAULTLINE_BENCH_HALTED_TARGETS", "2"))
FAULTS_EACH = 2  # on every target


def measure() -> Measured:
    """From the halt to nothing left in place, and to the cluster saying so."""
    with standing(HOSTS, EACH) as there:
        yield from _halted(there)


def _halted(there: Standing) -> Measured:
    targets = HOSTS * EACH
    names = [f"many-{number}" for number in range(FAULTS_EACH)]
    for name in names:
        there.delay(name)
    for name in names:
        there.until(
            FAULTS, name, lambda s: s.get("counts", {}).get("effective", 0) >= targets, NAMESPACE
        )
    suffered = there.agents.suffering()
    halt = {"apiVersion": VERSION, "kind": "Halt", "metadata": {"name": "stop"},
            "spec": {"reason": "measured", "by": "benchmark"}}  # fmt: skip
    seen = _Last(there)
    begun = time.monotonic()
    seen.start()
    there.client.create(HALTS, halt)
    status = there.until(HALTS, "stop", lambda s: bool(s.get("undone")))
    told = time.monotonic() - begun
    seen.join(LIMIT)
    left = there.agents.suffering()
    of = f"{suffered} faults on {HOSTS} simulated hosts"
    note = f"{of}; half of them after {seen.half - begun:.1f} s; {left} left in place"
    yield Figure(
        "halt: from the halt to nothing in place anywhere", seen.none - begun, "s", spread=note
    )
    note = f"{of}; {status.get('left', 0)} not undone by its own count"
    yield Figure("halt: from the halt to its status saying so", told, "s", spread=note)


class _Last(threading.Thread):
    """When half of all was undone, and when the last of it was."""

    def __init__(self, there: Standing) -> None:
        super().__init__(daemon=True)
        self.there = there
        self.half = self.none = 0.0

    def run(self) -> None:
        all_ = self.there.agents.suffering()
        while left := self.there.agents.suffering():
            if left <= all_ / 2 and not self.half:
                self.half = time.monotonic()
            time.sleep(0.02)
        self.none = time.monotonic()
        self.half = self.half or self.none


if __name__ == "__main__":
    alone(measure)
