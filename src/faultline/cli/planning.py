"""`run --plan`: what a run would do to whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output

if TYPE_CHECKING:
    from faultline.api.selector import Choice
    from faultline.engine.planning import Planned
    from faultline.engine.runs import Runs


def show(kept: Runs, file: Path, values: dict[str, Any], seed: int | None, form: str) -> int:
    """The faults of an experiment with their targets and changes, as they would be now."""
    experiment, base = kept.named(file, values)
    spec, planned = kept.ahead(experiment, values, base, seed)
    if form != "table":
        output.emit({"seed": spec.seed, "faults": [_data(each) for each in planned]}, form)
        return 0
    told: set[str] = set()
    for each in planned:
        if each.choice is not None and each.choice.node not in told:
            told.add(each.choice.node)
            _show_choice(each.choice)
        _show(each)
    if told:
        click.echo(f"what is left to chance is drawn from the seed {spec.seed}: --seed {spec.seed}")
    click.echo("nothing was touched")
    return 0


def _show(each: Planned) -> None:
    node = each.node
    where = each.words or _named(each) or "this host"
    title = f"{node.name}: {node.fault} on {where} for {node.duration}"
    output.say(output.harmless(title), bold=True)
    for number, change in enumerate(each.changes, 1):
        output.field(f"  {number}. do", output.harmless(change.describe))
        output.field("     undo", output.harmless(change.undo))


def _named(each: Planned) -> str:
    """A target that stands in the document."""
    target = each.node.target.model_dump(exclude_defaults=True)
    return " ".join(f"{kind} {value}" for kind, value in target.items() if kind != "start")


def _show_choice(choice: Choice) -> None:
    click.echo(output.harmless(f"{choice.node}: {choice.text}"))
    if choice.rest:
        rest = ", ".join(each.words for each in choice.rest)
        output.field("  not hit", output.harmless(rest))
    for words, why in choice.spared.items():
        output.field("  spared", output.harmless(f"{words}: {why}"))


def _data(each: Planned) -> dict[str, Any]:
    return {
        "name": each.node.name,
        "fault": each.node.fault,
        "duration": str(each.node.duration),
        "target": each.node.target.model_dump(exclude_defaults=True),
        "words": each.words,
        "changes": [{"do": one.describe, "undo": one.undo} for one in each.changes],
        "choice": each.choice.to_json() if each.choice is not None else None,
    }
