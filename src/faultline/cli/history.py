"""`runs`: what was run before; what of it is kept, and for how long.

Lists read summaries alone and load no model, so they are fast whatever the runs hold.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output
from faultline.cli.experiments import run_names
from faultline.cli.naming import Suggesting
from faultline.cli.session import state_folder, store_place
from faultline.errors import InvalidParameter, UsageError
from faultline.stores.model import Filter

if TYPE_CHECKING:
    from faultline.changes.abandoned import Abandoned
    from faultline.stores.model import Summary
    from faultline.stores.opening import Opened
    from faultline.stores.retention import Retention

KIND = "Run"
HEADINGS = ("RUN", "EXPERIMENT", "PHASE", "VERDICT", "WHY")


def _open() -> Opened:
    from faultline.stores.opening import open_store

    return open_store(store_place(), state_folder())


def _instant(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A point in time, as so long ago or as a date; in seconds since 1970."""
    if value is None:
        return None
    from faultline.units import Duration

    try:
        return datetime.fromisoformat(value).astimezone().timestamp()
    except ValueError:
        return time.time() - Duration.parse(value, f"--{param.name}").seconds


def _length(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from faultline.units import Duration

    return Duration.parse(value, f"--{str(param.name).replace('_', '-')}").seconds


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidParameter("--label", pair, "NAME=VALUE")
        found[name] = value
    return found


@click.group(cls=Suggesting, invoke_without_command=True)
@click.option("-l", "--limit", type=click.IntRange(1), default=20, show_default=True)
@click.option("--after", default="", metavar="RUN", help="Only those that are older than this one.")
@click.option("-e", "--experiment", "experiments", multiple=True, help="Only of this experiment.")
@click.option("--verdict", "verdicts", multiple=True, help="Only with this verdict.")
@click.option("--phase", "phases", multiple=True, help="Only in this phase.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only with it.")
@click.option("--since", callback=_instant, metavar="WHEN",
              help="Only made then or later: 2026-03-01T12:00, or 2h for so long ago.")  # fmt: skip
@click.option("--until", callback=_instant, metavar="WHEN", help="Only made before then.")
@click.option("--unfinished", is_flag=True, help="Only those that have not ended.")
@click.option("--text", default="", help="Only with this in name, creator, labels or reason.")
@output.format_option
@click.pass_context
def runs(ctx: click.Context, limit: int, after: str, form: str, **given: Any) -> int:
    """List the runs of experiments, newest first."""
    if ctx.invoked_subcommand:
        return 0
    given["labels"] = _labels(given["labels"])
    where = Filter(ended=False if given.pop("unfinished") else None, **given)
    with _open() as store:
        found = store.summaries(KIND, where, limit, _cursor(store, after))
        if form != "table":
            from faultline.api.run import Run

            whole = (store.get(Run, each.name) for each in found)
            output.emit([each.model_dump(mode="json", by_alias=True) for each in whole], form)
            return 0
    if found:
        click.echo(output.table(HEADINGS, [_row(each) for each in found]))
        if len(found) == limit:
            click.echo(f"older ones: faultline runs --after {found[-1].name}")
    else:
        click.echo("no runs")
    return 0


def _cursor(store: Opened, name: str) -> str:
    if not name:
        return ""
    found = store.summaries(KIND, Filter(names=(name,)), 1)
    if not found:
        raise UsageError(f"there is no run {name!r}")
    return found[0].cursor


def _row(each: Summary) -> tuple[str, ...]:
    return each.name, each.experiment, each.phase, each.verdict or "-", each.reason


# ---------------------------------------------------------------------- prune


@runs.command()
@click.option("--keep", type=click.IntRange(0), help="Keep so many of each experiment.")
@click.option("--older-than", callback=_length, metavar="DURATION",
              help="Remove only what ended longer ago than this, such as 30d.")  # fmt: skip
@click.option("--keep-failed", callback=_length, metavar="DURATION",
              help="Keep those whose verdict is not `held` for so long.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@output.format_option
def prune(
    keep: int | None, older_than: float | None, keep_failed: float | None, dry_run: bool, form: str
) -> int:
    """Remove old runs, with their reports, and what else has ended and is only kept.

    A run goes when no rule keeps it, and never before it has ended. With --older-than records of
    faults that ended before then go from the journal too. Folders for locks and sockets whose store
    does not exist any more are removed as well, unless anything of theirs is still there.
    """
    from faultline.stores.retention import Retention

    if keep is None and older_than is None:
        raise UsageError("say what is kept: --keep N, --older-than DURATION, or both")
    policy = Retention(keep, older_than, keep_failed)
    told: dict[str, list[str]] = {
        "runs": _prune_runs(policy, dry_run),
        "faults": _prune_journal(older_than, dry_run),
        "folders": _prune_folders(dry_run),
    }
    if form != "table":
        output.emit({"removed": not dry_run, **told}, form)
        return 0
    for what, names in told.items():
        for name in names:
            click.echo(f"{what[:-1]} {name}")
    verb = "would be removed" if dry_run else "removed"
    counts = ", ".join(f"{len(names)} {what}" for what, names in told.items())
    click.echo(f"{verb}: {counts}")
    return 0


def _prune_runs(policy: Retention, dry_run: bool) -> list[str]:
    from faultline.stores import retention

    with _open() as store:
        chosen = retention.surplus(store, policy, time.time())
        if not dry_run:
            chosen = retention.remove(store, chosen)
    names = [each.name for each in chosen]
    if not dry_run:
        _forget_files(names)
    return names


def _forget_files(names: list[str]) -> None:
    """The reports that were written of these runs, and their locks."""
    from faultline.changes import abandoned
    from faultline.changes.store import open_store

    store = open_store(state_folder())
    for name in names:
        (store.state / "reports" / f"{name}.html").unlink(missing_ok=True)
    abandoned.drop_locks(store, {f"{name}.run" for name in names})


def _prune_journal(older_than: float | None, dry_run: bool) -> list[str]:
    if older_than is None:
        return []
    from faultline.changes import abandoned
    from faultline.changes.journal import Journal
    from faultline.changes.store import open_store

    store = open_store(state_folder())
    with Journal(store) as journal:
        uids = [record.uid for record in journal.ended_before(time.time() - older_than)]
        if not dry_run and uids:
            journal.forget(uids)
            abandoned.drop_locks(store, set(uids))
    return uids


def _prune_folders(dry_run: bool) -> list[str]:
    from faultline.changes import abandoned
    from faultline.changes.store import open_store

    found = abandoned.look(open_store(state_folder()), _marked)
    free: list[Abandoned] = [each for each in found if not each.why]
    return [str(each.folder) for each in free if dry_run or abandoned.remove(each)]


def _marked() -> set[str]:
    """The uids that anything on this machine carries."""
    from faultline.changes.kind import kinds
    from faultline.injection.recovery import Recovery

    with Recovery(state_folder()) as recovery:
        return {found.uid for kind in kinds().values() for found in kind.scan(recovery.netlink, ())}


# ---------------------------------------------------------------------- archive


@runs.command()
@click.argument("names", nargs=-1, metavar="[RUN]...", shell_complete=run_names)
@click.option("--older-than", callback=_length, metavar="DURATION",
              help="All that ended longer ago than this.")  # fmt: skip
@click.option("-o", "--output", "target", required=True, type=click.Path(path_type=Path),
              help="The new file: .tar.gz, or .tar.zst where zstd is installed.")  # fmt: skip
@click.option("--remove", is_flag=True, help="Remove them once they are in the file.")
@output.format_option
def archive(
    names: tuple[str, ...], older_than: float | None, target: Path, remove: bool, form: str
) -> int:
    """Write runs into a file that `faultline runs import` reads back."""
    from faultline.stores import archive as files
    from faultline.stores import retention

    if bool(names) == (older_than is not None):
        raise UsageError("name the runs, or say --older-than DURATION")
    with ExitStack() as stack:
        store = stack.enter_context(_open())
        if names:
            chosen = store.summaries(KIND, Filter(names=names))
            if missing := set(names) - {each.name for each in chosen}:
                raise UsageError(f"there is no run {min(missing)!r}")
        else:
            policy = retention.Retention(older_than=older_than)
            chosen = retention.surplus(store, policy, time.time())
        if not chosen:
            raise UsageError("there is no run to put into a file")
        count = files.write(store, [each.name for each in chosen], target)
        removed = retention.remove(store, chosen) if remove else []
    _forget_files([each.name for each in removed])
    if form != "table":
        output.emit({"file": str(target), "runs": count, "removed": len(removed)}, form)
        return 0
    gone = f", {len(removed)} removed from the store" if remove else ""
    click.echo(f"{target}: {count} runs{gone}")
    return 0


@runs.command("import")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output.format_option
def import_(source: Path, form: str) -> int:
    """Add the runs of a file that `faultline runs archive` wrote.

    A run that is there already is left as it is.
    """
    from faultline.stores import archive as files

    with _open() as store:
        found = files.load(store, source)
    told = {"added": found.added, "present": found.present, "taken": found.taken}
    if form != "table":
        output.emit(told, form)
        return 0
    for name in found.taken:
        click.echo(f"run {name} was left out: another run has that name")
    click.echo(f"{len(found.added)} runs added, {len(found.present)} were there already")
    return 0
