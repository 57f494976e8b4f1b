"""`experiments`: those of the store, which are run by name and by schedules."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from faultline.cli import output
from faultline.cli.naming import Suggesting
from faultline.cli.session import state_folder, store_place
from faultline.errors import InvalidDocument

if TYPE_CHECKING:
    from faultline.engine.kept_experiments import Kept
    from faultline.stores.opening import Opened

HEADINGS = ("EXPERIMENT", "FAULTS", "RUNS", "LAST", "VERDICT", "TITLE")


def _open() -> Opened:
    from faultline.stores.opening import open_store

    return open_store(store_place(), state_folder())


def _names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from faultline.stores.opening import open_store

    given = ctx.find_root().params
    state = given.get("state")
    with open_store(given.get("store"), Path(state) if state else None) as store:
        names = [each.name for each in store.summaries("Experiment", limit=50)]
    return [name for name in names if name.startswith(incomplete)]


_name = click.argument("name", metavar="NAME", shell_complete=_names)


@click.group(cls=Suggesting, invoke_without_command=True)
@output.format_option
@click.pass_context
def experiments(ctx: click.Context, form: str) -> int:
    """List the experiments of the store, with the newest run of each.

    They are run by name (`faultline run NAME`) and by schedules.
    """
    if ctx.invoked_subcommand:
        return 0
    from dataclasses import asdict

    from faultline.engine import kept_experiments

    with _open() as store:
        found = kept_experiments.all_of(store)
    if form != "table":
        output.emit([asdict(each) for each in found], form)
    elif found:
        click.echo(output.table(HEADINGS, [_row(each) for each in found]))
    else:
        click.echo("no experiments; put one there: faultline experiments add FILE")
    return 0


def _row(each: Kept) -> tuple[str, ...]:
    last = each.last
    when = f"{output.ago(time.time() - last.created)} ago" if last is not None else "-"
    verdict = (last.verdict or last.phase) if last is not None else ""
    return each.name, ", ".join(each.faults), str(each.runs), when, verdict or "-", each.title


@experiments.command()
@click.argument("files", nargs=-1, required=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
def add(files: tuple[Path, ...]) -> int:
    """Put the experiments of FILES into the store, or change those of the same name.

    With their schedules: faultline schedule apply FILE.
    """
    from faultline.api.experiment import Experiment
    from faultline.engine import schedule_edits, wiring

    read = {file: schedule_edits.read(file) for file in files}
    for file, resources in read.items():
        for each in resources:
            if not isinstance(each, Experiment):
                raise InvalidDocument(
                    f"{file} holds a {each.kind}; expected experiments alone",
                    hint=f"faultline schedule apply {file}",
                )
    with _open() as store:
        resources = [each for some in read.values() for each in some]
        for done in schedule_edits.apply(store, resources, wiring.check_fault):
            click.echo(f"{done.resource.metadata.name} {done.what}")
    return 0


@experiments.command()
@_name
@output.format_option
def show(name: str, form: str) -> int:
    """The document of an experiment as it was written; as YAML, or as JSON."""
    from faultline.api.experiment import Experiment
    from faultline.engine import stored

    with _open() as store:
        document = stored.document(store.get(Experiment, name))
    output.emit(document, "json" if form == "json" else "yaml")
    return 0


@experiments.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_names)
def remove(names: tuple[str, ...]) -> int:
    """Remove experiments that no schedule runs. Their runs stay."""
    from faultline.engine import kept_experiments

    with _open() as store:
        for name in names:
            kept_experiments.remove(store, name)
            click.echo(f"{name} removed")
    return 0
