"""`traffic`: scenarios from the files of other tools; a load that runs alone, second by second."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output
from faultline.cli.naming import Suggesting
from faultline.cli.session import write
from faultline.errors import InvalidDocument, ObserveFailed, Unsupported

if TYPE_CHECKING:
    from types import FrameType

    from faultline.api.traffic import TrafficFigures, TrafficSecond, TrafficSpec, TrafficStatus
    from faultline.traffic.running import Running

EXIT_INTERRUPTED = 130
_LOOK = 0.1  # seconds between two looks
_TIMES = ("p50", "p90", "p95", "p99", "max")
_SOURCES = ("jmeter", "har", "postman", "openapi")


@click.group(cls=Suggesting)
def traffic() -> None:
    """Load alone, without an experiment; scenarios from JMeter, HAR, Postman and OpenAPI."""


@traffic.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "source", type=click.Choice(_SOURCES),
              help="What FILE is. Without it, that is seen from what it holds.")  # fmt: skip
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path),
              help="Write it here instead of printing it.")  # fmt: skip
def import_(file: Path, source: str | None, target: Path | None) -> int:
    """Make a Traffic document from FILE: a JMeter plan, a HAR, a Postman collection or an OpenAPI
    document.

    What cannot be said in a document is listed, in the document and on standard error. Secrets are
    not copied: the document says in which variables of the environment they are looked for.
    """
    try:
        from faultline.traffic.importing import reading
    except ImportError as error:
        raise Unsupported(
            f"an import needs {error.name}",
            hint="install it: pip install 'faultline[experiments]'",
        ) from error
    document, plan = reading.imported(file, source or "")
    text = reading.write(document, plan)
    if target:
        write(target, text)
    else:
        click.echo(text, nl=False)
    steps = sum(len(each["steps"]) for each in document["spec"]["scenarios"])
    count = len(document["spec"]["scenarios"])
    said = f"{count} scenario{'s' * (count != 1)} with {steps} request{'s' * (steps != 1)}"
    click.echo(f"{file}: {said}{f', written to {target}' if target else ''}", err=True)
    for note in plan.notes.lines():
        click.echo(f"  {output.harmless(note)}", err=True)
    return 0


@traffic.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--for", "length", metavar="DURATION", help="How long, instead of what FILE says.")
@output.format_option
def run(file: Path, length: str | None, form: str) -> int:
    """Run the load of a Traffic document: a line each second, and a table at the end.

    It ends after its duration, when its tool ends, or by Ctrl-C; then its figures are told.
    """
    spec = _load(file, length)
    from faultline.traffic.run import run_of

    load = run_of(spec)
    asked = _Asked()
    with asked:
        load.start()
        try:
            _follow(load, asked, quiet=form != "table")
            status = load.finish(0.0 if asked.twice else spec.timeout.seconds + 1.0)
        finally:
            load.stop()
    if form == "table":
        _conclude(status)
    else:
        output.emit(status.model_dump(mode="json", by_alias=True), form)
    if status.text and load.failure:
        raise ObserveFailed(f"traffic {spec.name}: {status.text}")
    return EXIT_INTERRUPTED if asked.once else 0


@traffic.command(hidden=True)
def worker() -> int:
    """Send the load that stands in the environment and tell of it; what a pod of a Job runs."""
    from faultline.traffic import alone

    return alone.main()


def _load(file: Path, length: str | None) -> TrafficSpec:
    from faultline.api.document import parse
    from faultline.api.kinds import read_resource
    from faultline.api.traffic import Traffic
    from faultline.units import Duration

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{file} cannot be read: {error}") from error
    data = parse(text, str(file))
    found = read_resource(data, str(file))
    if not isinstance(found, Traffic):
        raise InvalidDocument(
            f"{file} has kind {found.kind!r}; a Traffic document is run here",
            hint=f"run it: faultline run {file}" if found.kind == "Experiment" else "",
        )
    if length is None:
        return found.spec
    duration = Duration.parse(length, "--for")
    data["spec"] = {**data["spec"], "duration": str(duration)}
    whole = read_resource(data, str(file))
    assert isinstance(whole, Traffic)
    return whole.spec


class _Asked:
    """Whether somebody has asked for the end: once, to have the figures; twice, to have it now."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def once(self) -> bool:
        return self._count > 0

    @property
    def twice(self) -> bool:
        return self._count > 1

    def _hear(self, _signal: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self.twice:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._hear)

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._before)


def _follow(load: Running, asked: _Asked, *, quiet: bool) -> None:
    """Until it has ended or has failed, or somebody asks for its end."""
    if not quiet:
        click.echo(_line("SECOND", "SENT", "OK", "ERRORS", *(name.upper() for name in _TIMES)))
    told, first = 0.0, 0.0
    while True:
        going = load.running and not load.failure and not asked.once
        new = load.seconds(told)
        first = first or (new[0].at if new else 0.0)
        for each in new:
            told = each.at
            if not quiet:
                click.echo(_second(each, first))
        if not going:
            return
        time.sleep(_LOOK)


def _second(each: TrafficSecond, first: float) -> str:
    times = (_time(getattr(each, name)) for name in _TIMES)
    number = f"{each.at - first:.0f}"
    return _line(number, str(each.sent), str(each.ok), str(each.errors), *times)


def _line(*cells: str) -> str:
    return "".join(f"{cell:>9}" for cell in cells).rstrip()


def _time(seconds: float | None) -> str:
    """A time in the unit that suits it; `-` for one that nobody has measured."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g}{unit}"
    return f"{seconds * 1e6:.0f}us"


def _conclude(status: TrafficStatus) -> None:
    totals = status.totals
    click.echo()
    if totals is None or not totals.seconds:
        click.echo(output.harmless(f"no figures{f': {totals.text}' if totals else ''}"))
    else:
        rows = [_row("all", totals, totals.seconds)]
        rows += [_row(part.name, part, totals.seconds) for part in totals.parts]
        headings = (
            "WHAT",
            "PER SECOND",
            "OK",
            "ERRORS",
            *(name.upper() for name in _TIMES),
            "MEAN",
        )
        click.echo(output.table(headings, rows))
        for kind, count in totals.kinds.items():
            click.echo(f"{output.harmless(kind)}: {count}")
        for text in filter(None, (totals.text, _lag(totals))):
            click.echo(output.harmless(text))
    if status.text:
        click.echo(output.harmless(status.text))


def _row(name: str, figures: Any, seconds: float) -> tuple[str, ...]:
    """What was answered, and how fast."""
    times = (_time(getattr(figures, each)) for each in (*_TIMES, "mean"))
    answered = figures.ok + figures.errors
    return (name, f"{answered / seconds:.1f}", str(figures.ok), str(figures.errors), *times)


def _lag(totals: TrafficFigures) -> str:
    return f"requests that left late by our own fault: {totals.late}" if totals.late else ""
