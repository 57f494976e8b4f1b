"""What each fault does here, measured: fault by place by kernel, as one row each.

    python -m faultline.testing.matrix -o FILE [--enclosures MODULE] [--kill N] [-j N] [FAULT...]

runs the conformance suite and the kill matrix over every fault on every kind of ground and writes
JSON; `docs/matrix.py` makes the published page of it. Nothing is filled in by hand. What is in FILE
of other faults stays, if it is of this kernel.

Containers need a runtime: MODULE has a context manager `enclosures()` that gives the further kinds
of place that it can make, as `faultline.injection.trial.ENCLOSURES` holds them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from faultline.changes.model import Record, mark
from faultline.errors import FaultlineError, Unsupported
from faultline.injection import registry, trial
from faultline.injection.injector import Injector
from faultline.injection.model import Ending
from faultline.injection.reading import Effect, Reading
from faultline.kernel import cgroup, memory, procfs
from faultline.places.model import CONTAINER, HOST, PROCESS
from faultline.testing import conformance

GROUNDS = (HOST, PROCESS, CONTAINER)
ALONE = ("cpu", "memory", "diskio")  # what they measure, others beside them would change
_WATCH = 1.0  # seconds over which the processor time of holders is counted
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    """One fault on one kind of place on this kernel; times in seconds, memory in bytes."""

    fault: str
    place: str
    ending: str
    why: str = ""  # why it does not work here; all that follows is empty then
    effect: str = ""
    asked: float | None = None
    measured: float | None = None
    to_effect: float | None = None  # from the call to the end of the first measurement
    to_absence: float | None = None  # from the call of recover to a look that found nothing
    end: str = ""
    residue: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])
    holders: int = 0  # processes of ours that hold it
    holder_memory: int = 0  # proportional
    holder_cpu: float = 0.0  # cores, over a second
    kill_points: int = 0
    survived: int = 0
    time: float = 0.0  # when it was measured, seconds since 1970

    @property
    def error(self) -> float | None:
        """How far the measured value is from the one asked, as a share of the latter."""
        if not self.asked or self.measured is None:
            return None
        return abs(self.measured - self.asked) / self.asked


def measure(fault_id: str, kind: str, kills: int, seed: int) -> Row:
    """One row: the life cycle with its times, the conformance suite, and `kills` kill points.

    0 kill points are none, -1 all. Whatever a fault raises is a complaint of its row.
    """
    fault = registry.get(fault_id)
    row = Row(fault_id, kind, str(fault.ending), time=time.time())
    if fault.lethal or kind not in fault.places:
        row.why = fault.lethal or f"acts on {', '.join(sorted(fault.places))} only"
        return row
    said: list[str] = []
    try:
        told = trial.in_child(lambda: _life(fault_id, kind), 120.0, said)
        if told is None:
            row.complaints.append("; ".join(("its life did not come to an end", *said)))
            return row
        now, row = row.time, Row(**told)
        row.time = now
        if row.why:
            return row
        row.complaints += conformance.check(fault_id, kind)
        if kills:
            row.kill_points, row.survived = _kills(fault_id, kind, kills, seed, row.complaints)
    except Unsupported as error:
        row.why = error.message
    return row


def _kills(
    fault_id: str, kind: str, kills: int, seed: int, complaints: list[str]
) -> tuple[int, int]:
    answer = conformance.kill_points(fault_id, max(kills, 0), seed, kind)
    bad = [line for lines in answer.values() for line in lines]
    complaints += bad
    return len(answer), sum(not lines for lines in answer.values())


def _life(fault_id: str, kind: str) -> dict[str, Any]:
    row = Row(fault_id, kind, str(registry.get(fault_id).ending))
    try:
        with conformance.prepared(fault_id, kind) as ground, Injector(ground.state) as injector:
            _lived(row, ground, injector)
    except Unsupported as error:
        row.why = error.message
    except FaultlineError as error:
        row.complaints.append(f"{error.code}: {error.message}")
    return asdict(row)


def _lived(row: Row, ground: conformance.Ground, injector: Injector) -> None:
    """Injected, measured, recovered, looked for again."""
    plan = injector.plan(ground.order())
    begun = time.monotonic()
    record = injector.carry_out(plan)
    reading = injector.observe(record.uid)
    row.to_effect = time.monotonic() - begun
    if reading.busy:
        raise Unsupported(f"{reading.effect}: {reading.reason}")
    _take(row, reading)
    _holders(row, record)
    begun = time.monotonic()
    row.end = str(injector.recover(record.uid).end)
    instant = registry.get(row.fault).ending is Ending.INSTANT
    row.residue = [] if instant else injector.residue(record.uid)
    row.to_absence = time.monotonic() - begun


def _take(row: Row, reading: Reading) -> None:
    row.effect = str(reading.effect)
    row.asked, row.measured = reading.values.get("asked"), reading.values.get("measured")
    if reading.effect is not Effect.EFFECTIVE:
        row.complaints.append(f"{reading.effect}: {reading.reason}")


def _holders(row: Row, record: Record) -> None:
    """What the processes cost that hold the fault."""
    found = [p for i in range(len(record.steps)) for p in procfs.find_marked(mark(record.uid, i))]
    row.holders = len(found)
    if not found:
        return
    before = _ticks(found)
    time.sleep(_WATCH)
    row.holder_cpu = max(0, _ticks(found) - before) / _TICK / _WATCH
    for process in found:
        try:
            row.holder_memory += memory.process_memory(process.pid).proportional
        except ProcessLookupError:
            continue


def _ticks(found: Iterable[procfs.Process]) -> int:
    total = 0
    for process in found:
        try:
            stat = Path(f"/proc/{process.pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat.rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def kernel() -> dict[str, str]:
    """Which kernel this is, as the page names it."""
    return {
        "release": platform.release(),
        "machine": platform.machine(),
        "cgroups": str(cgroup.layout().mode),
        "cores": str(os.cpu_count()),
    }


@contextmanager
def grounds(module: str) -> Generator[None]:
    """Have the places of that module for as long as the block lasts; '' names none."""
    if not module:
        yield
        return
    with importlib.import_module(module).enclosures() as found:
        trial.ENCLOSURES.update(found)
        try:
            yield
        finally:
            for kind in found:
                del trial.ENCLOSURES[kind]


def measured(pairs: list[tuple[str, str]], kills: int, seed: int, jobs: int) -> Iterator[Row]:
    """The rows as they come; several at a time but for those that measure the machine."""
    one = partial(_row, kills=kills, seed=seed)
    alone = [pair for pair in pairs if pair[0].partition(".")[0] in ALONE]
    if jobs == 1:
        yield from map(one, pairs)
        return
    # Forked before there is any thread; each of them forks a child for whatever it tries.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(one, [pair for pair in pairs if pair not in alone])
    yield from map(one, alone)


def _row(pair: tuple[str, str], kills: int, seed: int) -> Row:
    return measure(*pair, kills, seed)


def kept(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What a file holds of this kernel, by fault and place."""
    if not path.exists():
        return {}
    saved = json.loads(path.read_text())
    rows: list[dict[str, Any]] = saved["rows"] if saved["kernel"] == kernel() else []
    return {(row["fault"], row["place"]): row for row in rows}


def main() -> int:
    """Measure and write; 1 if any row has complaints."""
    parser = argparse.ArgumentParser(description="Measure what each fault does on this kernel.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--kill", type=int, default=-1, help="kill points of each; -1: all, 0: none"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many rows at a time")
    parser.add_argument("--enclosures", default="", help="a module that makes containers")
    parser.add_argument("--place", choices=GROUNDS, action="append")
    parser.add_argument("fault", nargs="*")
    given = parser.parse_args()
    wanted = [registry.get(each).id for each in given.fault] or sorted(registry.everything())
    rows, begun, bad = kept(given.output), time.monotonic(), 0
    with grounds(given.enclosures):
        pairs = [(i, kind) for i in wanted for kind in given.place or GROUNDS]
        for row in measured(pairs, given.kill, given.seed, given.jobs):
            rows[row.fault, row.place] = asdict(row)
            bad += bool(row.complaints)
            state = row.why or "; ".join(row.complaints) or row.effect
            kills = f"{row.survived}/{row.kill_points}"
            sys.stdout.write(f"{row.fault} on {row.place}: {state} ({kills})\n")
            sys.stdout.flush()
            ordered = [rows[key] for key in sorted(rows, key=order)]
            saved = {"kernel": kernel(), "time": time.time(), "rows": ordered}
            given.output.write_text(json.dumps(saved, indent=1) + "\n")
    sys.stdout.write(f"{len(pairs)} rows in {time.monotonic() - begun:.0f} s\n")
    return int(bool(bad))


def order(key: tuple[str, str]) -> tuple[str, int]:
    """By fault, then by kind of place."""
    return key[0], GROUNDS.index(key[1])


if __name__ == "__main__":
    raise SystemExit(main())
