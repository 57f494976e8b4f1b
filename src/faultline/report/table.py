"""Several runs of one experiment as one table: for people, for a spreadsheet, for a web page."""

from __future__ import annotations

import csv as codec
import html as escaping
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from faultline.api.run import Run
from faultline.report import words
from faultline.report.narrate import story
from faultline.report.story import between

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .4rem .7rem; border-bottom: 1px solid #8884 }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One run in a table. Times are in seconds; None where there is none."""

    values: Mapping[str, str]  # what this run differs in
    verdict: str
    effect_after: float | None = None  # from the injection to the measured effect
    discovered_after: float | None = None  # from the effect to the first notice
    recovered_after: float | None = None  # from the undo until it is gone, and its alarm with it
    run: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "values": dict(self.values)}


def line(values: Mapping[str, str], run: Run) -> Line:
    """What a run amounts to."""
    told = story(run)
    began = min((f.recovery for f in told.faults if f.recovery is not None), default=None)
    effects = [f.time_to_effect for f in told.faults if f.time_to_effect is not None]
    return Line(
        values,
        told.verdict or told.phase,
        max(effects, default=None),
        between(told.effect_began, told.discovered) if told.discovered is not None else None,
        between(began, told.resolved if told.resolved is not None else told.undone),
        told.run,
        told.reason,
    )


def headings(lines: Sequence[Line]) -> tuple[str, ...]:
    """The columns: what the runs differ in, then what was measured."""
    names = dict.fromkeys(name for each in lines for name in each.values)
    return (*names, "verdict", "effect after", "discovered after", "recovered after", "run", "why")


def cells(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """The same as texts."""
    names = headings(lines)[:-6]
    return [
        (
            *(each.values.get(name, "") for name in names),
            each.verdict,
            words.span(each.effect_after),
            words.span(each.discovered_after),
            words.span(each.recovered_after),
            each.run or words.NONE,
            each.reason,
        )
        for each in lines
    ]


def csv(lines: Sequence[Line]) -> str:
    """Times are plain numbers of seconds."""
    names = headings(lines)[:-6]
    out = io.StringIO()
    writer = codec.writer(out, lineterminator="\n")
    writer.writerow([heading.replace(" ", "_") for heading in headings(lines)])
    for each in lines:
        times = (each.effect_after, each.discovered_after, each.recovered_after)
        told = ["" if time is None else f"{time:.3f}" for time in times]
        values = [each.values.get(name, "") for name in names]
        writer.writerow([*values, each.verdict, *told, each.run, each.reason])
    return out.getvalue()


def markdown(title: str, lines: Sequence[Line]) -> str:
    """A page with one table."""

    def row(texts: Sequence[str]) -> str:
        clean = (" ".join(text.split()).replace("|", "\\|") for text in texts)
        return f"| {' | '.join(clean)} |"

    head = headings(lines)
    rows = [row(head), row(["---"] * len(head)), *map(row, cells(lines))]
    return "\n".join([f"# {title}", "", summary(lines), "", *rows, ""])


def html(title: str, lines: Sequence[Line]) -> str:
    """A page that needs nothing else; every text is escaped."""
    head = headings(lines)
    numbers = range(len(head) - 5, len(head) - 2)

    def row(texts: Sequence[str]) -> str:
        made = [
            f"<td{' class=number' if at in numbers else ''}>{escaping.escape(text)}</td>"
            for at, text in enumerate(texts)
        ]
        return f"<tr>{''.join(made)}</tr>"

    return _PAGE.format(
        title=escaping.escape(title),
        summary=escaping.escape(summary(lines)),
        head="".join(f"<th>{escaping.escape(heading)}</th>" for heading in head),
        body="\n".join(map(row, cells(lines))),
    )


def summary(lines: Sequence[Line]) -> str:
    """How many ended how."""
    counts: dict[str, int] = {}
    for each in lines:
        counts[each.verdict] = counts.get(each.verdict, 0) + 1
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{words.plural(len(lines), 'run')}: {told}."
