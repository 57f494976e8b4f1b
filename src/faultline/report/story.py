"""The run as its reader meets it: plain, typed, in seconds from the start; nothing about layout.

`narrate` makes it from the stored document, the pages draw it. So a new field of the document
touches one module, and a page never asks what shape something was stored in.
"""

from __future__ import annotations

from dataclasses import dataclass

from faultline.report.budgets import BudgetStory
from faultline.report.found import SearchStory
from faultline.report.gantt import Bar
from faultline.report.nodes import NodeStory
from faultline.report.series import Point
from faultline.report.watched import LogStory, TargetStory


@dataclass(frozen=True, slots=True)
class Event:
    """One time point of the run."""

    at: float
    event: str
    node: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One phase of the life cycle; `end` is None for one that never ended."""

    name: str
    start: float
    end: float | None


@dataclass(frozen=True, slots=True)
class Halted:
    """A time in which the run was paused: nothing new began. `end` is None if it never went on."""

    start: float
    end: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ChangeStory:
    """One change: what was made, what undoes it, how its undo ended."""

    describe: str
    undo: str = ""
    state: str = ""
    outcome: str = ""

    @property
    def made(self) -> bool:
        return self.state not in ("", "planned")

    @property
    def end(self) -> str:
        """The first word of the outcome, one of `changes.model.Undone`; empty if never undone."""
        return (
            self.outcome.split(maxsplit=1)[0].rstrip(":;,.").lower() if self.outcome.strip() else ""
        )


@dataclass(frozen=True, slots=True)
class FaultStory:
    """One fault: asked against measured, its four edges, its changes."""

    name: str
    fault: str
    uid: str
    params: tuple[tuple[str, str], ...] = ()
    stage: str = ""
    started: float | None = None
    injected: float | None = None
    effective: float | None = None
    recovery: float | None = None
    recovered: float | None = None
    effect: str = ""
    asked: str = ""
    measured: str = ""
    method: str = ""
    reason: str = ""
    values: tuple[tuple[str, float], ...] = ()
    changes: tuple[ChangeStory, ...] = ()
    residue: tuple[str, ...] = ()
    end: str = ""
    error: str = ""
    impact: float | None = None  # when the service itself was first hurt
    where: str = ""  # the one of its targets that a selector chose

    @property
    def time_to_effect(self) -> float | None:
        return between(self.started, self.effective)

    @property
    def time_to_recovery(self) -> float | None:
        return between(self.recovery, self.recovered)

    @property
    def deviation(self) -> float | None:
        """Measured against asked as a share; None where the reading has not both."""
        values = dict(self.values)
        asked, measured = values.get("asked"), values.get("measured")
        return None if not asked or measured is None else measured / asked - 1

    @property
    def unremarkable(self) -> bool:
        """Whether one line says all: it did what was asked, and nothing of it is left."""
        gone = self.end == "recovered" and self.recovered is not None and not self.residue
        return self.effect == "effective" and gone and not self.error


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of a probe: the value it read, or None and the reason in `text`."""

    at: float
    value: float | None
    ok: bool | None
    text: str = ""
    counted: bool = True


@dataclass(frozen=True, slots=True)
class ProbeStory:
    """One probe: what was expected, every sample, the answer."""

    name: str
    kind: str = ""
    mode: str = ""
    figure: str = ""
    unit: str = ""
    roles: tuple[str, ...] = ()
    expected: str = ""
    low: float | None = None
    high: float | None = None
    samples: tuple[Sample, ...] = ()
    verdict: str = ""
    reason: str = ""
    initial: float | None = None
    failed_at: float | None = None

    @property
    def failed(self) -> tuple[Sample, ...]:
        return tuple(s for s in self.samples if s.ok is False and s.counted)

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple((s.at, s.value) for s in self.samples)


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """One second of a load; latencies in seconds from the intended send time."""

    at: float
    sent: float
    ok: float
    errors: float
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    lag: float


@dataclass(frozen=True, slots=True)
class LoadPart:
    """One kind of request of a load: a step of a scenario, a command, a statement."""

    name: str
    sent: int
    ok: int
    errors: int
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class TrafficStory:
    """One load: its seconds and its totals."""

    name: str
    target: str = ""
    model: str = ""
    rows: tuple[TrafficRow, ...] = ()
    sent: int = 0
    ok: int = 0
    errors: int = 0
    seconds: float = 0.0
    latencies: tuple[tuple[str, float | None], ...] = ()  # ('p50', seconds) ...
    lag: float | None = None  # the worst of the generator's own lag, seconds
    causes: tuple[tuple[str, int], ...] = ()  # errors by what they were
    text: str = ""
    parts: tuple[LoadPart, ...] = ()

    @property
    def doubtful(self) -> bool:
        """Whether the generator was late by more than 5 ms and a tenth of the p95 it reports."""
        p95 = dict(self.latencies).get("p95")
        return self.lag is not None and self.lag > max(0.005, 0.1 * (p95 or 0.0))


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One line of a score: how long something might take, and how long it took."""

    name: str
    limit: float  # seconds from the effect
    took: float | None = None
    points: float = 0.0
    measured: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """One expression over the time points."""

    name: str
    text: str
    ok: bool | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of ours, or a refusal."""

    code: str
    message: str
    hint: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class ChoiceStory:
    """What the selector of a fault found: who was hit, who was not, who is never hit."""

    node: str
    text: str
    hit: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    spared: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """One run."""

    run: str
    name: str
    title: str
    uid: str = ""
    phase: str = ""
    verdict: str = ""
    reason: str = ""
    description: str = ""
    hypothesis: str = ""
    began: float | None = None  # seconds since 1970
    length: float = 0.0
    stopped: str = ""  # why it ended early; an abort is one reason of several
    aborted: str = ""
    aborted_by: str = ""
    resumed: int = 0
    clock_step: float = 0.0  # how far the wall clock was set while the run went on, seconds
    events: tuple[Event, ...] = ()
    phases: tuple[Stretch, ...] = ()
    pauses: tuple[Halted, ...] = ()
    faults: tuple[FaultStory, ...] = ()
    choices: tuple[ChoiceStory, ...] = ()
    clusters: tuple[tuple[str, ...], ...] = ()  # name, run, how it ended, effect, why
    probes: tuple[ProbeStory, ...] = ()
    traffic: tuple[TrafficStory, ...] = ()
    budgets: tuple[BudgetStory, ...] = ()
    failures: tuple[Failure, ...] = ()
    discovery: str = ""  # the probe that tells that the fault was noticed
    discovered: float | None = None
    resolved: float | None = None  # when it told no more, after recovery
    points: tuple[tuple[str, float], ...] = ()  # effective, impact, discovered, ... that came
    scores: tuple[ScoreLine, ...] = ()
    score: float | None = None  # 0 to 100
    judged: tuple[Judgement, ...] = ()
    bars: tuple[Bar, ...] = ()
    has_graph: bool = False  # whether the bars are nodes
    nodes: tuple[NodeStory, ...] = ()
    searches: tuple[SearchStory, ...] = ()
    targets: tuple[TargetStory, ...] = ()
    logs: tuple[LogStory, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    experiment: str = ""  # YAML
    creator: str = ""
    seed: int | None = None  # what its choices were drawn from
    repeats: str = ""  # the run that it is a replay of

    def idle(self, start: float | None = 0.0, end: float | None = None) -> float:
        """For how many seconds of a stretch the run was paused; without an end, until its own."""
        if start is None:
            return 0.0
        until = self.length if end is None else end
        return sum(
            max(0.0, min(self.length if p.end is None else p.end, until) - max(p.start, start))
            for p in self.pauses
        )

    @property
    def effect_began(self) -> float | None:
        """When the first fault was measured as effective."""
        return min((f.effective for f in self.faults if f.effective is not None), default=None)

    @property
    def faults_began(self) -> float | None:
        """When the first fault was asked for."""
        return min((f.started for f in self.faults if f.started is not None), default=None)

    def point(self, name: str) -> float | None:
        """One of the time points, by its name."""
        return dict(self.points).get(name)

    @property
    def undone(self) -> float | None:
        """When the last fault was found gone."""
        return max((f.recovered for f in self.faults if f.recovered is not None), default=None)

    @property
    def first_failure(self) -> float | None:
        """When a probe first failed after the first effect."""
        began = self.effect_began
        if began is None:
            return None
        return min((s.at for p in self.probes for s in p.failed if s.at >= began), default=None)


def between(first: float | None, second: float | None) -> float | None:
    """The time from one point to another; None if either is not known."""
    return None if first is None or second is None else max(0.0, second - first)
