"""What the report works out: the headline, the key figures, the answers, the proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from faultline.report import budgets, words
from faultline.report.chart import Panel
from faultline.report.story import FaultStory, ProbeStory, Story, between
from faultline.report.words import Answer

TABLE_ROWS = 40


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """The values of a probe in one stretch of the run: the median, and from lowest to highest."""

    middle: str
    spread: str


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """One line of the table of answers."""

    probe: ProbeStory
    answer: Answer
    counted: str
    before: Figure
    during: Figure
    after: Figure

    @property
    def is_guard(self) -> bool:
        return "guard" in self.probe.roles


@dataclass(frozen=True, slots=True)
class Table:
    """The curves of one panel as numbers, for whoever cannot see them."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def verdict(story: Story) -> Answer:
    """The verdict in a word with its sign; a run that has none says so."""
    if not story.verdict:
        return Answer("plain", "…", "Not finished")
    return words.answer(words.VERDICTS, story.verdict)


def sentence(story: Story) -> str:
    """What follows the word: the reason that the engine gave, or what can be said without it."""
    if story.reason:
        return story.reason
    plain = {
        "held": "the hypothesis held while every fault was in effect.",
        "broke": "the hypothesis did not hold.",
        "not effective": "the faults had no effect, so the hypothesis was not tested.",
        "not measured": "the hypothesis could not be measured, so there is no answer.",
        "error": "the run did not come to its end.",
        "": f"the run is in its phase {story.phase or 'pending'}.",
    }
    return plain.get(story.verdict, "")


def tiles(story: Story) -> list[Tile]:
    """The key figures, in the order in which they happened."""
    out = [_effect_tile(story.faults), _discovery_tile(story), _recovery_tile(story.faults)]
    if story.resolved is not None:
        silent = between(story.undone, story.resolved)
        out.append(Tile("Alarm ended", words.span(silent), "after recovery"))
    made = [c for f in story.faults for c in f.changes if c.made]
    settled = [c for c in made if c.state == "undone" and c.end not in ("left", "failed")]
    residue = sum(len(f.residue) for f in story.faults)
    tone = "bad" if residue else "good" if made and len(settled) == len(made) else ""
    left = words.plural(residue, "thing") + " left" if residue else "nothing left" if tone else ""
    out.append(
        Tile("Changes undone", f"{len(settled)} of {len(made)}" if made else words.NONE, left, tone)
    )
    for budget in story.budgets:
        spent = words.amount(budget.spent, "ratio")
        label = f"Budget {budget.name} spent"
        out.append(Tile(label, spent, budgets.note(budget), budget.tone))
    if story.score is not None:
        tone = "good" if story.score >= 80 else "warn" if story.score >= 50 else "bad"
        reached = sum(s.took is not None and s.took <= s.limit for s in story.scores)
        note = f"{reached} of {words.plural(sum(s.measured for s in story.scores), 'aim')} reached"
        out.append(Tile("Score", f"{words.significant(story.score)} of 100", note, tone))
    if story.traffic:
        sent, errors = sum(t.sent for t in story.traffic), sum(t.errors for t in story.traffic)
        share = (
            f"{words.plural(errors, 'error')} ({words.amount(errors / sent, 'ratio')})"
            if sent
            else ""
        )
        out.append(Tile("Requests", f"{sent:,}", share))
    return out


def _effect_tile(faults: Sequence[FaultStory]) -> Tile:
    known = [f.time_to_effect for f in faults if f.time_to_effect is not None]
    effective = sum(f.effect == "effective" for f in faults)
    note = f"{effective} of {words.plural(len(faults), 'fault')} effective"
    return Tile("Time to effect", words.span(max(known, default=None)), note)


def _discovery_tile(story: Story) -> Tile:
    began = story.effect_began
    if story.discovery:
        took = None if began is None or story.discovered is None else story.discovered - began
        note = f"by {story.discovery}" if took is not None else f"{story.discovery} never noticed"
        return Tile(
            "Time to discovery", words.span(took), note if began is not None else "no effect"
        )
    first = story.first_failure
    if began is None or first is None:
        return Tile(
            "First failed sample", words.NONE, "no effect" if began is None else "no probe failed"
        )
    return Tile("First failed sample", words.span(first - began), "after the effect")


def _recovery_tile(faults: Sequence[FaultStory]) -> Tile:
    known = [f.time_to_recovery for f in faults if f.time_to_recovery is not None]
    ends = {f.end for f in faults if f.end}
    if "needs a person" in ends:
        return Tile(
            "Time to recovery", words.span(max(known, default=None)), "needs a person", "bad"
        )
    return Tile("Time to recovery", words.span(max(known, default=None)), ", ".join(sorted(ends)))


def answers(story: Story) -> list[ProbeAnswer]:
    """Every probe with its values before, during and after the faults."""
    starts = [f.started for f in story.faults if f.started is not None]
    first = min(starts, default=story.length)
    effect = story.effect_began if story.effect_began is not None else first
    stops = [f.recovery for f in story.faults if f.recovery is not None]
    stop = min(stops, default=story.length)
    gone = story.undone if story.undone is not None else story.length
    table = {**words.VERDICTS, "": Answer("plain", "", "for the record")}
    out: list[ProbeAnswer] = []
    for probe in story.probes:
        judged = [s for s in probe.samples if s.counted and s.ok is not None]
        missing = sum(s.ok is None and s.counted for s in probe.samples)
        counted = (
            f"{sum(bool(s.ok) for s in judged):,} of {len(judged):,} as expected" if judged else ""
        )
        if missing:
            counted += f"{', ' if counted else ''}{missing:,} not measured"
        out.append(
            ProbeAnswer(
                probe,
                noticed(story)
                if probe.name == story.discovery
                else words.answer(table, probe.verdict),
                counted or "no sample",
                figure(probe, 0.0, first),
                figure(probe, effect, stop) if starts else Figure(words.NONE, ""),
                figure(probe, gone, story.length + 1.0),
            )
        )
    return out


def noticed(story: Story) -> Answer:
    """The answer of the discovery probe: when it told that the fault was noticed."""
    if story.discovered is None:
        return Answer("warn", "⊘", "never noticed")
    return Answer("good", "✓", f"noticed at {words.moment(story.discovered)}")


def figure(probe: ProbeStory, start: float, end: float) -> Figure:
    """The samples from `start` to `end` in two short texts."""
    found = [s for s in probe.samples if start <= s.at < end]
    values = [s.value for s in found if s.value is not None]
    judged = [s.ok for s in found if s.ok is not None]
    if values:
        failed = sum(s.ok is False and s.value is None for s in found)
        parts = [words.spread(min(values), max(values), probe.unit)]
        parts += [f"{failed:,} failed without a value"] if failed else []
        return Figure(
            words.amount(median(values), probe.unit), ", ".join(part for part in parts if part)
        )
    if judged:
        return Figure(f"{sum(judged):,} of {len(judged):,} ok", "")
    return Figure(words.NONE, "nothing measured" if found else "")


def deviation(fault: FaultStory) -> str:
    """Measured against asked: `+1.2 %`."""
    if fault.deviation is None:
        return words.NONE
    text = f"{fault.deviation * 100:+.1f} %".replace("-", "\N{MINUS SIGN}")
    return "0.0 %" if text[1:] == "0.0 %" else text


def residue(fault: FaultStory) -> tuple[str, str]:
    """The proof of recovery of one fault: a tone, and a sentence that claims what was checked."""
    if fault.residue:
        return (
            "bad",
            f"{words.plural(len(fault.residue), 'thing')} of this fault still found after recovery",
        )
    if fault.recovered is not None:
        after = words.span(fault.time_to_recovery)
        return (
            "good",
            f"Checked {after} after recovery began: nothing of this fault was found any more.",
        )
    if not any(c.made for c in fault.changes) and fault.end in ("", "nothing to undo"):
        return "plain", "It made no change, so there was nothing to undo."
    return "unknown", "It is not recorded that anybody looked for what is left of it."


def outcome(change_end: str) -> Answer:
    """How one undo ended, as an answer."""
    return words.answer(words.UNDONE, change_end)


def tables(panels: Sequence[Panel], length: float) -> list[Table]:
    """At most forty lines per panel: the middle value of each stretch of time."""
    step = max(length / TABLE_ROWS, 0.001)
    out: list[Table] = []
    for panel in panels:
        if not panel.plots:
            continue
        buckets: dict[int, list[list[float]]] = {}
        for index, series in enumerate(panel.series):
            for at, value in series.points:
                if value is not None:
                    row = buckets.setdefault(int(at / step), [[] for _ in panel.series])
                    row[index].append(value)
        rows = tuple(
            (
                words.moment(key * step),
                *(words.amount(median(c), panel.unit) if c else words.NONE for c in row),
            )
            for key, row in sorted(buckets.items())
        )
        out.append(Table(panel.title, ("from", *(s.name for s in panel.series)), rows))
    return out
