"""`query`, `recover`, `watch`: what is there, and making it go away.

No parameter models, and nothing of the undo unless there is something to undo: `query` starts fast.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import click

from faultline.changes import halt
from faultline.changes.journal import Journal
from faultline.changes.model import End, State
from faultline.changes.store import Store, open_store
from faultline.cli import output
from faultline.cli.session import state_folder
from faultline.errors import InvalidParameter, RecoveryIncomplete, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faultline.changes.model import Record
    from faultline.injection.recovery import Recovery

EXIT_INCOMPLETE = RecoveryIncomplete.exit_code
FAREWELL = "needs-a-person"


def _recovery() -> Recovery:
    from faultline.injection.recovery import Recovery

    return Recovery(state_folder())


def _open() -> tuple[Store, Journal]:
    """The journal; what a crash or a reboot left open is taken care of first."""
    store = open_store(state_folder())
    journal = Journal(store)
    records = journal.open_records()
    if records and not _kept(store, records):
        with _recovery() as recovery:
            recovery.adopt()
    return store, journal


def _kept(store: Store, records: list[Record]) -> bool:
    """Whether both keepers are there, which hold every fault that was begun; loads little."""
    from faultline.changes import wire

    if any(record.state is not State.ACTIVE for record in records):
        return False
    for role in "ab":
        with wire.channel() as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(store.socket(role)))
            except OSError:
                return False
    return True


def _uids(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the uids of the faults, newest first."""
    state = ctx.find_root().params.get("state")
    with Journal(open_store(state)) as journal:
        found = [record.uid for record in journal.list(limit=50)]
    return [uid for uid in found if uid.startswith(incomplete)]


@click.command()
@click.argument("uid", required=False, shell_complete=_uids)
@click.option("-s", "--state", "wanted", type=click.Choice([*map(str, State), FAREWELL]),
              help="Only in this state.")  # fmt: skip
@click.option("-f", "--fault", help="Only this fault, such as network.delay.")
@click.option("-a", "--all", "everything", is_flag=True, help="Ended ones without limit.")
@click.option("-l", "--limit", type=click.IntRange(1), default=20, show_default=True,
              help="At most so many; those that have not ended are always shown.")  # fmt: skip
@output.format_option
def query(
    uid: str | None, wanted: str | None, fault: str | None, everything: bool, limit: int, form: str
) -> int:
    """List faults, newest first, or show one with its changes."""
    store, journal = _open()
    with journal:
        if uid:
            _show(journal.get(uid), form)
            return 0
        records = _select(journal, wanted, fault, None if everything else limit)
    if form != "table":
        output.emit([output.record_json(record) for record in records], form)
        return 0
    for halted in halt.standing(store)[:1]:
        output.say(f"halted: {halted}; {halted.how_to_lift}", fg="yellow")
    if not records:
        click.echo("no faults")
        return 0
    click.echo(output.table(output.RECORD_HEADINGS, [output.record_row(each) for each in records]))
    if not everything and len(records) >= limit:
        click.echo(f"the newest {limit}; all of them: faultline query --all")
    return 0


def _select(
    journal: Journal, wanted: str | None, fault: str | None, limit: int | None
) -> list[Record]:
    if wanted == FAREWELL:
        ended = journal.list(State.ENDED, fault)
        return [record for record in ended if record.end is End.PERSON][:limit]
    found = {record.uid: record for record in journal.list(wanted, fault, limit)}
    for record in journal.open_records():
        if (not wanted or record.state == wanted) and (not fault or record.fault == fault):
            found.setdefault(record.uid, record)
    return sorted(found.values(), key=lambda record: record.created, reverse=True)


def _show(record: Record, form: str) -> None:
    if form != "table":
        output.emit(output.record_json(record), form)
        return
    from faultline.units import Duration

    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    since = output.ago(time.time() - record.created)
    ended = "ended" if record.ended else "ends"
    reading = record.reading or {}
    output.say(f"{record.uid}: {record.fault}", bold=True)
    output.field("state", output.coloured(str(record.end or record.state)))
    output.field("begun", f"{begun} ({since} ago) by {record.creator or 'nobody named'}")
    asked = Duration(record.duration)
    output.field(ended, f"{output.remaining(record)}; asked for at most {asked}")
    output.field("parameters", parameters(record.params))
    if reading:
        output.field("effect", output.coloured(reading["effect"]))
        for name in ("asked", "measured", "reason", "method"):
            if reading.get(name):
                output.field(name, reading[name])
    if record.note:
        output.field("note", record.note)
    click.echo("changes")
    show_steps(record)
    if not record.ended:
        click.echo(f"undo it now: faultline recover {record.uid}")


def parameters(params: dict[str, Any]) -> str:
    """Parameters in one line, without those that say nothing."""
    given = {name: value for name, value in params.items() if value not in (None, "", [], {})}
    told = ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in given.items())
    return told or "none"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    many = cast("list[Any]", value) if isinstance(value, list) else [value]
    return " ".join(map(str, many))


def show_steps(record: Record) -> None:
    """Each change and how undoing it ended; for what was not undone, the exact commands."""
    from faultline.changes.kind import kinds

    known = kinds()
    for number, step in enumerate(record.steps, 1):
        kind, spec, outcome = step.change.kind, step.change.spec, step.outcome
        does = known[kind].describe(spec)[0] if kind in known else kind
        word = str(outcome.end) if outcome else str(step.state)
        why = f" ({outcome.detail})" if outcome and outcome.detail else ""
        click.echo(f"  {number}. {word}: {does}{why}")
        if outcome and not outcome.settled:
            for command in outcome.commands:
                click.echo(f"     by hand: {_quoted(command)}")


def _quoted(command: tuple[str, ...]) -> str:
    import shlex

    return shlex.join(command)


@click.command()
@click.argument("uid", required=False, shell_complete=_uids)
@click.option("--all", "everything", is_flag=True, help="Every fault of this store.")
@click.option("--scan", is_flag=True,
              help="Find our marks in the kernel and on disk, without any journal.")  # fmt: skip
@click.option("--folder", "folders", multiple=True, metavar="FOLDER",
              help="With --scan: look for files here as well.")  # fmt: skip
@output.format_option
def recover(
    uid: str | None, everything: bool, scan: bool, folders: tuple[str, ...], form: str
) -> int:
    """Undo a fault (UID), all of them (--all), or whatever carries our mark (--scan)."""
    if sum((bool(uid), everything, scan)) != 1:
        raise UsageError(
            "say what to recover: exactly one of UID, --all, --scan",
            hint="what there is: faultline query",
        )
    if folders and not scan:
        raise InvalidParameter("--folder", " ".join(folders), "to be used with --scan")
    with _recovery() as recovery:
        with output.waiting("undoing", quiet=form != "table"):
            if scan:
                records = recovery.recover_scan(folders)
            elif everything:
                records = recovery.recover_all()
            else:
                records = [recovery.recover(str(uid))]
        return report_recovery(recovery, records, form)


def report_recovery(recovery: Recovery, records: list[Record], form: str) -> int:
    """Say how each ended and whether anything is left; the exit status says the same."""
    left = {record.uid: recovery.residue_of(record) for record in records}
    if form != "table":
        output.emit([{**output.record_json(r), "residue": left[r.uid]} for r in records], form)
    else:
        for record in records:
            _show_end(record, left[record.uid])
        if not records:
            click.echo("nothing to recover")
    bad = any(r.end is End.PERSON or left[r.uid] for r in records)
    return EXIT_INCOMPLETE if bad else 0


def _show_end(record: Record, left: list[str]) -> None:
    before = time.time() - (record.ended or time.time())
    when = f", {output.ago(before)} ago" if before > 5 else ""
    proof = ""
    if record.end is not End.PERSON and not left:
        made = len(record.steps)
        what = f"none of its {made} changes is" if made > 1 else "its change is not"
        proof = f"; looked again: {what} there"
    click.echo(f"{record.uid}: {output.coloured(str(record.end))}{when}{proof}")
    if record.end is End.PERSON or left:
        show_steps(record)
    for item in left:
        click.secho(f"  still there: {item}", fg="red")


def _interval(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    from faultline.units import Duration

    every = Duration.parse(value, "--interval")
    if not Duration.parse("100ms") <= every <= Duration.parse("1h"):
        raise InvalidParameter("--interval", value, "100ms to 1h")
    return every.seconds


@click.command()
@click.option("-n", "--interval", default="1s", show_default=True, callback=_interval,
              metavar="DURATION", help="Time between two looks.")  # fmt: skip
@click.option("--count", type=click.IntRange(1), help="Stop after so many looks.")
@output.format_option
def watch(interval: float, count: int | None, form: str) -> int:
    """A live table of the faults that have not ended; Ctrl-C ends it.

    With --format json it is one line for each look, with yaml one document.
    """
    with _recovery() as recovery:
        recovery.adopt()
        try:
            for looked in _looks(interval, count):
                _look(recovery, form, again=looked > 0)
        except KeyboardInterrupt:
            click.echo(err=True)  # below what the terminal shows as ^C
    return 0


def _looks(interval: float, count: int | None) -> Iterator[int]:
    looked = 0
    while True:
        yield looked
        looked += 1
        if looked == count:
            return
        time.sleep(interval)


def _look(recovery: Recovery, form: str, again: bool) -> None:
    records = recovery.unfinished()
    if form != "table":
        import json

        data = {"at": time.time(), "faults": [output.record_json(record) for record in records]}
        if form == "json":
            click.echo(json.dumps(data, ensure_ascii=False))
        else:
            click.echo("---")
            output.emit(data, form)
        return
    rows = [output.record_row(record) for record in records]
    text = output.table(output.RECORD_HEADINGS, rows) if rows else "no active faults"
    terminal = output.terminal_width() is not None
    if terminal:  # over the last one, line by line: clearing first would flicker
        text = text.replace("\n", "\x1b[K\n")
        click.echo("\x1b[H" if again else "\x1b[2J\x1b[H", nl=False)
    click.echo(time.strftime("%H:%M:%S") + ("\x1b[K" if terminal else ""))
    click.echo(text + ("\x1b[K\n\x1b[J" if terminal else ""), nl=not terminal)
