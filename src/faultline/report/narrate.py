"""From the stored document to the story: seconds since 1970 become seconds from the start, and what
the experiment asked for is laid beside what was measured.
"""

from __future__ import annotations

import math
from typing import Any

import yaml

from faultline.api.expectation import Expect, Unit, read_interval
from faultline.api.experiment import ExperimentSpec
from faultline.api.probe import ProbeSpec
from faultline.api.run import FaultStatus, ProbeStatus, Run, RunStatus
from faultline.errors import InvalidParameter
from faultline.report import budgets, found, gantt, loads, nodes, watched, words
from faultline.report.moments import Clock
from faultline.report.story import (
    ChangeStory,
    ChoiceStory,
    Event,
    Failure,
    FaultStory,
    Halted,
    Judgement,
    ProbeStory,
    Sample,
    ScoreLine,
    Story,
    Stretch,
)

_UNITS: dict[str, Unit] = {"": "", "s": "s", "ratio": "ratio", "B": "B"}
_ROLES = ("hypothesis", "steady state", "discovery", "guard")


def story(run: Run) -> Story:
    """What the document says, as a reader needs it."""
    status, spec = run.status, run.spec.resolved
    stamps = _stamps(status)
    clock = Clock(status.started if status.started is not None else min(stamps, default=0.0))
    ends = [*stamps, clock.start]
    if status.ended is not None:
        ends.append(status.ended)
    return Story(
        run=run.metadata.name,
        name=run.spec.experiment,
        title=spec.title,
        uid=run.metadata.uid,
        phase=str(status.phase),
        verdict=str(status.verdict) if status.verdict else "",
        reason=status.reason,
        description=spec.description,
        hypothesis=spec.hypothesis.text,
        began=status.started,
        length=clock.at(max(ends)),
        stopped=status.stopped,
        aborted=status.aborted,
        aborted_by=status.aborted_by,
        resumed=status.resumed,
        clock_step=_clock_step(status),
        events=tuple(Event(clock.at(p.at), p.event, p.node, p.text) for p in status.timeline),
        phases=_phases(status, clock),
        pauses=tuple(Halted(clock.at(p.at), clock.maybe(p.until), p.why) for p in status.pauses),
        faults=tuple(_fault(f, clock) for f in status.faults),
        choices=_choices(status),
        clusters=_clusters(status),
        probes=_probes(status, spec, clock),
        traffic=tuple(loads.told(t, _named(spec.traffic, t.name), clock) for t in status.traffic),
        budgets=budgets.budgets(status, spec, clock),
        failures=tuple(Failure(f.code, f.message, f.hint, f.node) for f in status.failures),
        discovery=spec.discovery.probe if spec.discovery else "",
        discovered=clock.maybe(status.discovered_at),
        resolved=clock.maybe(status.resolved_at),
        points=_points(status, clock),
        scores=_scores(status),
        score=status.points.score,
        judged=tuple(Judgement(j.name, j.text, j.ok, j.reason) for j in status.points.judged),
        bars=gantt.bars(status, clock),
        has_graph=bool(status.nodes),
        nodes=nodes.nodes(status.nodes, clock),
        searches=found.searches(status.nodes),
        targets=watched.targets(status.targets, clock),
        logs=watched.logs(status.logs, clock),
        environment=_environment(status),
        experiment=_yaml(run),
        creator=run.spec.creator,
        seed=run.spec.seed,
        repeats=run.spec.repeat.run if run.spec.repeat is not None else "",
    )


def _clusters(status: RunStatus) -> tuple[tuple[str, ...], ...]:
    """What came of the run in each of its clusters."""
    return tuple(
        (
            each.name,
            each.run or "-",
            f"lost: {each.phase}" if each.lost and not each.ended else each.verdict or each.phase,
            f"{each.effective} of {each.faults} faults effective",
            each.reason or each.error,
        )
        for each in status.clusters
    )


def _choices(status: RunStatus) -> tuple[ChoiceStory, ...]:
    """What selectors found, and what of it was hit."""
    return tuple(
        ChoiceStory(
            c.node,
            c.text,
            tuple(each.words for each in c.targets),
            tuple(each.words for each in c.rest),
            tuple(c.spared.items()),
        )
        for c in status.choices
    )


def _scores(status: RunStatus) -> tuple[ScoreLine, ...]:
    return tuple(
        ScoreLine(s.name, s.limit, s.took, s.points, s.measured) for s in status.points.scores
    )


def _stamps(status: RunStatus) -> list[float]:
    out = [p.at for p in status.timeline]
    out += [s.at for p in status.probes for s in p.samples]
    out += [s.at for t in status.traffic for s in t.seconds]
    for phase in status.phases:
        out += [stamp for stamp in (phase.started, phase.ended) if stamp is not None]
    return out


def _points(status: RunStatus, clock: Clock) -> tuple[tuple[str, float], ...]:
    """The time points that came, in order of time."""
    names = ("injected", "effective", "impact", "discovered", "located", "recovered")
    every = (*names, "resolved", "undone")
    known = ((name, getattr(status.points, name)) for name in every)
    found = [(name, clock.at(at)) for name, at in known if at is not None]
    return tuple(sorted(found, key=lambda point: point[1]))


def _clock_step(status: RunStatus) -> float:
    """How far wall clock and boot clock parted between the first and the last time point."""
    if len(status.timeline) < 2:
        return 0.0
    first, last = status.timeline[0], status.timeline[-1]
    return (last.at - first.at) - (last.boot_ns - first.boot_ns) / 1e9


def _phases(status: RunStatus, clock: Clock) -> tuple[Stretch, ...]:
    return tuple(
        Stretch(str(p.phase), clock.at(p.started), clock.maybe(p.ended))
        for p in status.phases
        if str(p.phase) != "ended"
    )


def _fault(fault: FaultStatus, clock: Clock) -> FaultStory:
    reading = fault.reading or {}
    values: dict[str, Any] = reading.get("values") or {}
    return FaultStory(
        name=fault.name,
        fault=fault.fault,
        uid=fault.uid,
        params=tuple((key, _plain(value)) for key, value in fault.params.items()),
        stage=str(fault.stage),
        started=clock.maybe(fault.started),
        injected=clock.maybe(fault.injected_at),
        effective=clock.maybe(fault.effective_at),
        recovery=clock.maybe(fault.recovery_started),
        recovered=clock.maybe(fault.recovered_at),
        effect=fault.effect or str(reading.get("effect") or ""),
        asked=str(reading.get("asked") or ""),
        measured=str(reading.get("measured") or ""),
        method=str(reading.get("method") or ""),
        reason=str(reading.get("reason") or ""),
        values=tuple((str(k), float(v)) for k, v in values.items() if isinstance(v, (int, float))),
        changes=tuple(ChangeStory(c.describe, c.undo, c.state, c.outcome) for c in fault.changes),
        residue=tuple(fault.residue),
        end=fault.end or "",
        error=fault.error,
        impact=clock.maybe(fault.impact_at),
        where=_where(fault),
    )


def _where(fault: FaultStatus) -> str:
    """What it acted on; nothing for the host, which needs no words."""
    if fault.aim is not None:
        return fault.aim.words
    return fault.target.words if fault.target is not None else ""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return ", ".join(_plain(item) for item in items)
    return str(value)


def _probes(status: RunStatus, spec: ExperimentSpec, clock: Clock) -> tuple[ProbeStory, ...]:
    """Probes of the hypothesis first, then as they were written."""
    told = [_probe(p, _named(spec.probes, p.name), clock) for p in status.probes]
    return tuple(sorted(told, key=lambda p: "hypothesis" not in p.roles))


def _probe(status: ProbeStatus, spec: ProbeSpec | None, clock: Clock) -> ProbeStory:
    expect = spec.expect if spec else None
    unit = _UNITS.get(status.unit, "")
    low, high = _bounds(expect, unit, status.initial)
    return ProbeStory(
        name=status.name,
        kind=spec.type if spec else "",
        mode=status.mode,
        figure=_figure(spec),
        unit=status.unit,
        roles=tuple(sorted(status.roles, key=lambda r: _ROLES.index(r) if r in _ROLES else 9)),
        expected=expectation(expect, unit),
        low=low,
        high=high,
        samples=tuple(
            Sample(clock.at(s.at), _finite(s.value), s.ok, s.text, s.counted)
            for s in status.samples
        ),
        verdict=status.verdict or "",
        reason=status.text,
        initial=status.initial,
        failed_at=clock.maybe(status.failed_at),
    )


def _finite(value: float | None) -> float | None:
    """Not a number is nothing measured."""
    return value if value is not None and math.isfinite(value) else None


def _figure(spec: ProbeSpec | None) -> str:
    if spec is None:
        return ""
    measure = getattr(spec, "measure", "")
    return f"{measure} of {spec.traffic}" if spec.type == "traffic" else measure or spec.figure


def _bounds(
    expect: Expect | None, unit: Unit, initial: float | None
) -> tuple[float | None, float | None]:
    """The expectation in the unit of the value: a relative one is laid around the initial value."""
    if expect is None or expect.interval is None or (expect.relative and initial is None):
        return None, None
    try:
        low, high = expect.bounds(unit)
    except InvalidParameter:
        return None, None  # shown in words; a band that we cannot place is not drawn
    if expect.relative == "difference":
        low, high = (initial or 0.0) + low, (initial or 0.0) + high
    elif expect.relative == "percent":
        size = abs(initial or 0.0) / 100
        low, high = (initial or 0.0) + low * size, (initial or 0.0) + high * size
    return (low if math.isfinite(low) else None, high if math.isfinite(high) else None)


def expectation(expect: Expect | None, unit: Unit) -> str:
    """`at most 300 ms`, `from 1 to 5`, or the expression as it was written."""
    if expect is None:
        return ""
    if expect.interval is None:
        return expect.cel or ""
    shown = "percent" if expect.relative == "percent" else unit
    try:
        low, high = read_interval(expect.interval, shown)
    except InvalidParameter:
        return expect.interval
    name = "" if shown == "" else "%" if shown == "percent" else shown
    least, most = words.amount(low, name), words.amount(high, name)
    if low == high:
        text = f"exactly {least}"
    elif math.isinf(low):
        text = f"at most {most}"
    else:
        text = f"at least {least}" if math.isinf(high) else f"{least} to {most}"
    return f"change {text}" if expect.relative else text


def _environment(status: RunStatus) -> tuple[tuple[str, str], ...]:
    env = status.environment
    if env is None:
        return ()
    memory = f"{env.memory / 2**30:.1f} GiB" if env.memory else ""
    cpu = f"{env.cpu}, {words.plural(env.cores, 'core')}" if env.cores else env.cpu
    pairs = [
        ("Host", env.hostname),
        ("Kernel", env.kernel),
        ("Distribution", env.distribution),
        ("Processor", cpu),
        ("Memory", memory),
        ("Control groups", env.cgroup),
        ("User", env.user),
        ("Faultline", env.faultline),
        ("Python", env.python),
        ("Boot", env.boot_id),
        *((f"Engine {name}", version) for name, version in status.engines.items()),
    ]
    return tuple((name, text) for name, text in pairs if text)


def _yaml(run: Run) -> str:
    document = {
        "apiVersion": run.api_version,
        "kind": "Experiment",
        "metadata": {"name": run.spec.experiment},
        "spec": _ordered(
            run.spec.resolved.model_dump(
                mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
            )
        ),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _ordered(value: Any) -> Any:
    """Names and types first, as a person writes them."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: {"name": 0, "type": 1}.get(k, 2))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownVariableType]
        return {k: _ordered(value[k]) for k in keys}  # pyright: ignore[reportUnknownVariableType]
    return [_ordered(item) for item in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def _named(items: list[Any], name: str) -> Any:
    """The part of the experiment of that name; None if the document has none."""
    return next((item for item in items if item.name == name), None)
