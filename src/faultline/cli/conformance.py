"""`conformance`: whether a plug-in in any language keeps what ours keep."""

from __future__ import annotations

from pathlib import Path

import click

from faultline.cli import output
from faultline.places.model import HOST, PROCESS

EXIT_COMPLAINTS = 5


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--place", type=click.Choice((HOST, PROCESS)), default=HOST, show_default=True,
    help="On which kind of place: this host in a network of its own, or a process that has "
    "everything of its own, as a container has.",
)  # fmt: skip
@click.option(
    "--kill", type=click.IntRange(min=-1), default=0, show_default=True,
    help="Kill the injecting process with SIGKILL at so many random steps, and its keepers; "
    "-1: at every step.",
)  # fmt: skip
@click.option("--seed", type=click.INT, default=1, show_default=True, help="Which random steps.")
@output.format_option
def conformance(path: Path, place: str, kill: int, seed: int, form: str) -> int:
    """Try the examples of the manifest at PATH as our own faults are tried, on scratch ground.

    PATH may also be `probes:NAME`, `selectors:NAME` or `traffic:NAME` of an installed package. A
    probe or a selector has to answer in time, to refuse what is wrong, to say when it cannot
    measure, and to change nothing; a driver of traffic to send on time, to count right, and to
    stop.

    A fault is planned, refused what is wrong, injected, measured, recovered, left until its
    deadline: each time everything must be as before. Needs root. Exit status 5 if there are
    complaints.
    """
    from faultline.testing import plugins

    with output.waiting(f"trying {path.name}", quiet=form != "table"):
        told = plugins.check(path, place, kill, seed)
    bad = any(told.values())
    if form != "table":
        output.emit({"conforms": not bad, "checks": told}, form)
        return EXIT_COMPLAINTS if bad else 0
    for name, complaints in told.items():
        click.echo(f"{output.coloured('no' if complaints else 'works')}  {name}")
        for line in complaints:
            click.echo(f"    {output.harmless(line)}")
    return EXIT_COMPLAINTS if bad else 0
