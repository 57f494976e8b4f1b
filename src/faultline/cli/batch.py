"""`run --for-each`: one experiment over a list of applications, with one table at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output
from faultline.cli.session import write
from faultline.errors import InvalidParameter

if TYPE_CHECKING:
    from faultline.api.run import Point, Run
    from faultline.engine.batch import Outcome, Row
    from faultline.engine.runs import Runs
    from faultline.report.table import Line

NOT_RUN = "not run"
_ENDINGS = (".html", ".md", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    each: str
    at_once: int
    summary: Path | None
    form: str
    creator: str
    seed: int | None = None


def carry_out(
    open_runs: Callable[[], Runs],
    file: Path,
    values: Mapping[str, Any],
    asked: Asked,
    report: Callable[[Run], object] | None,
) -> int:
    """Run the experiment once per row; the exit status is that of the gravest outcome."""
    from faultline.engine import batch
    from faultline.report import table

    summary, form = asked.summary, asked.form
    if summary is not None and summary.suffix not in _ENDINGS:
        raise InvalidParameter("--summary", summary, f"a file that ends in {', '.join(_ENDINGS)}")
    made = batch.Batch(open_runs, file, values, batch.rows_of(asked.each), asked.at_once)
    teller = _teller(asked.at_once) if form == "table" else None
    outcomes = made.drive(teller, asked.creator, asked.seed)
    for outcome in outcomes:
        if outcome.run is not None and report is not None:
            report(outcome.run)
    lines = [_line(outcome) for outcome in outcomes]
    data = [line.to_json() for line in lines]
    if form == "table":
        click.echo()
        heads = tuple(heading.upper() for heading in table.headings(lines))
        click.echo(output.table(heads, table.cells(lines)))
        click.echo(table.summary(lines))
    else:
        output.emit(data, form)
    if summary is not None:
        title = next((o.run.spec.experiment for o in outcomes if o.run is not None), file.stem)
        texts: dict[str, Callable[[], str]] = {
            ".html": lambda: table.html(title, lines),
            ".md": lambda: table.markdown(title, lines),
            ".csv": lambda: table.csv(lines),
            ".json": lambda: json.dumps(data, indent=2, ensure_ascii=False) + "\n",
        }
        write(summary, texts[summary.suffix]())
    return batch.exit_code(outcomes)


def _teller(at_once: int) -> Callable[[Row, Point], None]:
    """Prints what happens; of several at once only what matters, each with its row."""
    said = ("effective", "not effective", "discovered", "resolved", "recovered", "verdict", "error")

    def tell(row: Row, point: Point) -> None:
        if at_once > 1 and point.event not in said:
            return
        name = " ".join(row.values())
        text = f"{point.node}: {point.text}" if point.node else point.text
        click.echo(output.harmless(f"{name}  {point.event:<12} {text}"))

    return tell


def _line(outcome: Outcome) -> Line:
    from faultline.report import table

    if outcome.run is not None:
        return table.line(outcome.row, outcome.run)
    if outcome.error is not None:
        return table.Line(outcome.row, "error", reason=outcome.error.message)
    return table.Line(outcome.row, NOT_RUN, reason="interrupted before it began")
