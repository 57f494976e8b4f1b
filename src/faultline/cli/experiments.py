"""`run`, `validate`: experiments from a document to a report."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from faultline.cli import clusterrun, output
from faultline.cli.session import state_folder, store_place, write
from faultline.errors import InvalidDocument, InvalidParameter, Unsupported, UsageError

if TYPE_CHECKING:
    from faultline.api.run import Point, Run
    from faultline.engine.runs import Runs


def opened() -> Runs:
    """The runs of the store that the command line names."""
    from faultline.engine.runs import Runs

    return Runs(state_folder(), store=store_place())


def _values(pairs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidParameter("--set", pair, "NAME=VALUE")
        found[name] = value
    return found


def _sources(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion: files, and the names of stored experiments."""
    from faultline.stores.opening import open_store

    given = ctx.find_root().params
    state = given.get("state")
    with open_store(given.get("store"), Path(state) if state else None) as kept:
        names = [each.name for each in kept.summaries("Experiment", limit=50)]
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [*found, CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("file", required=False, metavar="[FILE|NAME]", type=click.Path(path_type=Path),
                shell_complete=_sources)  # fmt: skip
@click.option("-p", "--set", "pairs", multiple=True, metavar="NAME=VALUE",
              help="Set a parameter of the experiment.")  # fmt: skip
@click.option("--plan", "ahead", is_flag=True,
              help="Show the targets and changes of every fault, and touch nothing.")  # fmt: skip
@click.option("--resume", "resumed", is_flag=False, flag_value="latest", metavar="[RUN]",
              help="Go on with a run whose engine died: this one, or the latest.")  # fmt: skip
@click.option(
    "--report", "file_out", type=click.Path(path_type=Path), help="Write the HTML report here."
)
@click.option("--no-report", is_flag=True, help="Write no report.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), metavar="NUMBER",
              help="What the run chooses at random is drawn from this. Without it, from a number "
              "that is drawn now and kept with the run.")  # fmt: skip
@click.option("--for-each", "each", metavar="NAME=A,B|ROWS",
              help="Run it once for each value of a parameter, or for each row of a .csv or .yaml "
              "file with several, and print one table.")  # fmt: skip
@click.option("--at-once", type=click.IntRange(1, 64), default=1, show_default=True,
              help="With --for-each: how many runs at the same time.")  # fmt: skip
@click.option("--summary", type=click.Path(dir_okay=False, path_type=Path),
              help="With --for-each: write the table as .html, .md, .csv or .json.")  # fmt: skip
@click.option("--operator/--here", "by_operator", default=None,
              help="With a store kube://: whether the operator of the cluster carries it out, or "
              "this host. Without it: the operator, if a fault has a selector.")  # fmt: skip
@output.format_option
def run(
    file: Path | None,
    pairs: tuple[str, ...],
    resumed: str | None,
    file_out: Path | None,
    no_report: bool,
    seed: int | None,
    form: str,
    **several: Any,
) -> int:
    """Carry out an experiment, tell the story as it happens, judge it, write its report.

    It is that of FILE, or the one of that NAME in the store (`faultline schedule apply FILE` puts
    it there).

    Interrupting it (Ctrl-C) undoes every fault at once and ends the run.
    """
    if bool(file) == bool(resumed):
        raise UsageError("name one: an experiment's FILE, or --resume")
    if resumed and seed is not None:
        raise UsageError("a run that is resumed has its seed already")
    elsewhere = clusterrun.meant(several.pop("by_operator"), file, _values(pairs), resumed)
    if elsewhere and not several["each"]:
        out = _Out(file_out, form, no_report)
        return _by_operator(file, resumed, _values(pairs), seed, out, ahead=several["ahead"])
    if several.pop("ahead"):
        from faultline.cli import planning

        if not file or several["each"]:
            raise UsageError("--plan goes with one FILE or NAME, and without --for-each")
        with opened() as kept:
            return planning.show(kept, file, _values(pairs), seed, form)
    if several["each"] and file and not file_out:
        from faultline.cli import batch
        from faultline.engine.runs import Runs

        several_runs = partial(
            Runs, state_folder(), store=store_place()
        )  # in threads that know of no command line
        asked = batch.Asked(**several, form=form, creator=_user(), seed=seed)
        report = None if no_report else partial(_write_report, target=None)
        return batch.carry_out(several_runs, file, _values(pairs), asked, report)
    if several != {"each": None, "at_once": 1, "summary": None}:
        raise UsageError(
            "--for-each goes with a FILE and without --report; --at-once and --summary with it",
            hint="each run has a report of its own, and --summary writes the table of all",
        )
    if file:
        return carry_out(file, _values(pairs), file_out, form, no_report=no_report, seed=seed)
    with opened() as kept:
        return drive(kept, _unfinished(kept, str(resumed)), file_out, form, no_report=no_report)


class _Out(NamedTuple):
    """What becomes of a run when it has ended."""

    target: Path | None
    form: str
    no_report: bool


def _by_operator(
    file: Path | None, resumed: str | None, values: dict[str, Any], seed: int | None, out: _Out,
    *, ahead: bool,
) -> int:  # fmt: skip
    from faultline.engine import runs as engine

    with clusterrun.opened() as store:
        if ahead and file:
            return clusterrun.show(store, file, values, out.form)
        if file:
            name = clusterrun.create(store, file, values, _user(), seed).metadata.name
            if out.form == "table":
                output.say(f"run {name} in namespace {store.namespace}")
        else:
            name = clusterrun.unfinished(store, str(resumed))
        done = clusterrun.follow(store, name, _Teller(quiet=out.form != "table").tell)
        from faultline.report.compare import previous

        earlier = previous(store, done)
        written = None if out.no_report else _write_report(done, out.target, earlier)
    _conclude(done, written, out.form, earlier)
    return engine.exit_code(done)


def carry_out(
    file: Path,
    values: dict[str, Any],
    target: Path | None = None,
    form: str = "table",
    *,
    no_report: bool = False,
    seed: int | None = None,
) -> int:
    """Carry out the experiment in a file; the exit status is its verdict's."""
    with opened() as kept:
        experiment, base = kept.named(file, values)
        made = kept.create(experiment, values, _user(), base, seed)
        return drive(kept, made.metadata.name, target, form, no_report=no_report)


def drive(kept: Runs, name: str, target: Path | None, form: str, *, no_report: bool) -> int:
    """Carry a run out and tell of it; the exit status is its verdict's."""
    from faultline.engine import runs as engine

    done = kept.driver(name, _Teller(quiet=form != "table").tell).drive()
    earlier = _earlier(kept, done)
    written = None if no_report else _write_report(done, target, earlier)
    _conclude(done, written, form, earlier)
    return engine.exit_code(done)


def _unfinished(kept: Runs, wanted: str) -> str:
    if wanted != "latest":
        return wanted
    waiting = kept.unfinished()
    if not waiting:
        raise UsageError("there is no run to resume", hint="list them: faultline runs")
    return waiting[0].metadata.name


class _Teller:
    """Prints each point of the timeline once, with the seconds since the first."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.began = 0.0

    def tell(self, _run: Run, point: Point) -> None:
        """One more thing happened."""
        if self.quiet:
            return
        self.began = self.began or point.at
        said = output.harmless(f"{point.node}: {point.text}" if point.node else point.text)
        click.echo(f"{point.at - self.began:7.2f}s  {point.event:<12} {said}")


def _earlier(kept: Runs, done: Run) -> Run | None:
    """The run before of the same experiment, which this one is compared with."""
    from faultline.report.compare import previous

    return previous(kept.store, done)


def _conclude(done: Run, target: Path | None, form: str, earlier: Run | None) -> None:
    if form != "table":
        output.emit(done.model_dump(mode="json", by_alias=True), form)
        return
    from faultline.report import render

    width = max(60, min(100, shutil.get_terminal_size((88, 24)).columns))
    click.echo()
    click.echo(render.text(done, earlier, width=width))
    if target:
        output.say(f"report: {target}", bold=True)


def _write_report(done: Run, target: Path | None, earlier: Run | None = None) -> Path:
    from faultline.changes.store import open_store

    if target is None:
        folder = open_store(state_folder()).state / "reports"
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / f"{done.metadata.name}.html"
    write(target, _html(done, earlier))
    return target


def _html(done: Run, earlier: Run | None) -> str:
    try:
        from faultline.report import render

        return render.html(done, earlier)
    except ImportError as error:
        raise Unsupported(
            f"the report needs {error.name}",
            hint="install it: pip install 'faultline[experiments]'",
        ) from error


def _user() -> str:
    import getpass

    return getpass.getuser()


def run_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the names of the latest runs."""
    from faultline.stores.opening import open_store

    given = ctx.find_root().params
    state = given.get("state")
    with open_store(given.get("store"), Path(state) if state else None) as kept:
        names = [each.name for each in kept.summaries("Run", limit=50)]
    return [name for name in names if name.startswith(incomplete)]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@output.format_option
def validate(files: tuple[Path, ...], form: str) -> int:
    """Check documents of any kind without running them; each problem with its field's path."""
    from faultline.engine import runs as engine
    from faultline.engine import wiring

    found = {str(file): engine.validate(file, wiring.check_fault) for file in files}
    if form != "table":
        output.emit(
            {file: [vars_of(each) for each in problems] for file, problems in found.items()}, form
        )
    else:
        for file, problems in found.items():
            for each in problems:
                given = f", not {each.given!r}" if each.given is not None else ""
                click.echo(f"{file}: {each.path}: expected {each.expected}{given}")
            if not problems:
                click.echo(f"{file}: ok")
    return InvalidDocument.exit_code if any(found.values()) else 0


def vars_of(problem: Any) -> dict[str, Any]:
    """A problem as data."""
    return {"path": problem.path, "expected": problem.expected, "given": problem.given}
