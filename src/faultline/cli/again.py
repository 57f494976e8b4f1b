"""`replay`, `shrink`, `regression`: an ended run once more, as it was, with as few faults as still
fail, or at the value that a search found to be borne.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import experiments, output
from faultline.cli.experiments import run_names
from faultline.cli.session import write
from faultline.errors import UsageError

if TYPE_CHECKING:
    from faultline.api.run import Run
    from faultline.engine.runs import Runs
    from faultline.engine.shrinking import Done, Entry

EXIT_INTERRUPTED = 130

_run = click.argument("name", metavar="RUN", shell_complete=run_names)


@click.command()
@_run
@click.option("--measured/--as-asked", default=True, show_default=True,
              help="Begin each fault and node when it began then, for as long as it lasted; or as "
              "the experiment asks.")  # fmt: skip
@click.option("--retarget", is_flag=True,
              help="Find the targets anew. Without it the faults act on what they acted on then, "
              "and where that has gone nothing is done.")  # fmt: skip
@click.option("--answers", is_flag=True,
              help="Give the answers that people gave to the nodes that asked, after as long. "
              "Without it they are asked again.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), metavar="NUMBER",
              help="Choose by this number. Without it, by that of RUN.")  # fmt: skip
@click.option("--report", "target", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--no-report", is_flag=True, help="Write no report.")
@output.format_option
def replay(
    name: str, target: Path | None, no_report: bool, form: str, *, retarget: bool, **wanted: Any
) -> int:
    """Carry out once more what RUN did: the same values, choices, targets and times, from its
    record.

    The file of the experiment is not read. The exit status is that of the new run's verdict.
    """
    from faultline.engine import replaying, replays

    wishes = replaying.Wishes(
        timings=wanted["measured"], targets=not retarget, answers=wanted["answers"],
        seed=wanted["seed"],
    )  # fmt: skip
    with experiments.opened() as kept:
        old = kept.get(name)
        made = replays.replay(kept, old, wishes, _user())
        if old.spec.seed is None and wishes.seed is None and form == "table":
            seed = made.spec.seed
            output.say(f"{name} has no seed: what this run chooses is drawn anew, from {seed}")
        return experiments.drive(kept, made.metadata.name, target, form, no_report=no_report)


@click.command()
@_run
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the smallest experiment that still fails here, as YAML.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 100), default=1, show_default=True,
              help="How often a set of faults is tried, at most.")  # fmt: skip
@click.option("--failures", type=click.IntRange(1, 100), default=1, show_default=True,
              help="How often of these it must fail to count as failing.")  # fmt: skip
@click.option("--most", type=click.IntRange(1, 1000), default=50, show_default=True,
              help="How many runs in all.")  # fmt: skip
@output.format_option
def shrink(
    name: str, target: Path | None, repeats: int, failures: int, most: int, form: str
) -> int:
    """Find the fewest faults of RUN that still give its verdict, by runs with some of them.

    Interrupted, it goes on where it was when it is called again: its runs are its memory. Exit
    status 0 if a smallest set was found, 4 if RUN's verdict did not come again.
    """
    from faultline.engine import repeating, shrinking

    if failures > repeats:
        raise UsageError("--failures cannot be more than --repeats")
    settings = shrinking.Settings(repeats=repeats, failures=failures, trials=most)
    with experiments.opened() as kept:
        old = kept.get(name)
        faults = repeating.faults_of(old.spec.resolved)
        _check(old, faults)
        history, rows = _earlier(kept, old)
        while isinstance(step := shrinking.next_subset(faults, history, settings), shrinking.Ask):
            done = _tried(kept, old, step.faults)
            history.append(shrinking.Entry(step.faults, repeating.compared(old, done)))
            rows.append(_row(history[-1], done))
            if form == "table":
                click.echo("  ".join(rows[-1]))
            if done.status.aborted_by == "user":
                return EXIT_INTERRUPTED
        _conclude(old, step, rows, target, form)
    return 0 if step.fails else 4


@click.command()
@_run
@click.argument("node", required=False, default="")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path),
              help="Write it here.")  # fmt: skip
def regression(name: str, node: str, target: Path | None) -> int:
    """The experiment of RUN with its search (of NODE) as one fault, at a value that is borne.

    It is printed as YAML, or written to a file: run it on every release.
    """
    import yaml

    from faultline.engine.search.regression import regression as made_from

    with experiments.opened() as kept:
        old = kept.get(name)
    searches = {each.name: each.search for each in old.status.nodes if each.search is not None}
    chosen = node or (next(iter(searches)) if len(searches) == 1 else "")
    if chosen not in searches:
        raise UsageError(
            f"name the search of run {name}", hint=f"it has: {', '.join(searches) or 'none'}"
        )
    document = made_from(_document(old, old.spec.resolved.to_json()), chosen, searches[chosen])
    if document is None:
        raise UsageError(f"{chosen} of run {name} found no value that is borne")
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if target:
        write(target, text)
    output.say(f"written: {target}" if target else text.rstrip())
    return 0


def _document(old: Run, spec: dict[str, Any], ending: str = "") -> dict[str, Any]:
    return {
        "apiVersion": old.api_version,
        "kind": "Experiment",
        "metadata": {"name": f"{old.spec.experiment[:230]}{ending}"},
        "spec": spec,
    }


def _check(old: Run, faults: list[str]) -> None:
    if not old.status.verdict or old.status.verdict == "held":
        raise UsageError(
            f"run {old.metadata.name} did not fail: {old.status.verdict or 'it has not ended'}",
            hint="shrinking looks for the fewest faults that still fail",
        )
    if len(faults) < 2:
        raise UsageError(
            f"run {old.metadata.name} has {len(faults)} fault: nothing can be left out"
        )


def _tried(kept: Runs, old: Run, faults: tuple[str, ...]) -> Run:
    """A run of these faults alone, carried out to its end."""
    from faultline.engine import repeating, replays

    spec = repeating.spec_of(old, _user())
    smaller = repeating.with_only(spec.resolved, faults)
    made = replays.made(kept, old, repeating.SHRINK, spec.model_copy(update={"resolved": smaller}))
    return kept.driver(made.metadata.name).drive()


def _earlier(kept: Runs, old: Run) -> tuple[list[Entry], list[tuple[str, ...]]]:
    """What earlier calls have tried, oldest first; what was interrupted does not count."""
    from faultline.engine import repeating, shrinking
    from faultline.stores.model import Filter

    where = Filter(labels={repeating.SHRINK: old.metadata.name}, ended=True)
    history: list[Entry] = []
    rows: list[tuple[str, ...]] = []
    for each in reversed(kept.summaries(where)):
        done = kept.get(each.name)
        if done.status.aborted_by == "user":
            continue
        faults = tuple(repeating.faults_of(done.spec.resolved))
        history.append(shrinking.Entry(faults, repeating.compared(old, done)))
        rows.append(_row(history[-1], done))
    return history, rows


def _row(entry: Entry, done: Run) -> tuple[str, ...]:
    verdict = str(done.status.verdict or "-")
    return done.metadata.name, str(entry.answer), verdict, ", ".join(entry.faults)


def _conclude(
    old: Run, step: Done, rows: list[tuple[str, ...]], target: Path | None, form: str
) -> None:
    from faultline.engine import repeating

    smallest = repeating.with_only(old.spec.resolved, step.faults)
    document = _document(old, smallest.to_json(), "-smallest")
    if target and step.fails:
        import yaml

        write(target, yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100))
    if form != "table":
        output.emit(
            {
                "fails": step.fails,
                "minimal": step.minimal,
                "why": step.why,
                "faults": list(step.faults),
                "trials": [
                    dict(zip(("run", "answer", "verdict", "faults"), row, strict=True))
                    for row in rows
                ],
                "experiment": document if step.fails else None,
            },
            form,
        )
        return
    click.echo()
    click.echo(output.table(("RUN", "ANSWER", "VERDICT", "FAULTS"), rows))
    if not step.fails:
        output.say(f"{old.metadata.name}: {step.why}; with --repeats more it may")
        return
    sure = "none of them can be left out" if step.minimal else step.why
    output.say(f"{', '.join(step.faults)}: {old.status.verdict} ({sure})", bold=True)
    if target:
        output.say(f"written: {target}")


def _user() -> str:
    import getpass

    return getpass.getuser()
