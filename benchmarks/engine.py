"""The engine: decisions per second, a thousand runs at once, how soon a guard has all undone.

python -m benchmarks.engine
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.figure import Figure, Measured, Missing, NotHere, alone, median

RUNS = int(os.environ.get("FAULTLINE_BENCH_RUNS", "1000"))
GUARDS = 10
WAIT = 20
LIMIT = 120  # seconds after which it is not waited for any more

WAITING: dict[str, Any] = {
    "title": "one of many",
    "hypothesis": {"text": "the host is up", "probes": ["up"]},
    "probes": [{"name": "up", "type": "process", "pid": 1, "interval": "10s"}],
    "nodes": [
        {
            "name": "line", "type": "serial",
            "nodes": [
                {"name": "wait", "type": "wait", "duration": f"{WAIT}s"},
                {"name": "then", "type": "wait", "duration": "1s"},
            ],
        }
    ],
    "baseline": "1s", "cooldown": "1s",
}  # fmt: skip

ENGINE = """
import sys, threading, time
from pathlib import Path
from faultline.engine import unattended
from faultline.engine.runs import Runs
unattended.GRACE = 0.0
engine = unattended.Manager(lambda: Runs(Path(sys.argv[1])))
threading.Thread(target=engine.keep, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def measure() -> Measured:
    """Decisions in this process; a thousand runs in another; guards with a real fault."""
    yield _decisions()
    yield from _thousand()
    yield from _guards()


def _document(spec: dict[str, Any], name: str) -> Any:
    from faultline.api.experiment import Experiment

    data = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment",
            "metadata": {"name": name}, "spec": spec}  # fmt: skip
    return Experiment.model_validate(data)


def _decisions() -> Figure:
    from faultline.api.model import Metadata
    from faultline.api.run import Run, RunSpec
    from faultline.engine.actions import instant
    from faultline.engine.model import Facts
    from faultline.engine.reconcile import reconcile

    spec = _document(WAITING, "one").spec
    meta = Metadata(name="r", uid="0" * 16, resource_version=1)
    run = Run(metadata=meta, spec=RunSpec(experiment="one", resolved=spec))
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < 2.0:
        decision = reconcile(run, Facts(), instant())
        run = run.model_copy(update={"status": decision.status})
        count += 1
    rate = count / (time.perf_counter() - begin)
    return Figure("engine: decisions of one run", rate, "/s", n=count)


def _thousand() -> Measured:
    from faultline.engine.runs import Runs

    with tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder:
        state = Path(folder)
        with Runs(state) as kept:
            document = _document(WAITING, "many")
            names = [kept.create(document).metadata.name for _ in range(RUNS)]
            words = [sys.executable, "-c", ENGINE, folder]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            with subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
            ) as engine:
                assert engine.stdout is not None
                engine.stdout.readline()
                begun, clock = time.monotonic(), time.time()
                most = shared = 0
                while time.monotonic() - begun < LIMIT:
                    shared = max(shared, _proportional(engine.pid))
                    left = kept.store.count("Run", _unfinished())
                    if not left:
                        break
                    time.sleep(1)
                took = time.monotonic() - begun
                used = _processor(engine.pid)
                most = _peak(engine.pid)
                engine.kill()
            verdicts = {str(each.verdict) for each in kept.summaries()}
            runs = [kept.get(name) for name in names]
    yield Figure(
        f"engine: memory with {RUNS} runs at once", most / 2**20, "MiB", "under 300 MiB",
        spread=f"resident, at most; its share of what is shared: {shared / 2**20:.0f} MiB",
    )  # fmt: skip
    yield Figure(
        f"engine: until {RUNS} runs had begun, all at once",
        max(run.status.started or 0.0 for run in runs) - clock, "s",
    )  # fmt: skip
    spread = f"verdicts: {', '.join(sorted(verdicts))}; {used:.0f} s of processor"
    name = f"engine: {RUNS} runs of {WAIT + 3} s, from start to the last verdict"
    yield Figure(name, took, "s", spread=spread)
    late = [found for run in runs if (found := _late(run)) is not None]
    yield median(f"engine: how late a wait of {WAIT} s ends with all of them", late, "s")
    if len(late) > 1:
        last = quantiles(late, n=100)[98]
        yield Figure("engine: the same, of 99 in 100", last, "s", n=len(late))


def _unfinished() -> Any:
    from faultline.stores.model import Filter

    return Filter(ended=False)


def _late(run: Any) -> float | None:
    for node in run.status.nodes:
        if node.name == "wait" and node.started is not None and node.ended is not None:
            return node.ended - node.started - WAIT
    return None


def _peak(pid: int) -> int:
    return _bytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def _proportional(pid: int) -> int:
    return _bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _bytes(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == name), 0)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _guards() -> Measured:
    """From the first reading of a guard that is bad to the fault being undone and looked for."""
    from faultline.engine.runs import Runs
    from faultline.injection.trial import in_child

    if os.geteuid() != 0:
        raise NotHere("needs root")

    def act() -> list[float]:
        taken: list[float] = []
        with tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder:
            flag = Path(folder) / "flag"
            for _ in range(GUARDS):
                flag.write_text("good")
                spec = {
                    "title": "guarded", "baseline": "300ms", "cooldown": "100ms",
                    "hypothesis": {"text": "x", "probes": ["fine"]},
                    "probes": [
                        {"name": "fine", "type": "file", "path": str(flag), "pattern": "good",
                         "interval": "100ms"},
                    ],
                    "guards": ["fine"],
                    "faults": [{"name": "f", "fault": "network.loss", "duration": "20s",
                                "params": {"interface": "lo", "percent": "50%"}}],
                }  # fmt: skip
                with Runs(Path(folder) / "state") as kept:

                    def tell(_run: Any, point: Any) -> None:
                        if point.event == "effective":
                            flag.write_text("bad")

                    run = kept.start(_document(spec, "guarded"), listener=tell)
                bad = next(s.at for s in run.status.probes[0].samples if s.ok is False)
                gone = run.status.faults[0].recovered_at
                taken.append((gone or 0.0) - bad)
        return taken

    taken = in_child(act, 200.0)
    if not taken:
        yield Missing("guard: from the bad reading to undone", "no network of its own here")
        return
    yield median(
        "guard: from the bad reading to undone and looked for", taken, "s", "p99 under 1 s"
    )
    yield Figure("guard: the longest of them", max(taken), "s", "under 1 s", n=len(taken))


if __name__ == "__main__":
    alone(measure)
