"""`engine`: keeps the schedules and runs of this host without anybody at a terminal."""

from __future__ import annotations

import logging
import resource
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from faultline.changes.store import open_store
from faultline.cli import output
from faultline.cli.session import state_folder, store_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from faultline.api.run import Point, Run
    from faultline.engine.unattended import Manager
    from faultline.server.host import Host

UNIT = """\
[Unit]
Description=Faultline: schedules and runs of this host
After=network.target

[Service]
ExecStart={program} engine{options}
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.option("--listen", metavar="unix:FILE|127.0.0.1:PORT",
              help="Offer plan, inject, query, recover, runs and events over HTTP: at a socket "
              "that only its owner may open, or on loopback with a token.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path),
              help="Where the token lies that callers on loopback must give; made if it is not "
              "there.")  # fmt: skip
@click.option("--at-once", type=click.IntRange(1, 10000), default=1000, show_default=True,
              help="How many runs at the same time; others wait.")  # fmt: skip
@click.option("--unit", is_flag=True, help="Print a systemd unit for this engine and end.")
@click.option("--quiet", is_flag=True, help="Say nothing but warnings.")
def engine(
    listen: str | None, token_file: Path | None, at_once: int, unit: bool, quiet: bool
) -> int:
    """Keep the schedules and runs of this host's store, until it is told to end.

    Killed and started again it neither loses nor repeats a run. Runs that it leaves on SIGTERM go
    on with the next engine; their faults end at their deadlines whatever happens.
    """
    if unit:
        given = [
            *(["--listen", listen] if listen else []),
            *(["--token-file", str(token_file.absolute())] if token_file else []),
            "--at-once",
            str(at_once),
        ]
        options = "".join(f" {each}" for each in given)
        click.echo(UNIT.format(program=sys.argv[0], options=options), nl=False)
        return 0
    from faultline.engine.runs import Runs
    from faultline.engine.unattended import Manager

    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(message)s"
    )
    _make_room(at_once)
    opened = partial(Runs, state_folder(), store=store_place(), cached=True)
    keeper = Manager(opened, None if quiet else _tell, at_once)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ended_by(keeper))
    if listen is None:
        keeper.keep()
        return 0
    from faultline.server import serving

    state = state_folder()

    def host() -> Host:
        from faultline.engine.wiring import check_fault
        from faultline.injection.injector import Injector
        from faultline.server.host import Host

        return Host(opened, partial(Injector, state), check_fault, keeper.begin)

    def secret() -> Path:
        return token_file or open_store(state).state / "engine.token"

    with serving.served(host, listen, secret) as where:
        output.say(f"listening at {where}")
        keeper.keep()
    return 0


def _make_room(at_once: int) -> None:
    """Let this process have the descriptors that so many runs need: each has a lock, and its probes
    and faults some more for as long as they act.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 + 8 * at_once
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ended_by(keeper: Manager) -> Callable[[int, object], None]:
    def end(_number: int, _frame: object) -> None:
        keeper.stop()

    return end


def _tell(run: Run, point: Point) -> None:
    told = (
        "started",
        "injected",
        "effective",
        "recovered",
        "aborted",
        "approval wanted",
        "verdict",
    )
    if point.event in told:
        said = output.harmless(f"{point.node}: {point.text}" if point.node else point.text)
        click.echo(f"{run.metadata.name}  {point.event}  {said}")
