"""`approve`, `refuse`, `pause`, `continue`, `abort`, `rerun`: what people want of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from faultline.cli import output
from faultline.cli.experiments import run_names
from faultline.cli.session import state_folder, store_place

if TYPE_CHECKING:
    from faultline.api.run import Run
    from faultline.stores.model import Store

_run = click.argument("name", metavar="RUN", shell_complete=run_names)


def _answering(command: Callable[..., int]) -> Callable[..., int]:
    """The arguments of an answer to a node that asks."""
    for each in (
        click.option("--text", default="", help="Why."),
        click.option(
            "--by", default="", metavar="WHO", help="Whose answer it is; you, by default."
        ),
        click.argument("node", required=False, default=""),
        _run,
    ):
        command = each(command)
    return command


@contextmanager
def _store() -> Generator[Store]:
    from faultline.stores.opening import open_store

    store = open_store(store_place(), state_folder())
    try:
        yield store
    finally:
        store.close()


def _user() -> str:
    import getpass

    return getpass.getuser()


def _answer(name: str, node: str, said: Literal["continue", "refuse"], text: str, by: str) -> int:
    from faultline.api.graph_status import Approval
    from faultline.engine import wishes

    with _store() as store:
        if not node:
            asking = wishes.waiting(_of(store, name))
            if len(asking) != 1:
                raise click.UsageError(f"name the node; waiting are: {', '.join(asking) or 'none'}")
            node = asking[0]
        approval = Approval(node=node, answer=said, by=by or _user(), at=time.time(), text=text)
        wishes.answer(store, name, approval)
    output.say(f"{name}: {node}: {said}")
    return 0


def _of(store: Store, name: str) -> Run:
    from faultline.api.run import Run

    return store.get(Run, name)


@click.command()
@_answering
def approve(name: str, node: str, by: str, text: str) -> int:
    """Let RUN go on behind the NODE that asks; without NODE, behind the only one that does."""
    return _answer(name, node, "continue", text, by)


@click.command()
@_answering
def refuse(name: str, node: str, by: str, text: str) -> int:
    """Refuse what the NODE of RUN asks for: it is undone and ends, not measured."""
    return _answer(name, node, "refuse", text, by)


@click.command()
@_run
@click.option("--reason", default="paused by hand", show_default=True, help="Why.")
def pause(name: str, reason: str) -> int:
    """Begin nothing new in RUN. What is injected goes on, and ends when it should."""
    from faultline.engine import wishes

    with _store() as store:
        wishes.pause(store, name, reason)
    output.say(f"{name} begins nothing new; go on with: faultline continue {name}")
    return 0


@click.command("continue")
@_run
def proceed(name: str) -> int:
    """Go on with a paused RUN."""
    from faultline.engine import wishes

    with _store() as store:
        wishes.proceed(store, name)
    output.say(f"{name} goes on")
    return 0


@click.command()
@_run
@click.option("--reason", default="aborted by hand", show_default=True, help="Why.")
def abort(name: str, reason: str) -> int:
    """Undo every fault of RUN at once and end it."""
    from faultline.engine import runs

    with _store() as store:
        runs.abort(store, name, reason)
    output.say(f"{name} is undone by its engine; if none runs: faultline run --resume {name}")
    return 0


@click.command()
@_run
@click.option("--from", "node", required=True, metavar="NODE", help="The node to begin with.")
@click.option("--report", "target", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--no-report", is_flag=True, help="Write no report.")
@output.format_option
def rerun(name: str, node: str, target: Path | None, no_report: bool, form: str) -> int:
    """Carry RUN out once more from NODE: what succeeded before it is taken over."""
    from faultline.cli import experiments
    from faultline.engine import wishes

    with experiments.opened() as kept:
        made = wishes.rerun(kept.store, name, node, _user())
        return experiments.drive(kept, made.metadata.name, target, form, no_report=no_report)
