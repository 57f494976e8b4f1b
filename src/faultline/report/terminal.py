"""The run on a terminal: the same answers as the page, with curves out of block characters."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from faultline.report import listing, page, words
from faultline.report.compare import Comparison
from faultline.report.found import SearchStory
from faultline.report.series import Point, runs, with_gaps
from faultline.report.story import FaultStory, ProbeStory, Story, TrafficStory

BLOCKS = "▁▂▃▄▅▆▇█"
GAP = "·"
_CURVE = 48
_MANY = 6  # faults that are told one by one
_DRAWN = 12  # faults that have a line of their own under the curves
_LISTED = 20


def summary(story: Story, width: int, comparison: Comparison | None = None) -> str:
    """The whole page; `width` columns at least 40."""
    width = max(width, 40)
    verdict = page.verdict(story)
    parts = [
        [*_wrap(f"{verdict.sign} {verdict.word}: {clean(page.sentence(story))}", width)],
        [
            *_wrap(
                f"{clean(story.title)}, {words.clock(story.began)}, "
                f"took {words.lasting(story.length, story.idle())}",
                width,
            )
        ],
        _notes(story, width),
        ["Hypothesis", *_wrap(clean(story.hypothesis), width, "  ")],
        _curves(story, width),
        _clusters(story, width),
        _nodes(story, width),
        *(_search(search, width) for search in story.searches),
        _choices(story, width),
        *_faults(story.faults, width),
        *(_traffic(load, width) for load in story.traffic),
        _figures(story),
        _compared(comparison, width) if comparison else [],
    ]
    return "\n\n".join("\n".join(map(_harmless, part)) for part in parts if part) + "\n"


def clean(text: str) -> str:
    """One line without control characters and doubled spaces."""
    return " ".join(_harmless(text).split())


def _harmless(line: str) -> str:
    """A document must not steer the terminal that shows it: no control or format characters."""
    return "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in line)


def sparkline(points: Sequence[Point], length: float, columns: int = _CURVE) -> str:
    """The largest value of each column as a block; where nothing was measured there is a dot."""
    shares = columns / max(length, 1e-9)
    buckets: list[float | None] = [None] * columns
    for run in runs(with_gaps(points)):
        for at, value in run:
            column = _column(at * shares, columns)
            buckets[column] = max(value, buckets[column] or value)
        first, last = (_column(at * shares, columns) for at in (run[0][0], run[-1][0]))
        for column in range(first, last):  # fewer samples than columns: the last value stands
            if buckets[column] is None:
                buckets[column] = buckets[column - 1]
    known = [v for v in buckets if v is not None]
    if not known:
        return GAP * columns
    low, high = min(0.0, *known), max(known)
    size = (high - low) or 1.0
    return "".join(GAP if v is None else BLOCKS[min(int((v - low) / size * 8), 7)] for v in buckets)


def _column(place: float, columns: int) -> int:
    return min(max(int(place), 0), columns - 1)


def bar(fault: FaultStory, length: float, columns: int = _CURVE) -> str:
    """When the fault was in effect, under the curves."""
    if fault.started is None:
        return " " * columns
    stop = fault.recovered if fault.recovered is not None else length
    scale = columns / max(length, 1e-9)
    first = min(int(fault.started * scale), columns - 1)
    last = min(max(int(stop * scale), first + 1), columns)
    return " " * first + "━" * (last - first) + " " * (columns - last)


def _notes(story: Story, width: int) -> list[str]:
    out: list[str] = []
    if story.aborted:
        by = f" by {clean(story.aborted_by)}" if story.aborted_by else ""
        out += _wrap(f"! Aborted{by}: {clean(story.aborted)}", width)
    if story.stopped and story.stopped != story.aborted:
        out += _wrap(f"! Ended early: {clean(story.stopped)}", width)
    if story.repeats:
        out += _wrap(f"It repeats {clean(story.repeats)}.", width)
    for failure in story.failures:
        hint = f" ({clean(failure.hint)})" if failure.hint else ""
        out += _wrap(f"! {clean(failure.code)}: {clean(failure.message)}{hint}", width)
    for load in story.traffic:
        if load.doubtful:
            out += _wrap(
                f"! Read the latencies of {clean(load.name)} with doubt: the generator itself was "
                f"late by up to {words.span(load.lag)}.",
                width,
            )
    return out


def _curves(story: Story, width: int) -> list[str]:
    names = [p.name for p in story.probes] + [f.name for f in story.faults]
    room = min(max((len(clean(n)) for n in names), default=0), 24)
    columns = max(min(_CURVE, width - room - 26), 12)
    out: list[str] = []
    for row in page.answers(story):
        probe = row.probe
        curve = sparkline(_drawable(probe), story.length, columns)
        out.append(
            f"  {_cell(probe.name, room)}  {curve}  {row.answer.sign} {clean(row.answer.word)}"
        )
        expected = f"expected {clean(probe.expected)}, " if probe.expected else ""
        pad = "  " + " " * room + "  "
        text = f"{expected}{row.counted}; during the fault {row.during.middle}"
        out += _wrap(text, width, pad)
    begun = [fault for fault in story.faults if fault.started is not None]
    for fault in begun[:_DRAWN]:
        when = bar(fault, story.length, columns)
        out.append(f"  {_cell(fault.name, room)}  {when}  {clean(fault.fault)}")
    if len(begun) > _DRAWN:
        out.append(f"  and {words.plural(len(begun) - _DRAWN, 'fault')} more")
    return ["Probes", *out] if out else []


def _drawable(probe: ProbeStory) -> tuple[Point, ...]:
    if any(s.value is not None for s in probe.samples):
        return probe.points
    return tuple((s.at, None if s.ok is None else float(s.ok)) for s in probe.samples)


def _clusters(story: Story, width: int) -> list[str]:
    out: list[str] = []
    for name, _, state, effect, why in story.clusters:
        told = ", ".join(filter(None, (clean(state), effect, clean(why))))
        out += _wrap(told, width, "    ", f"  {_harmless(name)}: ")
    return ["Clusters", *out] if out else []


def _nodes(story: Story, width: int) -> list[str]:
    lines = listing.node_lines(story)
    kept = lines[: listing.LONGEST]
    room = min(max((len(name) for name, _ in kept), default=0), 28, width // 2)
    out: list[str] = []
    for name, said in kept:
        text = _harmless(name)
        short = text if len(text) <= room else text[: room - 1] + "…"
        out += _wrap(clean(said), width, " " * (room + 4), f"  {short:<{room}}  ")
    if len(lines) > len(kept):
        out.append(f"  and {len(lines) - len(kept)} more")
    return ["Nodes", *out] if out else []


def _search(search: SearchStory, width: int) -> list[str]:
    title = f"Search {clean(search.node)}, {search.answer.sign} {clean(search.answer.word)}"
    out = [title, *_wrap(clean(search.text), width, "  ")]
    out += [f"  {_harmless(line)}"[:width].rstrip() for line in listing.curve_lines(search)]
    told = ", ".join(f"{name.lower()} {value}" for name, value in search.facts)
    return [*out, *_wrap(clean(told), width, "  ")]


def _choices(story: Story, width: int) -> list[str]:
    out: list[str] = []
    for choice in story.choices:
        out += _wrap(f"{clean(choice.node)}: {clean(choice.text)}", width, "    ", "  ")
        if choice.rest:
            out += _wrap(f"not hit: {clean(', '.join(choice.rest))}", width, "      ", "    ")
        for name, why in choice.spared[:_LISTED]:
            out += _wrap(f"spared: {clean(name)}, {clean(why)}", width, "      ", "    ")
    return ["Targets", *out] if out else []


def _faults(faults: Sequence[FaultStory], width: int) -> list[list[str]]:
    """One by one; of many, those of which there is nothing more to say in a line each."""
    if len(faults) <= _MANY:
        return [_fault(fault, width) for fault in faults]
    plain = [fault for fault in faults if fault.unremarkable]
    room = min(max((len(clean(fault.name)) for fault in plain), default=0), 24)
    lines: list[str] = []
    for fault in plain[:_LISTED]:
        gone = words.span(fault.time_to_recovery)
        told = f"{clean(fault.asked)}, measured {clean(fault.measured)}; gone within {gone}"
        lines += _wrap(told, width, " " * (room + 4), f"  {_cell(fault.name, room)}  ")
    if len(plain) > _LISTED:
        lines.append(f"  and {len(plain) - _LISTED} more")
    others = [_fault(fault, width) for fault in faults if not fault.unremarkable]
    return [["Faults that were effective and are gone", *lines] if lines else [], *others]


def _fault(fault: FaultStory, width: int) -> list[str]:
    answer = words.answer(words.EFFECTS, fault.effect or "unmeasured")
    state = f"{answer.sign} {clean(answer.word)}" if fault.started is not None else "never injected"
    out = [f"Fault {clean(fault.name)}: {clean(fault.fault)}, {state}"]
    pairs = [
        ("on", fault.where),
        ("asked", fault.asked),
        (
            "measured",
            fault.measured + (f" ({page.deviation(fault)})" if fault.deviation is not None else ""),
        ),
        ("by", fault.method),
        ("reason", fault.reason),
        ("error", fault.error),
        ("end", fault.end),
        ("proof", page.residue(fault)[1]),
    ]
    for name, value in pairs:
        if value:
            out += _wrap(clean(value), width, " " * 14, f"  {name:<12}")
    for item in fault.residue[:20]:
        out += _wrap(clean(item), width, " " * 16, " " * 14 + "- ")
    return out


def _traffic(load: TrafficStory, width: int) -> list[str]:
    if not load.sent:
        return [f"Traffic {clean(load.name)}: no request was sent"]
    share = words.amount(load.errors / load.sent, "ratio")
    counts = f"{load.sent:,} sent, {load.ok:,} ok, {load.errors:,} errors ({share})"
    out = [f"Traffic {clean(load.name)}: {counts}"]
    figures = [f"{name} {words.span(value)}" for name, value in load.latencies]
    figures.append(f"own lag at most {words.span(load.lag)}")
    return out + _wrap(", ".join(figures), width, "  ")


def _figures(story: Story) -> list[str]:
    tiles = page.tiles(story)
    if story.seed is not None:
        tiles.append(page.Tile("Seed", str(story.seed)))
    room = max(len(tile.label) for tile in tiles)
    notes = ((t, f"  {clean(t.note)}" if t.note else "") for t in tiles)
    return [f"{tile.label:<{room}}  {tile.value:>10}{note}" for tile, note in notes]


def _compared(comparison: Comparison, width: int) -> list[str]:
    title = f"Compared with {clean(comparison.run)}, {words.clock(comparison.began)}"
    out = [*_wrap(title, width), *_wrap(clean(comparison.sentence), width, "  ")]
    for each in comparison.changed[:6]:
        out += _wrap(f"changed: {clean(each)}", width, "    ", "  ")
    return out


def _cell(text: str, room: int) -> str:
    short = clean(text)
    return f"{short if len(short) <= room else short[: room - 1] + '…':<{room}}"


def _wrap(text: str, width: int, pad: str = "", first: str | None = None) -> list[str]:
    start = pad if first is None else first
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=pad)
