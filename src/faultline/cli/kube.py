"""`kube`: what a Kubernetes cluster needs to know of us."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click

from faultline.cli import output
from faultline.cli.naming import Suggesting
from faultline.errors import UnknownName


def _faults() -> click.Command:
    from faultline.cli.kube_faults import faults

    return faults


def _proxy() -> click.Command:
    from faultline.cli.kube_proxy import proxy

    return proxy


def _recover() -> click.Command:
    from faultline.cli.kube_recover import recover

    return recover


def _deploy(name: str) -> click.Command:
    from faultline.cli import kube_deploy

    return getattr(kube_deploy, name)


ELSEWHERE: dict[str, Callable[[], click.Command]] = {
    "faults": _faults,
    "proxy": _proxy,
    "recover": _recover,
    **{
        name: partial(_deploy, name)
        for name in ("capabilities", "chart", "manifests", "quickstart", "uninstall")
    },
}
"""Commands with modules of their own: `kube faults` needs every parameter model, others do not."""


class Lazy(Suggesting):
    """Loads what is asked for alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        load = ELSEWHERE.get(cmd_name)
        return super().get_command(ctx, cmd_name) if load is None else load()


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


@kube.command()
@click.option("--namespace", metavar="NAME", default="faultline", show_default=True,
              help="That of the operator.")  # fmt: skip
@click.option("--only", type=click.Choice(["rules", "dashboard"]),
              help="The rules of a plain Prometheus, or the dashboard alone.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml")
def monitoring(namespace: str, only: str | None, form: str) -> int:
    """What Prometheus and Grafana need: Service, ServiceMonitor, PrometheusRule and dashboard."""
    from faultline.kube import monitoring as made

    if only is not None:
        output.emit(made.rules() if only == "rules" else made.dashboard(), form)
        return 0
    output.emit({"apiVersion": "v1", "kind": "List", "items": made.objects(namespace)}, form)
    return 0
