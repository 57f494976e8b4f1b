"""`kube proxy`: an API server that lags, fails and breaks, for one client of it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import click

from faultline.cli import output
from faultline.errors import UsageError
from faultline.units import Duration

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--kubeconfig", metavar="FILE", default="", help="How the cluster is reached.")
@click.option("--context", metavar="NAME", default="", help="Which one of it.")
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:0", show_default=True,
              help="Where the client finds it; beyond loopback with TLS.")  # fmt: skip
@click.option("--write", type=FILE, help="The kubeconfig for the client, made for as long as this "
              "runs. COMMAND finds it in KUBECONFIG.")  # fmt: skip
@click.option("-f", "--file", "files", type=FILE, multiple=True,
              help="Documents of kind Fault; faults come and go with them.")  # fmt: skip
@click.option("--fault", "lines", metavar="FAULT[,KEY=VALUE]...", multiple=True,
              help="One fault: error,status=409,verbs=update,percent=30%.")  # fmt: skip
@click.option("--for", "time", metavar="DURATION", help="End after that.")
@click.option("--certificate", type=FILE, help="What it shows to the client; with --key.")
@click.option("--key", type=FILE, help="The key of it.")
@click.option("--name", default="", help="By which name clients reach it, with TLS.")
@click.option("--format", "form", **output.FORMAT)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def proxy(
    files: tuple[Path, ...], lines: tuple[str, ...], time: str | None, form: str,
    command: tuple[str, ...], certificate: Path | None, key: Path | None, **given: Any,
) -> int:  # fmt: skip
    """Stand between one client and the API server, and make it suffer.

    The client uses the kubeconfig that is written; all others ask the server as before. Runs until
    SIGTERM, until --for is over, or until COMMAND has ended, whose exit code it takes; then says
    what was asked and what was measured.
    """
    from faultline.kube.proxy import running, wishes

    if (certificate is None) != (key is None):
        raise UsageError("--certificate and --key belong together")
    options = running.Options(
        **given,
        files=files,
        wishes=tuple(wishes.of_line(line, n) for n, line in enumerate(lines, 1)),
        seconds=None if time is None else Duration.parse(time, "--for").seconds,
        command=command,
        certificate=(certificate, key) if certificate is not None and key is not None else None,
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")

    def ready(url: str, file: Path) -> None:
        click.echo(f"kubeconfig {file}\nserver     {url}", err=True)

    ended = asyncio.run(running.run(options, ready))
    if form != "table":
        output.emit({"requests": ended.requests, "faults": ended.faults}, form)
        return ended.code
    output.say(f"{ended.requests} requests", bold=True)
    for each in ended.faults:
        told = each["reading"]
        measured = f"{told['effect']}: asked {told['asked']}, measured {told['measured'] or '-'}"
        reason = f" ({told['reason']})" if told["reason"] else ""
        output.field(each["name"], output.harmless(f"{each['fault']} {measured}{reason}"))
    return ended.code
