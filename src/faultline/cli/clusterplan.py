"""`plan -f`: who a Fault would hit in a cluster, and who would suffer with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output

if TYPE_CHECKING:
    from faultline.operator.planning import ClusterPlan

OPTIONS: tuple[Callable[[], click.Option], ...] = (
    lambda: click.Option(
        ["-f", "--file", "file"], type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A Fault for a cluster: show whom it would hit there.",
    ),
    lambda: click.Option(["--kubeconfig"], metavar="FILE", help="With -f: how it is reached."),
    lambda: click.Option(["--context"], metavar="NAME", help="With -f: which cluster."),
    lambda: click.Option(["--namespace"], metavar="NAME",
                         help="With -f: that of the Fault, unless it says so itself."),
    lambda: click.Option(["--seed"], default="plan", show_default=True,
                         help="With -f: what chance is drawn from, where it names nothing."),
    lambda: click.Option(["--format", "form"], **output.FORMAT),
)  # fmt: skip


def called(ctx: click.Context, **values: Any) -> int | None:
    """`plan -f FILE`; without it a fault of this host is named."""
    if values["file"] is None:
        if ctx.invoked_subcommand is None:
            raise click.exceptions.NoArgsIsHelpError(ctx)
        return None
    if ctx.invoked_subcommand is not None:
        raise click.UsageError("a file, or the name of a fault: not both", ctx)
    return _plan(**values)


def _plan(
    file: Path, kubeconfig: str | None, context: str | None, namespace: str | None, seed: str,
    form: str,
) -> int:  # fmt: skip
    from faultline.api.document import invalid_document, parse
    from faultline.cli.operator import connection
    from faultline.errors import UsageError
    from faultline.kubeapi.client import Client
    from faultline.operator import looking, peers, planning, previewing, resolving, views

    data = parse(file.read_text(), str(file))
    if data.get("kind") != "Fault":
        hint = "of an experiment: faultline run --plan FILE"
        raise UsageError(f"{file} is no Fault, it is {data.get('kind')!r}", hint=hint)
    spec, problems = views.read(data.get("spec"))
    if spec is None:
        raise invalid_document(str(file), problems)
    own = os.environ.get("FAULTLINE_NAMESPACE") or "faultline"
    rest = connection(kubeconfig, context)
    with closing(Client(rest)) as client:
        told: Any = data.get("metadata") or {}
        space = str(told.get("namespace") or namespace or rest.namespace)
        selector = resolving.selector_of(spec)
        more = {*peers.needs(spec, space), *(["owners"] if selector.objects is not None else [])}
        seen = looking.look(client, own, selector, space, more)
        previews = previewing.Previews(client, spec)
        made = planning.plan(spec, space, seed, seen, previews.of)
    if form != "table":
        output.emit(made.to_json(), form)
        return 0
    show(made)
    if selector.how != "all" and not selector.seed:
        click.echo("who is hit is drawn anew when it is applied, unless it names a seed")
    return 0


def show(made: ClusterPlan) -> None:
    """The plan for people."""
    from faultline.operator.hosts import OBJECTS

    output.say(output.harmless(f"{made.fault} for {made.duration}: {made.text}"), bold=True)
    for node in made.nodes:
        by_api = node.name == OBJECTS
        state = "its agent answers" if node.works else f"not possible here: {node.why}"
        if by_api:
            output.field("by", "the operator, over the API server alone")
        else:
            output.field(node.name, output.harmless(f"{state}; {node.others} other pods on it"))
        for each in node.targets:
            inside = f", {each.container} {each.container_id[:12]}" if each.container else ""
            output.field("  target", output.harmless(f"{each.words} (uid {each.uid}{inside})"))
            for done, undone in each.changes:
                output.field("    change", output.harmless(done))
                output.field("    undo", output.harmless(undone))
            if each.why:
                output.field("    refused", output.harmless(each.why))
        for name in node.share:
            output.field("  with it", output.harmless(f"{name}: it shares the network"))
    for budget in made.budgets:
        state = f"{budget.healthy} healthy, {budget.needed} needed"
        output.field("budget", f"{budget.path}: {budget.targets} of its pods; {state}")
    if made.rest:
        output.field("not hit", output.harmless(", ".join(made.rest[:20])))
    for words, why in list(made.spared.items())[:20]:
        output.field("spared", output.harmless(f"{words}: {why}"))
    for warning in made.warnings:
        output.field("warning", output.harmless(warning))
    click.echo("nothing was touched")
