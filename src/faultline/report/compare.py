"""A run beside the one before it of the same experiment: what differs, and what has become worse.

A difference is called one only where it is larger than what runs differ in anyhow: a tenth and half
a second for times, a fifth and more than the earlier run's own spread for measured values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

from faultline.api.run import Run
from faultline.report import words
from faultline.report.narrate import story
from faultline.report.story import ProbeStory, Story, between
from faultline.stores.model import Filter, Store

SAME, BETTER, WORSE, OTHER = "same", "better", "worse", "other"
_PATHS = 8  # differences of the documents that are named


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of both runs."""

    what: str
    before: str
    now: str
    told: str  # the difference in words
    kind: str = SAME


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of one experiment."""

    run: str
    began: float | None
    lines: tuple[Line, ...]
    changed: tuple[str, ...] = ()  # of the experiment or of where it ran

    @property
    def regressions(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.kind == WORSE)

    @property
    def improvements(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.kind == BETTER)

    @property
    def sentence(self) -> str:
        """The comparison in one sentence."""
        worse, better = self.regressions, self.improvements
        if worse:
            named = "; ".join(f"{line.what}: {line.told}" for line in worse[:3])
            more = f"; and {len(worse) - 3} more" if len(worse) > 3 else ""
            return f"Regression: {named}{more}."
        if better:
            named = "; ".join(f"{line.what}: {line.told}" for line in better[:3])
            return f"Better than before: {named}."
        if any(line.kind == OTHER for line in self.lines):
            return "Nothing became worse or better; the table says what is different."
        return "Nothing differs by more than runs differ anyhow."


def previous(store: Store, run: Run) -> Run | None:
    """The latest ended run of the same experiment that was made earlier; None if there is none."""
    made = run.metadata.creation_timestamp
    asked = Filter(experiments=(run.spec.experiment,), until=made or None, ended=True)
    found = [
        each for each in store.summaries(Run, asked, limit=2) if each.name != run.metadata.name
    ]
    return store.get(Run, found[0].name) if found else None


def compare(run: Run, earlier: Run) -> Comparison:
    """Everything that both runs have a figure for."""
    now, then = story(run), story(earlier)
    lines = [
        _verdict(then, now),
        *_times(then, now),
        *_scores(then, now),
        *_probes(then, now),
        *_traffic(then, now),
        *_targets(then, now),
    ]
    return Comparison(
        then.run, then.began, tuple(each for each in lines if each), _changed(earlier, run)
    )


# ---------------------------------------------------------------------- verdict and times


def _verdict(then: Story, now: Story) -> Line | None:
    if not (then.verdict and now.verdict):
        return None
    kind, told = SAME, "the same"
    if then.verdict != now.verdict:
        kind, told = OTHER, f"{then.verdict} became {now.verdict}"
        if "held" in (then.verdict, now.verdict):
            kind = BETTER if now.verdict == "held" else WORSE
    return Line("verdict", then.verdict, now.verdict, told, kind)


def _spans(story: Story) -> dict[str, float | None]:
    """How long each of the things that should be quick took; None where it never came."""
    began = story.point("impact") or story.effect_began
    effects = [f.time_to_effect for f in story.faults if f.time_to_effect is not None]
    undos = [f.time_to_recovery for f in story.faults if f.time_to_recovery is not None]
    return {
        "time to effect": max(effects, default=None),
        "time to discovery": between(began, story.discovered),
        "time to location": between(began, story.point("located")),
        "time to recovery of the service": between(began, story.point("recovered")),
        "end of the alarm after recovery": between(story.undone, story.resolved),
        "time to undo": max(undos, default=None),
    }


def _times(then: Story, now: Story) -> list[Line]:
    wanted = {"time to discovery"} if now.discovery and now.effect_began is not None else set[str]()
    earlier, later = _spans(then), _spans(now)
    out: list[Line] = []
    for name, took in later.items():
        was = earlier[name]
        if took is None and was is None:
            continue
        shown = (words.span(was), words.span(took))
        if took is None or was is None:
            kind = OTHER
            if name in wanted:
                kind = WORSE if took is None else BETTER
            told = "it did not come this time" if took is None else "it had not come before"
            out.append(Line(name, *shown, told, kind))
            continue
        difference = took - was
        if abs(difference) <= max(0.5, was * 0.1):
            out.append(Line(name, *shown, "as before"))
        else:
            told = f"{words.span(abs(difference))} {'later' if difference > 0 else 'sooner'}"
            ours = name in ("time to effect", "time to undo")
            kind = OTHER if ours else WORSE if difference > 0 else BETTER
            out.append(Line(name, *shown, told, kind))
    return out


def _scores(then: Story, now: Story) -> list[Line]:
    if then.score is None or now.score is None:
        return []
    difference = now.score - then.score
    kind = SAME if abs(difference) < 1 else BETTER if difference > 0 else WORSE
    told = "as before" if kind == SAME else f"{words.significant(abs(difference))} points "
    told += "" if kind == SAME else "more" if difference > 0 else "fewer"
    shown = (words.significant(then.score), words.significant(now.score))
    return [Line("score", *shown, told, kind)]


# ---------------------------------------------------------------------- measured values


def _during(story: Story, points: Sequence[tuple[float, float | None]]) -> list[float]:
    """The values while the faults were in effect; all of them where there was none."""
    begin = story.effect_began if story.effect_began is not None else story.faults_began
    stops = [f.recovery for f in story.faults if f.recovery is not None]
    low, high = (begin or 0.0), max(stops, default=story.length)
    return [value for at, value in points if value is not None and low <= at <= high]


def _probes(then: Story, now: Story) -> list[Line]:
    earlier = {probe.name: probe for probe in then.probes}
    out: list[Line] = []
    for probe in now.probes:
        old = earlier.get(probe.name)
        if old is None or probe.name == now.discovery:
            continue
        if old.verdict and probe.verdict and old.verdict != probe.verdict:
            kind = BETTER if probe.verdict == "held" else WORSE if old.verdict == "held" else OTHER
            told = f"{old.verdict} became {probe.verdict}"
            out.append(Line(probe.name, old.verdict, probe.verdict, told, kind))
        out += _shares(old, probe)
        values = _during(then, old.points), _during(now, probe.points)
        if all(values):
            name = f"{probe.name}, median while in effect"
            out.append(_values(name, *values, probe.unit, _worse(probe)))
    return out


def _shares(old: ProbeStory, new: ProbeStory) -> list[Line]:
    """The share of samples that were as expected."""

    def share(probe: ProbeStory) -> float | None:
        judged = [s.ok for s in probe.samples if s.counted and s.ok is not None]
        return sum(judged) / len(judged) if judged else None

    was, is_ = share(old), share(new)
    if was is None or is_ is None or (was == is_ == 1.0):
        return []
    difference = is_ - was
    kind = SAME if abs(difference) < 0.05 else BETTER if difference > 0 else WORSE
    told = "as before" if kind == SAME else f"{abs(difference) * 100:.0f} points "
    told += "" if kind == SAME else "more" if difference > 0 else "fewer"
    shown = (words.amount(was, "ratio"), words.amount(is_, "ratio"))
    return [Line(f"{new.name}, samples as expected", *shown, told, kind)]


def _worse(probe: ProbeStory) -> int:
    """Which way is worse: 1 larger, -1 smaller, 0 where the expectation does not tell."""
    if probe.high is not None and (probe.low is None or probe.low <= 0):
        return 1
    return -1 if probe.low is not None and probe.high is None else 0


def _values(name: str, then: Sequence[float], now: Sequence[float], unit: str, worse: int) -> Line:
    was, is_ = median(then), median(now)
    shown = (words.amount(was, unit), words.amount(is_, unit))
    within = min(then) <= is_ <= max(then)
    small = abs(is_ - was) <= 0.2 * abs(was)
    if small or within or was == is_:
        told = "as before" if small else "within what it varied by before"
        return Line(name, *shown, told)
    more = is_ > was
    told = f"{abs(is_ / was - 1) * 100:.0f} % {'more' if more else 'less'}" if was else "more"
    if was and is_ / was >= 2:
        told = f"{words.significant(is_ / was, 2)} times as much"
    if not worse:
        return Line(name, *shown, told, OTHER)
    return Line(name, *shown, told, WORSE if more == (worse > 0) else BETTER)


def _traffic(then: Story, now: Story) -> list[Line]:
    earlier = {load.name: load for load in then.traffic}
    out: list[Line] = []
    for load in now.traffic:
        old = earlier.get(load.name)
        if old is None or not (old.sent and load.sent):
            continue
        slow = _during(then, [(r.at, r.p95) for r in old.rows])
        if slow and (slower := _during(now, [(r.at, r.p95) for r in load.rows])):
            out.append(_values(f"{load.name}, p95 while in effect", slow, slower, "s", 1))
        was, is_ = old.errors / old.sent, load.errors / load.sent
        if was or is_:
            difference = is_ - was
            kind = SAME if abs(difference) < 0.01 else WORSE if difference > 0 else BETTER
            told = "as before" if kind == SAME else "more" if difference > 0 else "fewer"
            shown = (words.amount(was, "ratio"), words.amount(is_, "ratio"))
            out.append(Line(f"{load.name}, errors", *shown, told, kind))
    return out


def _targets(then: Story, now: Story) -> list[Line]:
    """What the targets used: different is neither better nor worse."""
    earlier = {target.name: target for target in then.targets}
    out: list[Line] = []
    for target in now.targets:
        old = earlier.get(target.name)
        if old is None:
            continue
        for curve, name, unit in (("cpu", "cores busy", ""), ("memory", "memory", "B")):
            values = _during(then, old.points(curve)), _during(now, target.points(curve))
            if all(values):
                out.append(_values(f"{target.name}, {name} while in effect", *values, unit, 0))
    return out


# ---------------------------------------------------------------------- the documents


def _changed(earlier: Run, run: Run) -> tuple[str, ...]:
    """Where the experiments differ, and what else would explain a difference."""
    asked, now_asked = (
        each.spec.resolved.model_dump(mode="json", by_alias=True) for each in (earlier, run)
    )
    found = [
        path for path in _differences(asked, now_asked, "") if path not in ("title", "description")
    ]
    out = [f"the experiment: {path}" for path in found[:_PATHS]]
    if len(found) > _PATHS:
        out.append(f"the experiment: {len(found) - _PATHS} more fields")
    then, now = earlier.status.environment, run.status.environment
    for name in ("hostname", "kernel", "faultline", "cores", "cgroup"):
        was, is_ = getattr(then, name, ""), getattr(now, name, "")
        if was and is_ and was != is_:
            out.append(f"{name}: {was} became {is_}")
    return tuple(out)


def _differences(one: Any, other: Any, path: str) -> list[str]:
    if one == other:
        return []
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        inside = [(key, left.get(key), right.get(key)) for key in {**left, **right}]
    elif isinstance(one, list) and isinstance(other, list):
        first, second = cast("list[Any]", one), cast("list[Any]", other)
        if len(first) == len(second):
            pairs = enumerate(zip(first, second, strict=True))
            inside = [(str(index), *pair) for index, pair in pairs]
    if not inside:
        return [path.lstrip(".")]
    return [found for key, was, is_ in inside for found in _differences(was, is_, f"{path}.{key}")]
