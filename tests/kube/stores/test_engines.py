"""Engines over a store in a cluster, as processes: they share the work, die, and ask little."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kube.conftest import Server
from tests.kube.programs import program
from tests.kube.stores.conftest import Opener

from faultline.api.document import read
from faultline.api.run import Run
from faultline.engine import unattended
from faultline.engine.runs import Runs
from faultline.engine.unattended import Manager
from faultline.stores.kube import KubeStore
from faultline.stores.model import Filter

pytestmark = pytest.mark.needs_apiserver
RUNS = 20
PROGRAM = """
import sys
from pathlib import Path
from faultline.engine import unattended
from faultline.engine.runs import Runs
from faultline.stores.renewal import Renewal
unattended.GRACE, unattended.LOOK, unattended.AGAIN = 0.0, 0.1, 0.5
Renewal.__init__.__defaults__ = (2.0,)
store = lambda: Runs(Path(sys.argv[1]), None, lambda *_: [], sys.argv[2], cached=True)
engine = unattended.Manager(store, at_once=int(sys.argv[3]))
print("ready", flush=True)
engine.keep()
"""


def spec_of(*nodes: dict[str, Any]) -> dict[str, Any]:
    """An experiment of these nodes, one after the other, without any fault."""
    return {
        "title": "T", "hypothesis": {"text": "it answers", "probes": ["here"]},
        "probes": [{"name": "here", "type": "file", "path": "/etc/hostname", "mode": "edge"}],
        "baseline": "0s", "cooldown": "0s",
        "nodes": [{"name": "line", "type": "serial", "nodes": list(nodes)}],
    }  # fmt: skip


def run_of(name: str, *nodes: dict[str, Any]) -> Run:
    """A run of it."""
    spec = {"experiment": "e", "resolved": spec_of(*nodes)}
    return read(Run, {"kind": "Run", "metadata": {"name": name}, "spec": spec})


def mark(folder: Path, run: str, name: str) -> dict[str, Any]:
    """A node that leaves one more file each time it is carried out."""
    words = ["mktemp", "-p", str(folder), f"{run}.{name}.XXXXXX"]
    return {"name": name, "type": "task", "command": {"command": words}}


def wait(seconds: float) -> dict[str, Any]:
    return {"name": "wait", "type": "wait", "duration": f"{seconds}s"}


@contextmanager
def engine(state: Path, where: str, at_once: int = 100) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", PROGRAM, str(state), where, str(at_once)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def until(true: Callable[[], object], patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


@pytest.mark.slow
def test_two_engines_share_the_runs_and_one_takes_over_what_the_other_left(
    opener: Opener, where: str, tmp_path: Path
) -> None:
    marks, store = tmp_path / "marks", opener()
    marks.mkdir()
    names = [f"r{number}" for number in range(RUNS)]
    for name in names:
        nodes = (mark(marks, name, "first"), wait(5), mark(marks, name, "second"))
        store.create(run_of(name, *nodes))

    def begun() -> bool:
        runs = store.list(Run)
        states = [each.state for run in runs for each in run.status.nodes if each.name == "first"]
        return states.count("ended") == RUNS

    with ExitStack() as stack:
        left, killed = (
            stack.enter_context(engine(tmp_path / each, where, RUNS // 2)) for each in "ab"
        )
        until(begun)
        holders = Counter(row.holder for row in store.rows(Run, Filter(ended=False)))
        assert len(holders) == 2, "both of them carry some out"
        killed.send_signal(signal.SIGKILL)
        until(lambda: store.count(Run, Filter(ended=True)) == RUNS)
        left.terminate()
        left.wait(20)
    runs = store.list(Run)
    assert {str(run.status.verdict) for run in runs} == {"held"}, [r.status.reason for r in runs]
    done = Counter(path.name.rpartition(".")[0] for path in marks.iterdir())
    assert done == {f"{name}.{node}": 1 for name in names for node in ("first", "second")}
    assert sum(run.status.resumed for run in runs) >= RUNS // 3, "some were taken over"


@pytest.mark.slow
def test_what_is_applied_with_kubectl_is_carried_out(
    defined: Server, where: str, namespace: str, tmp_path: Path
) -> None:
    spec = spec_of(wait(0.5))
    header = {"apiVersion": "faultline.dev/v1alpha1"}
    experiment = {**header, "kind": "Experiment", "metadata": {"name": "e"}, "spec": spec}
    run = {**header, "kind": "Run", "metadata": {"name": "by-hand"},
           "spec": {"experiment": "e", "resolved": spec}}  # fmt: skip
    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump_all([experiment, run]))
    kubectl = (program("kubectl"), f"--kubeconfig={defined.kubeconfig()}", "-n", namespace)
    words = [sys.executable, "-m", "faultline.cli.main", "--store", where, "engine", "--quiet"]
    state = {"FAULTLINE_STATE": str(tmp_path / "state")}
    with subprocess.Popen(words, env={**os.environ, **state}) as process:
        try:
            subprocess.run([*kubectl, "apply", "-f", str(file)], check=True, capture_output=True)

            def shown() -> str:
                asked = [*kubectl, "get", "frun", "--no-headers"]
                return subprocess.run(asked, check=True, capture_output=True, text=True).stdout

            until(lambda: " ended " in shown())
            assert re.match(r"by-hand +e +ended +held +", shown())
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.slow
def test_an_engine_with_runs_that_wait_asks_next_to_nothing(
    opener: Opener, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unattended, "GRACE", 0.0)
    opened: list[KubeStore] = []

    def runs() -> Runs:
        made = Runs(tmp_path, None, lambda *_: [], where, cached=True)
        assert isinstance(made.store, KubeStore)
        opened.append(made.store)
        return made

    store = opener()
    for number in range(50):
        store.create(run_of(f"r{number}", wait(600)))
    keeper = Manager(runs)
    thread = threading.Thread(target=keeper.keep, daemon=True)
    thread.start()
    try:
        until(lambda: len(keeper.running()) == 50)
        until(lambda: _waiting(store) == 50)
        before, begun = sum(each.requests for each in opened), time.monotonic()
        time.sleep(4)
        sent = sum(each.requests for each in opened) - before
        per_second = sent / (time.monotonic() - begun)
        assert per_second < 1.5, f"{per_second:.2f} requests a second"
        print(f"{per_second:.2f} requests a second with 50 runs that wait")
    finally:
        keeper.stop()
        thread.join(20)


def _waiting(store: KubeStore) -> int:
    nodes = [each for run in store.list(Run) for each in run.status.nodes if each.name == "wait"]
    return sum(each.state == "running" for each in nodes)
