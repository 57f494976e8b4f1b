"""`schedule`: experiments that run by the calendar."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output
from faultline.cli.naming import Suggesting
from faultline.cli.session import state_folder, store_place
from faultline.errors import InvalidParameter, UnknownName

if TYPE_CHECKING:
    from faultline.api.schedule import Schedule
    from faultline.engine.calendar import Occurrence, Timetable
    from faultline.stores.model import Store

SHOWN = 3


@contextmanager
def _store() -> Generator[Store]:
    from faultline.stores.opening import open_store

    store = open_store(store_place(), state_folder())
    try:
        yield store
    finally:
        store.close()


def _names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from faultline.stores.opening import open_store

    given = ctx.find_root().params
    state = given.get("state")
    with open_store(given.get("store"), Path(state) if state else None) as store:
        names = [each.name for each in store.summaries("Schedule", limit=50)]
    return [name for name in names if name.startswith(incomplete)]


_name = click.argument("name", metavar="NAME", shell_complete=_names)


def _user() -> str:
    import getpass

    return getpass.getuser()


@click.group(cls=Suggesting)
def schedule() -> None:
    """Run experiments by the calendar: `faultline engine` carries them out.

    A schedule is a document: when it comes, on which calendars, and what is done about overlap and
    what was missed.
    """


@schedule.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@output.format_option
def apply(file: Path, form: str) -> int:
    """Put the schedules, calendars and experiments of FILE into the store."""
    from faultline.api.schedule import Schedule
    from faultline.engine import schedule_edits, wiring
    from faultline.engine.calendar import Timetable

    resources = schedule_edits.read(file)
    with _store() as store:
        done = schedule_edits.apply(store, resources, wiring.check_fault)
        known = schedule_edits.calendars(store)
    if form != "table":
        output.emit([{"what": each.what, **each.resource.to_json()} for each in done], form)
        return 0
    for each in done:
        click.echo(f"{each.resource.kind} {each.resource.metadata.name} {each.what}")
        if isinstance(each.resource, Schedule):
            table = Timetable(each.resource, known)
            _print_next(_ahead(table, time.time(), SHOWN), table, SHOWN)
    return 0


@schedule.command(name="list")
@output.format_option
def list_(form: str) -> int:
    """List the schedules."""
    from faultline.api.schedule import Schedule

    with _store() as store:
        found = sorted(store.list(Schedule), key=lambda each: each.metadata.name)
    if form != "table":
        output.emit([each.to_json() for each in found], form)
    elif found:
        headings = ("SCHEDULE", "WHEN", "ZONE", "LAST", "ACTIVE", "RUNS", "LEFT OUT", "NOW")
        click.echo(output.table(headings, list(map(_row, found))))
    else:
        click.echo("no schedules")
    return 0


def _row(each: Schedule) -> tuple[str, ...]:
    status = each.status
    last = output.ago(time.time() - status.last) + " ago" if status.last else "-"
    state = status.text or ("paused" if each.spec.paused else "no engine has looked at it yet")
    counts = (str(len(status.active)), str(status.started), str(status.skipped))
    return each.metadata.name, _when(each), each.spec.time_zone, last, *counts, state


def _when(each: Schedule) -> str:
    when = each.spec.when
    if when.cron is not None:
        return when.cron if isinstance(when.cron, str) else "; ".join(when.cron)
    return f"every {when.every}" if when.every is not None else f"at {when.at}"


@schedule.command()
@_name
@output.format_option
def show(name: str, form: str) -> int:
    """Show a schedule: where it stands, its runs, why occurrences were left out, what comes."""
    from faultline.api.schedule import Schedule
    from faultline.engine import schedule_edits
    from faultline.engine.calendar import Timetable

    with _store() as store:
        found = store.get(Schedule, name)
        table = Timetable(found, schedule_edits.calendars(store))
    if form != "table":
        output.emit(found.to_json(), form)
        return 0
    spec, status = found.spec, found.status
    output.say(name, bold=True)
    rules = f"overlap: {spec.concurrency}, missed: {spec.missed}, freeze: {spec.on_freeze}"
    output.field("when", f"{_when(found)} ({spec.time_zone}); {rules}")
    output.field("experiment", spec.experiment.name)
    output.field("now", _row(found)[-1])
    counts = f"{status.started} runs, {status.skipped} left out, {status.missed} of them missed"
    output.field("so far", counts)
    for past in status.history[:10]:
        kept = "" if past.kept else " (not kept)"
        why = f": {past.reason}" if past.reason else ""
        output.field("run", f"{past.run}  {output.coloured(past.outcome)}{why}{kept}")
    for note in status.notes[-10:]:
        output.field("left out", f"{_local(note.occurrence, table)}  {note.text}")
    if spec.paused:
        click.echo(f"paused; go on: faultline schedule resume {name}")
    else:
        _print_next(_ahead(table, time.time(), 5), table, 5)
    return 0


@schedule.command(name="next")
@click.argument("name", metavar="NAME|FILE", shell_complete=_names)
@click.option("-n", "--number", type=click.IntRange(1, 1000), default=10, show_default=True,
              help="How many runs.")  # fmt: skip
@click.option("--from", "start", metavar="TIME",
              help="Count from this time (ISO 8601, on the clocks of the schedule); now, if not "
              "given.")  # fmt: skip
@output.format_option
def following(name: str, number: int, start: str | None, form: str) -> int:
    """The next runs of a schedule of the store or of a FILE, and what is left out between them."""
    found, table = _timetable(name)
    found_ahead = _ahead(table, _start(start, table), number)
    if form != "table":
        output.emit([_json(each, table) for each in found_ahead], form)
        return 0
    if found.spec.paused:
        output.say("paused: nothing of this is run until it is resumed", fg="yellow")
    _print_next(found_ahead, table, number)
    return 0


def _timetable(name: str) -> tuple[Schedule, Timetable]:
    """A schedule of the store by its name, or the only one of a file."""
    from faultline.api.calendar import Calendar
    from faultline.api.schedule import Schedule
    from faultline.engine import schedule_edits
    from faultline.engine.calendar import Timetable

    with _store() as store:
        known = schedule_edits.calendars(store)
        if not Path(name).is_file():
            found = store.get(Schedule, name)
            return found, Timetable(found, known)
    read = schedule_edits.read(Path(name))
    known |= {each.metadata.name: each.spec for each in read if isinstance(each, Calendar)}
    schedules = [each for each in read if isinstance(each, Schedule)]
    if len(schedules) != 1:
        raise UnknownName(f"{name} holds {len(schedules)} schedules; expected one")
    meta = schedules[0].metadata.model_copy(update={"creation_timestamp": time.time()})
    found = schedules[0].model_copy(update={"metadata": meta})
    return found, Timetable(found, known)


def _start(text: str | None, table: Timetable) -> float:
    if text is None:
        return time.time()
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidParameter("--from", text, "a time as ISO 8601: 2026-12-24T18:00") from error
    return (found if found.tzinfo else found.replace(tzinfo=table.zone)).timestamp()


def _ahead(table: Timetable, start: float, number: int) -> list[Occurrence]:
    from faultline.engine.calendar import ahead

    return ahead(table, start, number)


def _local(at: float, table: Timetable) -> str:
    from faultline.engine import walltime

    return walltime.text(at, table.zone)


def _json(each: Occurrence, table: Timetable) -> dict[str, Any]:
    return {
        "occurrence": _local(each.original, table),
        "at": None if each.skipped else _local(each.at, table),
        "skipped": each.skipped,
        "moved": each.moved,
    }


def _print_next(found: Iterable[Occurrence], table: Timetable, number: int) -> None:
    runs = 0
    for skipped, group in itertools.groupby(found, key=lambda each: each.skipped):
        some = list(group)
        if skipped:
            first, last = _local(some[0].original, table), _local(some[-1].original, table)
            span = first if len(some) == 1 else f"{first} to {last}, {len(some)} times"
            click.echo(output.harmless(f"  left out  {span}: {skipped}"))
            continue
        for each in some:
            runs += 1
            ahead = each.at - time.time()
            when = f"in {output.ago(ahead)}" if ahead >= 0 else f"{output.ago(-ahead)} ago"
            moved = f"; {_local(each.original, table)} moved: {each.moved}" if each.moved else ""
            day = datetime.fromtimestamp(each.at, table.zone).strftime("%a")
            click.echo(output.harmless(f"  {day} {_local(each.at, table)}  {when}{moved}"))
    if runs < number:
        click.echo("  nothing more in sight" if runs else "  nothing is to come")


# ---------------------------------------------------------------------------- wishes


@schedule.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_names)
def pause(names: tuple[str, ...]) -> int:
    """Start nothing more. What runs goes on, and what falls into the pause is not made up for."""
    from faultline.engine import schedule_edits

    return _each(names, schedule_edits.pause, "paused")


@schedule.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_names)
def resume(names: tuple[str, ...]) -> int:
    """Go on, and count from now on (also after the clock was set back by much)."""
    from faultline.engine import schedule_edits

    now = time.time()
    return _each(names, lambda store, name: schedule_edits.resume(store, name, now), "resumed")


def _each(names: tuple[str, ...], act: Callable[[Store, str], object], done: str) -> int:
    with _store() as store:
        for name in names:
            act(store, name)
            click.echo(f"{name} {done}")
    return 0


@schedule.command()
@_name
@click.option("--abort", is_flag=True, help="Abort its active runs.")
def delete(name: str, abort: bool) -> int:
    """Remove a schedule. Its runs stay."""
    from faultline.engine import schedule_edits

    with _store() as store:
        active = schedule_edits.delete(store, name, abort=abort)
    click.echo(f"{name} deleted")
    for run in active:
        click.echo(f"{run} aborts" if abort else f"{run} goes on; end it: faultline abort {run}")
    return 0


@schedule.command()
@_name
@click.option("--here", is_flag=True, help="Carry it out now in this process, and tell its story.")
@click.option("--anyway", is_flag=True, help="Also in a freeze, or beside an active run.")
@output.format_option
def trigger(name: str, here: bool, anyway: bool, form: str) -> int:
    """Make a run of a schedule now; the engine carries it out, or this process with --here."""
    from faultline.cli import experiments
    from faultline.engine import schedule_edits, wiring

    with experiments.opened() as kept:
        kept.check_halt()
        made = schedule_edits.trigger(
            kept.store, name, time.time(), creator=_user(), anyway=anyway,
            check_fault=wiring.check_fault,
        )  # fmt: skip
        run = made.metadata.name
        if here:
            return experiments.drive(kept, run, None, form, no_report=False)
    if form != "table":
        output.emit(made.to_json(), form)
    else:
        click.echo(f"{run} is to be carried out by `faultline engine`")
        click.echo(f"without one: faultline run --resume {run}")
    return 0
