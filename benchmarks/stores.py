"""How long a store takes with 10,000 runs in it, and what a long run costs to write, on SQLite and
on PostgreSQL (a server of our own on a unix socket, with every write on disk).

python -m benchmarks.stores
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.stores import histories
from tests.stores.server import Server, missing

from benchmarks.figure import Figure, Measured, Missing, alone, median, timed
from faultline.api.run import Run
from faultline.report import render
from faultline.stores.model import Filter, Store
from faultline.stores.opening import open_store

RUNS = 10_000
SECONDS = 20  # of each of them: 2 probes and a load
LONG = 3600  # seconds of a long run, with 5 probes and a load
PROBES = 5
TIMES = 15
WRITES = 400
THREADS = 16
_AIM = "under 100 ms"

# What a process needs that lists the runs, as a command does; and one that opens them all.
_LIST = "from faultline.stores.opening import open_store as o; o({where!r}).summaries('Run')"


def measure() -> Measured:
    """Each database in turn."""
    with tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder:
        yield from _one("SQLite", str(Path(folder) / "resources.db"))
    if why := missing():
        yield Missing("stores: PostgreSQL", why)
        return
    with Server(durable=True) as server:
        yield from _one("PostgreSQL", server.database())


def _one(name: str, where: str) -> Measured:
    def named(what: str) -> str:
        return f"stores: {name}, {what}"

    with _opened(where) as store:
        began = time.perf_counter()
        _fill(store)
        took = time.perf_counter() - began
        yield Figure(named(f"runs of {SECONDS} s created per second"), RUNS / took, "/s", n=RUNS)
        for what, ask in _questions(store).items():
            ask()
            taken = [timed(ask) for _ in range(TIMES)]
            aim = "" if what == "list all" else _AIM
            yield median(named(f"{what} at {RUNS} runs"), taken, "ms", aim)
        yield from _writing(store, name, named)
        yield from _leasing(store, named)
    yield Figure(named("memory of a process that lists all runs"), _memory(where), "MiB")
    if where.startswith("/"):
        size = sum(path.stat().st_size for path in Path(where).parent.iterdir()) / 2**20
        yield Figure(named(f"size of the file with {RUNS} runs"), size, "MiB")


@contextmanager
def _opened(where: str) -> Generator[Store]:
    with open_store(where) as store:
        yield store


def _fill(store: Store) -> None:
    model = histories.run("model", 0, SECONDS)
    for index in range(RUNS):
        one = histories.run(f"run-{index:05}", index, 0)
        status = one.status.model_copy(
            update={
                "timeline": model.status.timeline,
                "probes": model.status.probes,
                "traffic": model.status.traffic,
            }
        )
        store.create(one.model_copy(update={"status": status}))


def _questions(store: Store) -> dict[str, Callable[[], object]]:
    middle = store.summaries("Run", limit=RUNS // 2)[-1].cursor
    filters = {
        "filter by label": Filter(labels={"team": "team-3"}),
        "filter by experiment": Filter(experiments=("experiment-4",)),
        "filter by verdict": Filter(verdicts=("broke",)),
        "filter by phase": Filter(phases=("wait",)),
        "filter by time": Filter(since=time.time() - 5),
        "filter by text found nowhere": Filter(text="nowhere"),
        "filter by text and label": Filter(text="number 77", labels={"team": "team-0"}),
        "unfinished ones": Filter(ended=False),
    }
    asked: dict[str, Callable[[], object]] = {
        "list the newest 50": lambda: store.summaries("Run", limit=50),
        "a page of 50 in the middle": lambda: store.summaries("Run", limit=50, after=middle),
        "count": lambda: store.count("Run"),
        "open one": lambda: store.get(Run, f"run-{RUNS // 3:05}"),
    }
    for what, where in filters.items():
        asked[what] = lambda where=where: store.summaries("Run", where, 50)
    asked["list all"] = lambda: store.summaries("Run")
    return asked


def _writing(store: Store, name: str, named: Callable[[str], str]) -> Measured:
    """A run that goes on: each write adds one sample to each probe and a second of the load."""
    short = store.create(histories.run("short", 0, 1, ended=False))
    began = time.perf_counter()
    for _ in range(WRITES):
        short = store.write_status(short)
    rate = WRITES / (time.perf_counter() - began)
    yield Figure(named("writes of a status per second"), rate, "/s", n=WRITES)
    rate = _together(store)
    yield Figure(named(f"the same by {THREADS} threads, of a run each"), rate, "/s", n=WRITES)
    run = store.create(histories.run("long", 0, 1, ended=False))
    for length, aim in ((60, ""), (LONG, "as after a minute")):
        run = store.write_status(
            run.model_copy(update={"status": histories.status(length, PROBES)})
        )
        taken: list[float] = []
        for index in range(TIMES):
            more = _grown(run, length + index)
            began = time.perf_counter()
            run = store.write_status(more)
            taken.append((time.perf_counter() - began) * 1000)
        yield median(named(f"write after {length} s of a run"), taken, "ms", aim)
    taken = [timed(lambda: store.get(Run, "long")) for _ in range(TIMES)]
    yield median(named("open a run of an hour"), taken, "ms", _AIM)
    if name == "SQLite":
        yield from _reporting(store.get(Run, "long"))


def _together(store: Store) -> float:
    """Writes per second of threads that write at the same time, as an engine's do."""
    made = [store.create(histories.run(f"of-{n}", 0, 1, ended=False)) for n in range(THREADS)]

    def write(run: Run) -> None:
        for _ in range(WRITES // THREADS):
            run = store.write_status(run)

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, made))
    return WRITES // THREADS * THREADS / (time.perf_counter() - began)


def _reporting(run: Run) -> Measured:
    """What a report of it takes besides."""
    forms = {"text": render.text, "a page": render.html, "JSON": render.json}
    for form, make in forms.items():
        make(run)
        taken = [timed(lambda make=make: make(run)) for _ in range(TIMES)]
        yield median(f"report: a run of an hour as {form}", taken, "ms")


def _grown(run: Run, at: int) -> Run:
    status = run.status
    probes = [
        each.model_copy(update={"samples": [*each.samples, histories.sample(at)]})
        for each in status.probes
    ]
    traffic = [
        each.model_copy(update={"seconds": [*each.seconds, histories.second(at)]})
        for each in status.traffic
    ]
    more = status.model_copy(update={"probes": probes, "traffic": traffic})
    return run.model_copy(update={"status": more})


def _leasing(store: Store, named: Callable[[str], str]) -> Measured:
    for index in range(100):
        store.create(histories.run(f"open-{index}", index, 0, ended=False))
    only = Filter(names=tuple(f"open-{index}" for index in range(100)))
    began = time.perf_counter()
    leases = [store.claim(Run, 1, "bench", 600, only)[0].lease for _ in range(100)]
    yield Figure(named("claims per second"), 100 / (time.perf_counter() - began), "/s", n=100)
    taken = [timed(lambda: store.renew(leases, 600)) for _ in range(TIMES)]
    yield median(named("renew 100 leases"), taken, "ms")


def _memory(where: str) -> float:
    """Resident set of a process of its own, at its highest, MiB."""
    code = f"{_LIST.format(where=where)}; print(open('/proc/self/status').read())"
    words = [sys.executable, "-c", code]
    told = subprocess.run(words, check=True, capture_output=True, text=True, env=dict(os.environ))
    (peak,) = [line for line in told.stdout.splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(alone(measure))
