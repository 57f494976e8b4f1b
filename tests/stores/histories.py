"""Runs as a store meets them, made up: with series, labels, verdicts and times."""

from __future__ import annotations

from functools import cache
from typing import Any

from faultline.api.document import read
from faultline.api.model import Metadata
from faultline.api.run import Phase, Point, ProbeStatus, Run, RunStatus, Sample, Verdict
from faultline.api.traffic import TrafficSecond, TrafficStatus

BEGAN = 1_700_000_000.0
VERDICTS = tuple(Verdict)
SPEC: dict[str, Any] = {
    "title": "A trial",
    "hypothesis": {"text": "it holds", "probes": ["p0"]},
    "probes": [{"type": "tcp", "name": "p0", "host": "::1", "port": 1}],
    "faults": [{"name": "f", "fault": "file.add", "params": {"path": "/tmp/x"}}],
}


@cache
def _document() -> dict[str, Any]:
    return {"kind": "Run", "spec": {"experiment": "", "resolved": SPEC}}


def sample(index: int) -> Sample:
    return Sample(at=BEGAN + index, value=0.1234567 * index, ok=True, latency=0.00123 * index)


def second(index: int) -> TrafficSecond:
    times = {"p50": 0.00123, "p90": 0.00234, "p95": 0.00345, "p99": 0.00456, "max": 0.01234}
    return TrafficSecond(at=BEGAN + index, sent=100, ok=100, **times)


def point(index: int) -> Point:
    return Point(at=BEGAN + index, boot_ns=index, event="phase", text=f"point {index}")


def status(seconds: int = 20, probes: int = 2, ended: float | None = None) -> RunStatus:
    """What a run of so many seconds has measured."""
    return RunStatus(
        phase=Phase.WAIT if ended is None else Phase.ENDED,
        started=BEGAN,
        ended=ended,
        timeline=[point(index) for index in range(min(seconds, 10))],
        probes=[
            ProbeStatus(name=f"p{number}", samples=[sample(each) for each in range(seconds)])
            for number in range(probes)
        ],
        traffic=[TrafficStatus(name="t", seconds=[second(each) for each in range(seconds)])],
    )


def run(name: str, index: int = 0, seconds: int = 20, *, ended: bool = True) -> Run:
    """The index-th run of a history: five verdicts and ten experiments take turns."""
    experiment = f"experiment-{index % 10}"
    data = {
        **_document(),
        "metadata": {
            "name": name,
            "labels": {"experiment": experiment, "team": f"team-{index % 7}"},
        },
        "spec": {"experiment": experiment, "resolved": SPEC, "creator": f"person-{index % 3}"},
    }
    made = read(Run, data)
    now = status(seconds, ended=BEGAN + index if ended else None)
    if ended:
        now.verdict = VERDICTS[index % len(VERDICTS)]
        now.reason = f"the probe number {index} said so"
    return made.model_copy(update={"status": now})


def metadata(name: str, **labels: str) -> Metadata:
    return Metadata(name=name, labels=labels)
