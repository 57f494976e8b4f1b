"""The recorded runs (test data) and what several tests make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.api.graph_status import Attempt, NodeState, NodeStatus
from faultline.api.run import Run, Sample
from faultline.api.search import (
    SearchPoint,
    SearchResult,
    SearchSpec,
    SearchState,
    SearchTrial,
)
from faultline.api.timepoints import Judged, Scored
from faultline.api.watching import LogLine, LogStatus, TargetSecond, TargetStatus
from faultline.watching.counters import bounded

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in DATA.glob("*.json"))
FULL, LONG = "run-full", "run-long"
Read = Callable[[str], Run]


def _recorded(name: str) -> Run:
    return Run.model_validate_json((DATA / f"{name}.json").read_text(encoding="utf-8"))


def watched(start: float, length: int, begin: int, end: int) -> list[TargetStatus]:
    """Curves of a container that is busy while a fault lasts, and of its host. TEST DATA."""
    seconds: list[TargetSecond] = []
    for at in range(length):
        busy = begin <= at < end
        wave = 0.5 + 0.5 * math.sin(at / 3)
        seconds.append(
            TargetSecond(
                at=start + at,
                cpu=1.7 + 0.2 * wave if busy else 0.2 + 0.1 * wave,
                throttled=0.4 * wave if busy else 0.0,
                memory=(180 + 40 * wave) * 2**20 if busy else 120 * 2**20,
                read=0.0,
                written=4e6 * wave,
                received=2e5 * (1 + wave),
                sent=9e5 * (1 + wave),
                retransmits=3.0 * wave if busy else 0.0,
                cpu_pressure=0.6 if busy else 0.02,
                memory_pressure=0.0,
                io_pressure=0.1 * wave,
                processes=5 if busy else 3,
                restarts=1 if at == begin + 2 else 0,
            )
        )
    host = [each.model_copy(update={"cpu": (each.cpu or 0) + 0.4}) for each in seconds]
    return [
        TargetStatus(name="host", kind="host", words="this host", started=start, cores=2.0,
                     memory_limit=8 * 2**30, seconds=host, cost=0.002),
        TargetStatus(name="container web", kind="container", cores=2.0,
                     words="container web (docker 3f2a91c0b7de)", started=start, seconds=seconds,
                     memory_limit=256 * 2**20, missing=["network: it shares that of the host"],
                     cost=0.001),
        TargetStatus(name="process gone", started=start, end="no process has it"),
    ]  # fmt: skip


def lines(start: float, length: int, begin: int, end: int) -> list[LogStatus]:
    """What a service might have logged meanwhile. TEST DATA."""
    said = [
        LogLine(at=start + at + 0.2, text="ERROR upstream timed out" if begin < at < end else "GET")
        for at in range(length)
    ]
    return [
        LogStatus(name="web", source="container web", lines=said, seen=900, masked=2),
        LogStatus(name="audit", source="file /var/log/audit.log", text="Permission denied"),
        LogStatus(name="quiet", source="file /var/log/quiet.log"),
        LogStatus(name="undated", source="file /x", lines=[LogLine(text="no time")], seen=1),
    ]


def nodes(start: float) -> list[NodeStatus]:
    """A small graph with every way to end. TEST DATA."""

    def node(
        name: str, kind: str, begin: float | None, end: float | None, **more: object
    ) -> NodeStatus:
        stamps = [None if at is None else start + at for at in (begin, end)]
        state = NodeState.ENDED if end is not None else NodeState.WAITING
        fields = {"name": name, "type": kind, "state": state, **more}
        return NodeStatus.model_validate(
            {**fields, "started": stamps[0], "ended": stamps[1]}, by_name=True
        )

    tries = [
        Attempt(started=start + 9.6, ended=start + 9.7, verdict="error", text="busy"),
        Attempt(started=start + 9.8, ended=start + 25),
    ]
    return [
        node("all", "parallel", 9.5, 26, outcome="succeeded"),
        node("slow-net", "fault", 9.6, 25, outcome="succeeded", parent="all", attempts=tries),
        node("inner", "serial", 9.5, 20, outcome="failed", parent="all", text="ask failed"),
        node(
            "ask", "task", 10, 12, outcome="failed", verdict="broke", parent="inner", text="exit 1"
        ),
        node("look", "probe", 12, 20, outcome="succeeded", verdict="held", parent="inner"),
        node("other", "branch", None, None, outcome="skipped", text="its condition is false"),
        node("late", "wait", 20, 22, outcome="aborted"),
        node("never", "approval", None, None),
        node(
            "flaky", "task", 12, 20, outcome="failed", verdict="error", text="exit code 1",
            output={"code": 1, "text": "no", "json": {"a": 5.0}},
            attempts=[
                Attempt(started=start + 12, ended=start + 13, verdict="error", text="exit code 1"),
                Attempt(started=start + 14, ended=start + 20, verdict="error", text="exit code 1"),
            ],
        ),
        node("way", "branch", 12, 13, outcome="succeeded"),
        node("left", "wait", None, None, outcome="skipped", parent="way"),
        node("right", "wait", 12, 13, outcome="succeeded", parent="way"),
        node("how-much", "search", 10, 25, outcome="succeeded", verdict="held", search=searched()),
    ]  # fmt: skip


def searched() -> SearchState:
    """What a search of a latency might have found. TEST DATA."""
    spec = SearchSpec(
        parameter="latency", low="4ms", high="128ms", scale="log", tolerance="30%", probes=["fast"]
    )
    points = [("23ms", 6, 0, 1.0), ("32ms", 1, 4, 0.2), ("50ms", 0, 1, 0.0)]
    curve = [
        SearchPoint(
            value=value,
            held=held,
            broke=broke,
            share=share,
            fitted=share,
            low=max(0.0, share - 0.4),
            high=min(1.0, share + 0.4),
        )
        for value, held, broke, share in points
    ]
    trials = [
        SearchTrial(value=value, repeat=i + 1, outcome="held" if i < held else "broke", seconds=2.0)
        for value, held, broke, _ in points
        for i in range(held + broke)
    ]
    found = SearchResult(
        why="narrow enough",
        answer="found",
        borne="23ms",
        not_borne="32ms",
        estimate="27.1ms",
        confidence=0.9,
        pinned="20ms",
        text="latency 23ms is borne, 32ms is not",
        curve=curve,
    )
    return SearchState(spec=spec, trials=trials, result=found)  # fmt: skip


def full(run: Run) -> Run:
    """A recorded run with everything else that a run can have."""
    status = run.status
    start = status.started or 0.0
    status.targets = watched(start, 31, 10, 25)
    status.logs = lines(start, 31, 10, 25)
    status.nodes = nodes(start)
    points = status.points
    points.effective, points.impact, points.discovered = start + 10.0, start + 11, start + 14
    points.scores = [
        Scored(name="discovered", limit=60, took=3, points=100),
        Scored(name="located", limit=300, took=None),
        Scored(name="recovered", limit=600, measured=False),
    ]
    points.judged = [
        Judged(name="quick", text="recovered.at - effective.at < duration('10m')", ok=True),
        Judged(name="slow", text="a < b", ok=False, reason="12 s"),
        Judged(name="unknown", text="located.at > 0", reason="nobody located it"),
    ]
    points.score = 66.7
    return run


def long(run: Run) -> Run:
    """An hour with ten faults and names as long as they may be. TEST DATA."""
    status, hour = run.status, 3600
    start, one, probe = status.started or 0.0, run.status.faults[0], run.status.probes[0]
    status.ended = start + hour
    status.faults = [
        one.model_copy(
            update={
                "name": f"a-fault-with-quite-a-long-name-number-{i}",
                "fault": f"network.{'x' * 30}",
                "started": start + 300 + i * 250,
                "effective_at": start + 305 + i * 250,
                "recovery_started": start + 700 + i * 250,
                "recovered_at": start + 702 + i * 250,
            }
        )
        for i in range(10)
    ]
    probe.name = "a-probe-with-quite-a-long-name-of-its-own"[:40]
    probe.samples = [
        Sample(at=start + i, value=0.1 + 0.05 * math.sin(i / 50), ok=not 1000 < i < 1400)
        for i in range(hour)
    ]
    status.targets = watched(start, hour, 1000, 1400)
    for each in status.targets:
        each.seconds = bounded(each.seconds)
    status.targets[1].name = f"container {'y' * 110}"
    status.targets[1].words = f"container {'long name ' * 20}"
    status.logs = lines(start, 500, 100, 300)
    status.logs[0].source = f"file /{'deep/' * 30}"
    status.logs[0].lines[3].text = "x" * 1000
    return run


@pytest.fixture(scope="session")
def recorded() -> Read:
    """Reads a recorded run by name, fresh each time: tests may change it."""

    def read(name: str) -> Run:
        if name == LONG:
            return long(_recorded("run-held"))
        return full(_recorded("run-broke")) if name == FULL else _recorded(name)

    return read


@pytest.fixture(params=[*NAMES, FULL])
def run(request: pytest.FixtureRequest, recorded: Read) -> Run:
    """Each recorded run in turn, and one with everything."""
    return recorded(request.param)


@pytest.fixture
def held(recorded: Read) -> Run:
    return recorded("run-held")


@pytest.fixture
def broke(recorded: Read) -> Run:
    return recorded("run-broke")


@pytest.fixture
def complete(recorded: Read) -> Run:
    return recorded(FULL)
