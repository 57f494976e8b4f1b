"""`kube`: what a Kubernetes cluster needs to know of us."""

from __future__ import annotations

import click

from faultline.cli import output
from faultline.cli.naming import Suggesting
from faultline.errors import UnknownName


class Lazy(Suggesting):
    """`kube faults` needs every parameter model, the others do not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "faults"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "faults":
            return super().get_command(ctx, cmd_name)
        from faultline.cli.kube_faults import faults

        return faults


@click.group(cls=Lazy)
def kube() -> None:
    """What a Kubernetes cluster needs to know of us, and the faults of its objects."""


@kube.command()
@click.argument("kinds", metavar="[KIND]...", nargs=-1)
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml")
def crds(kinds: tuple[str, ...], form: str) -> int:
    """The definitions of the custom resources, for `kubectl apply --server-side -f -`.

    They are made from the models: fields, bounds and explanations are those of the documents.
    """
    from faultline.api.kinds import KINDS
    from faultline.kube.crds import crd

    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UnknownName(f"there is no kind {unknown[0]!r}", hint=f"there are {', '.join(KINDS)}")
    made = [crd(kind) for kind in kinds or sorted(KINDS)]
    if form == "json":
        output.emit({"apiVersion": "v1", "kind": "List", "items": made}, form)
        return 0
    import yaml

    click.echo(yaml.safe_dump_all(made, sort_keys=False, allow_unicode=True), nl=False)
    return 0
