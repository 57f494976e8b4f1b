"""`demo`: a real experiment on a real server, in a network namespace of its own.

Root is not needed where user namespaces are allowed. Nothing outside the namespace is touched: the
server, its clients and the fault live inside and end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import click

from faultline.changes import keepers
from faultline.changes.store import ENVIRONMENT, default_state, open_store
from faultline.cli import experiments, output
from faultline.cli.session import state_folder
from faultline.errors import Unsupported

PORT = 8080


@click.command()
@click.option("--report", type=click.Path(path_type=Path), help="Write the HTML report here.")
def demo(report: Path | None) -> int:
    """Slow a real service's network by 100 ms for 15 s, measure it, undo it, and prove both.

    Takes less than a minute. Exit status as of `faultline run`.
    """
    state = (state_folder() or default_state()) / "demo"
    os.environ[ENVIRONMENT] = str(state)
    target = (report or state / "report.html").absolute()
    open_store(state)
    output.say(
        "Faultline demo: does a service stay usable when its network is 100 ms slower?", bold=True
    )
    _enter()
    store = open_store(state)
    command = [sys.executable, "-P", "-m", "faultline.demo.service", "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            click.echo(service.stdout.readline().strip())
            with as_file(files("faultline.demo") / "experiment.yaml") as document:
                return experiments.carry_out(document, {}, target)
        finally:
            service.terminate()
            keepers.dismiss(store)


def _enter() -> None:
    """Enter namespaces of our own, or say exactly why that is not possible here."""
    from faultline.injection import trial

    root = os.geteuid() == 0
    try:
        trial.isolate()
    except OSError as error:
        raise Unsupported(
            f"a network namespace could not be made: {error.strerror}",
            hint="this container forbids namespaces: allow CAP_SYS_ADMIN, or use another machine"
            if root
            else "run it as root: sudo ./run demo",
        ) from error
    kind = (
        "a network namespace of its own"
        if root
        else "a user and network namespace (no root needed)"
    )
    click.echo(f"everything below happens in {kind}")
