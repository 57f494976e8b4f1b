"""Which panels a run gets: phases and faults as bars, then every probe and every load as curves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from faultline.report import budgets, gantt, words
from faultline.report.chart import Frame, Panel, Tick, Wanted, panel
from faultline.report.found import TRIALS
from faultline.report.resources import curves_of, lines_of
from faultline.report.series import Point, Series
from faultline.report.story import FaultStory, ProbeStory, Story, TrafficStory
from faultline.report.words import Answer

_TONES = {
    "admission": 0,
    "traffic": 1,
    "steady state": 2,
    "injection": 3,
    "effect": 4,
    "wait": 5,
    "recovery": 6,
    "recovery check": 7,
    "cooldown": 8,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time; start and width in percent of the run."""

    start: float
    width: float
    kind: str
    label: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Tip:
    """A time point on a row; place in percent."""

    place: float
    at: float
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the Gantt chart."""

    label: str
    depth: int
    kind: str
    answer: Answer
    start: float | None
    length: float | None
    bars: tuple[Bar, ...]
    tips: tuple[Tip, ...]
    notes: tuple[str, ...]
    text: str
    style: str = ""  # classes of the style sheet: group, stopped, never, skipped
    idle: float = 0.0  # for how many seconds of it the run was paused

    @property
    def stopped(self) -> bool:
        """Whether it was given up while it ran."""
        return self.start is not None and "stopped" in self.style.split()


@dataclass(frozen=True, slots=True)
class PhaseBar:
    """One phase in the phase bar, with its number, since a word does not fit into a short one."""

    number: int
    name: str
    bar: Bar
    start: float
    length: float | None
    tone: int
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """The whole picture with one shared axis of seconds from the start."""

    length: float
    ticks: tuple[Tick, ...]
    phases: tuple[PhaseBar, ...]
    rows: tuple[Row, ...]
    done: str  # what the rows are
    points: tuple[Tip, ...]
    bands: tuple[Bar, ...]
    pauses: tuple[Bar, ...]
    panels: tuple[Panel, ...]
    around: tuple[float, float] | None  # the stretch around the faults, percent: start and width


def timeline(story: Story) -> Timeline:
    """Everything that is drawn, in the order in which it is read."""
    frame = Frame(max(story.length, 0.001))
    panels = [_probe(frame, i, probe) for i, probe in enumerate(story.probes)]
    panels += [budgets.drawn(frame, i, budget) for i, budget in enumerate(story.budgets)]
    for index, traffic in enumerate(story.traffic):
        panels.extend(_traffic(frame, index, traffic))
    for index, target in enumerate(story.targets):
        panels += curves_of(frame, index, target)
    panels += [lines_of(frame, index, log) for index, log in enumerate(story.logs) if log.dated]
    bands = [bar for fault in story.faults for bar in _edges(frame, fault)]
    return Timeline(
        length=frame.length,
        ticks=tuple(frame.ticks()),
        phases=_phases(frame, story),
        rows=tuple(_row(frame, story, bar) for bar in story.bars),
        done="Nodes" if story.has_graph else "Faults" if len(story.bars) > 1 else "Fault",
        points=_points(frame, story),
        bands=tuple(dict.fromkeys(bands)),
        pauses=_pauses(frame, story),
        panels=tuple(panels),
        around=_around(frame, story),
    )


def _bar(frame: Frame, start: float, end: float, kind: str, label: str = "") -> Bar:
    left = frame.percent(start)
    return Bar(left, max(round(frame.percent(end) - left, 3), 0.0), kind, label)


def _pauses(frame: Frame, story: Story) -> tuple[Bar, ...]:
    """The bands over everything while the run was paused."""
    found: list[Bar] = []
    for pause in story.pauses:
        end = frame.length if pause.end is None else pause.end
        why = f": {pause.why}" if pause.why else ""
        label = f"paused for {words.span(end - pause.start)}{why}"
        found.append(_bar(frame, pause.start, end, "paused", label))
    return tuple(found)


def _phases(frame: Frame, story: Story) -> tuple[PhaseBar, ...]:
    out: list[PhaseBar] = []
    for number, phase in enumerate(story.phases, 1):
        end = frame.length if phase.end is None else phase.end
        length = None if phase.end is None else phase.end - phase.start
        bar = _bar(frame, phase.start, end, "phase", phase.name)
        tone, idle = _TONES.get(phase.name, 9), story.idle(phase.start, end)
        out.append(PhaseBar(number, phase.name, bar, phase.start, length, tone, idle))
    return tuple(out)


def _edges(frame: Frame, fault: FaultStory) -> tuple[Bar, ...]:
    """The band behind the curves while a fault rose, was in effect, and fell."""
    if fault.started is None:
        return ()
    last = fault.recovered if fault.recovered is not None else frame.length
    undo = fault.recovery if fault.recovery is not None else last
    effective = fault.effective if fault.effective is not None else undo
    bars = (
        _bar(frame, fault.started, effective, "rising"),
        _bar(frame, effective, undo, "active"),
        _bar(frame, undo, last, "falling"),
    )
    return tuple(bar for bar in bars if bar.width > 0)


def _row(frame: Frame, story: Story, bar: gantt.Bar) -> Row:
    parts = bar.parts
    if not parts and bar.start is not None:
        parts = (gantt.Part(bar.start, bar.end, "attempt"),)
    known = {**TRIALS, **words.STATES, **words.EFFECTS, **words.VERDICTS}
    answer = words.answer(known, bar.state)
    bars = [
        replace(
            _bar(frame, part.start, frame.length if part.end is None else part.end, part.style),
            tone=words.answer(known, part.state).tone if part.state else answer.tone,
        )
        for part in parts
    ]
    length = None if bar.start is None or bar.end is None else bar.end - bar.start
    tips = tuple(Tip(frame.percent(mark.at), mark.at, mark.name) for mark in bar.marks)
    return Row(
        bar.label,
        min(bar.depth, gantt.DEEPEST),
        bar.kind,
        answer,
        bar.start,
        length,
        tuple(bars),
        tips,
        bar.notes,
        bar.text,
        _style(bar),
        story.idle(bar.start, bar.end),
    )


def _style(bar: gantt.Bar) -> str:
    named = (
        (bar.holds, "group"),
        (bar.stopped, "stopped"),
        (bar.start is None, "never"),
        (bar.state == "skipped", "skipped"),
    )
    return " ".join(name for known, name in named if known)


def _points(frame: Frame, story: Story) -> tuple[Tip, ...]:
    """The time points of the service and its people; without them the rows say everything."""
    mine = ("impact", "discovered", "located", "recovered", "resolved")
    if not any(name in mine for name, _ in story.points):
        return ()
    return tuple(Tip(frame.percent(at), at, name) for name, at in story.points)


def _around(frame: Frame, story: Story) -> tuple[float, float] | None:
    starts = [f.started for f in story.faults if f.started is not None]
    if not starts:
        return None
    ends = [f.recovered for f in story.faults if f.recovered is not None] or [frame.length]
    first, last = min(starts), max(ends)
    air = max((last - first) * 0.15, frame.length * 0.02)
    left, right = frame.percent(first - air), frame.percent(last + air)
    return (left, round(right - left, 3)) if right - left < 90 else None


def _probe(frame: Frame, index: int, probe: ProbeStory) -> Panel:
    failures = tuple((s.at, s.value) for s in probe.failed)
    note = ", ".join(part for part in (probe.kind, probe.figure) if part)
    if not any(s.value is not None for s in probe.samples) and any(
        s.ok is not None for s in probe.samples
    ):
        points: tuple[Point, ...] = tuple(
            (s.at, None if s.ok is None else float(s.ok)) for s in probe.samples
        )
        series = Series("answer", points, "a", "steps")
        wanted = Wanted(
            f"probe{index}",
            probe.name,
            "",
            (series,),
            note=note,
            failures=tuple((at, 0.0) for at, _ in failures),
            labels=((1.0, "ok"), (0.0, "failed")),
            size="low",
        )
        return panel(frame, wanted)
    wanted = Wanted(
        f"probe{index}",
        probe.name,
        probe.unit,
        (Series("value", probe.points, "a"),),
        note=note,
        low=probe.low,
        high=probe.high,
        failures=failures,
        log=probe.unit == "s",
        empty="this probe has no sample",
    )
    return panel(frame, wanted)


def _traffic(frame: Frame, index: int, load: TrafficStory) -> list[Panel]:
    rows = load.rows
    names = (("p50", "a"), ("p95", "b"), ("p99", "c"), ("max", "d"))
    latency = tuple(
        Series(name, tuple((r.at, getattr(r, name)) for r in rows), style) for name, style in names
    )
    rates = (
        Series("sent", tuple((r.at, r.sent) for r in rows), "a"),
        Series("answered", tuple((r.at, r.ok) for r in rows), "b"),
        Series("errors", tuple((r.at, r.errors) for r in rows), "errors", "bars"),
    )
    out = [
        panel(
            frame,
            Wanted(
                f"latency{index}",
                f"{load.name}: latency",
                "s",
                tuple(s for s in latency if s.values),
                log=True,
                size="tall",
                empty="no request was answered",
            ),
        ),
        panel(
            frame,
            Wanted(
                f"rate{index}",
                f"{load.name}: requests",
                "/s",
                tuple(s for s in rates if s.shape == "line" or any(s.values)) if rows else (),
                note="per second",
                empty="no request was sent",
            ),
        ),
    ]
    if load.doubtful:
        lag = Series("lag", tuple((r.at, r.lag) for r in rows), "lag")
        note = "how late the generator itself was"
        out.append(
            panel(
                frame,
                Wanted(f"lag{index}", f"{load.name}: own lag", "s", (lag,), note=note, size="low"),
            )
        )
    return out
