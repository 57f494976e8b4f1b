"""`signal`: what a person reports to a run: found, located, fixed."""

from __future__ import annotations

import time

import click

from faultline.cli import output
from faultline.cli.experiments import run_names
from faultline.cli.session import state_folder, store_place
from faultline.errors import UsageError


@click.command()
@click.argument("run", shell_complete=run_names)
@click.argument("name", metavar="found|located|fixed|NAME")
@click.option("--by", default="", metavar="WHO", help="Who reports it. Default: the caller.")
@click.option("--text", default="", help="What there is to say.")
@click.option("--ago", default="0s", metavar="DURATION", help="How long ago it was so, as `90s`.")
@click.option(
    "--id", "number", default="", help="A number of the sender: the same one counts once."
)
@output.format_option
def signal(run: str, name: str, by: str, text: str, ago: str, number: str, form: str) -> int:
    """Report to RUN (or `latest`) that its trouble was noticed, its cause found, or that it is
    mended.

    A probe of type webhook with that signal holds from then on; by it a run knows how long people
    took.
    """
    from faultline.engine.runs import Runs
    from faultline.engine.signals import read_signal, record_signal
    from faultline.units import Duration

    now = time.time()
    body = {"who": by or _caller(), "text": text, "id": number}
    told = read_signal(name, {**body, "at": now - Duration.parse(ago, "--ago").seconds}, now)
    with Runs(state_folder(), store=store_place()) as kept:
        if run == "latest":
            waiting = kept.unfinished()
            if not waiting:
                raise UsageError("no run is under way", hint="list them: faultline runs")
            run = waiting[0].metadata.name
        record_signal(kept.store, run, told)
    if form != "table":
        output.emit({"run": run, "signal": told.to_json()}, form)
    else:
        click.echo(f"{run}: {told.name}, reported by {told.who}")
    return 0


def _caller() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return ""
