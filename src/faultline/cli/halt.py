"""`halt`: everything is undone and nothing begins until it is lifted. No models: it starts fast."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from faultline.changes import halt as halts
from faultline.changes.model import End
from faultline.changes.store import Store, open_store
from faultline.cli import output, records
from faultline.cli.session import state_folder
from faultline.errors import Halted, UsageError
from faultline.kernel import clock

if TYPE_CHECKING:
    from faultline.injection.recovery import Recovery

PATIENCE = 10.0
"""Seconds for which runs that abort are waited for; what they broke is undone before."""


@click.command()
@click.argument("words", metavar="[REASON]", required=False, default="")
@click.option("--reason", help="Why; people who are refused are told.")
@click.option("--host", is_flag=True, help="For every user and store of this host (as root).")
@click.option("--lift", is_flag=True, help="Allow faults and runs again.")
@click.option("--status", is_flag=True, help="Say what is halted; exit status 3 if anything is.")
@output.format_option
def halt(words: str, reason: str | None, host: bool, lift: bool, status: bool, form: str) -> int:
    """Undo everything now and refuse new faults and runs until `faultline halt --lift`.

    Every fault of this store is undone at once; runs abort within a second.
    """
    why = reason or words
    if (lift and status) or (why and (lift or status)) or (reason and words):
        raise UsageError("say one: a REASON, --lift or --status", hint="faultline halt --help")
    store = open_store(state_folder())
    if status:
        return _status(store, form)
    if lift:
        return _lift(store, host, form)
    by = os.environ.get("SUDO_USER", "")
    if host:
        halts.host(why, by)
    from faultline.injection.recovery import Recovery

    with Recovery(state_folder()) as recovery:
        return _halt(recovery, why, by, form)


def _halt(recovery: Recovery, why: str, by: str, form: str) -> int:
    running = halts.engines(recovery.store)
    with output.waiting("undoing", quiet=form != "table"):
        done = recovery.halt(why, by)
    undone = since_start()
    with output.waiting("runs abort", quiet=form != "table"):
        ending = halts.still_carried_out(recovery.store, running, PATIENCE)
    over = since_start()
    if form == "table":
        status = records.report_recovery(recovery, done, form)
        click.echo(f"halted: {_count(done, 'fault')} undone {undone:.2f} s after the command began")
        if running:
            told = f"; still ending: {', '.join(ending)}" if ending else f" after {over:.2f} s"
            click.echo(f"runs stopped: {len(running) - len(ending)} of {len(running)}{told}")
        if not halts.lasting(recovery.store):
            output.say(
                f"until the next boot only: {recovery.store.halt} cannot be written", fg="yellow"
            )
        click.echo("lift it: faultline halt --lift")
        return status
    left = {record.uid: recovery.residue_of(record) for record in done}
    output.emit(
        {
            **_data(recovery.store),
            "faults": [{**output.record_json(r), "residue": left[r.uid]} for r in done],
            "runs": [{"name": name, "stopped": name not in ending} for name in running],
            "undoneAfter": round(undone, 3),
            "stoppedAfter": round(over, 3),
        },
        form,
    )
    bad = any(record.end is End.PERSON or left[record.uid] for record in done)
    return records.EXIT_INCOMPLETE if bad else 0


def _count(found: list[Any], noun: str) -> str:
    return f"{len(found)} {noun}{'' if len(found) == 1 else 's'}"


def since_start() -> float:
    """Seconds since this command was started, the loading of Python included."""
    with open("/proc/self/stat") as file:
        start = int(file.read().rpartition(")")[2].split()[19])  # field 22 (proc_pid_stat(5))
    return max(0.0, clock.now() / 1e9 - start / os.sysconf("SC_CLK_TCK"))


def _data(store: Store) -> dict[str, Any]:
    standing = [{**asdict(each), "path": str(each.path)} for each in halts.standing(store)]
    return {
        "halted": bool(standing),
        "lasting": halts.lasting(store),
        "halts": standing,
        "ignored": halts.ignored(store),
    }


def _status(store: Store, form: str) -> int:
    standing = halts.standing(store)
    if form != "table":
        output.emit(_data(store), form)
    else:
        for each in standing:
            output.say(f"halted: {each}", fg="yellow")
            click.echo(f"  {each.how_to_lift}")
        for each in halts.ignored(store):
            click.echo(f"does not count: {each}")
        if not standing:
            click.echo("not halted")
    return Halted.exit_code if standing else 0


def _lift(store: Store, host: bool, form: str) -> int:
    removed = halts.lift(store, whole_host=host)
    if form != "table":
        output.emit({**_data(store), "lifted": list(map(str, removed))}, form)
        return 0
    click.echo("lifted" if removed else "there was nothing to lift")
    for each in halts.standing(store):
        output.say(f"still halted: {each}; {each.how_to_lift}", fg="yellow")
    return 0
