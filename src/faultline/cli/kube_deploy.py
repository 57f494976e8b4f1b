"""`kube manifests`, `chart`, `capabilities`, `quickstart`, `uninstall`: into a cluster, and out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import output

if TYPE_CHECKING:
    from faultline.kube.local import Made
    from faultline.kube.settings import Settings
    from faultline.kubeapi.client import Client

_PROFILES = ("full", "unprivileged", "api-only")  # of faultline.kube.settings
_EXAMPLE = "examples/web-show"


def _chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is put into the cluster."""
    for option in reversed((
        click.option("--profile", type=click.Choice(_PROFILES), help="How much agents may do on "
                     "their nodes; api-only: there are none. Default: full."),
        click.option("--namespace", default="faultline", show_default=True, metavar="NAME",
                     help="Where it runs."),
        click.option("--registry", metavar="HOST/PATH", help="Where the image lies."),
        click.option("--image", metavar="NAME[:TAG]", help="Its name there."),
        click.option("--values", "file", type=click.Path(exists=True, dir_okay=False,
                     path_type=Path), help="A file of values, as the chart takes it."),
        click.option("--set", "pairs", multiple=True, metavar="PATH=VALUE",
                     help="One value, as in --set agent.lease=60s."),
    )):  # fmt: skip
        function = option(function)
    return function


def _reached(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which cluster."""
    context = click.option("--context", metavar="NAME", help="Which one of it.")
    kubeconfig = click.option("--kubeconfig", metavar="FILE", help="How the cluster is reached.")
    return kubeconfig(context(function))


def _settings(given: Mapping[str, Any]) -> Settings:
    from faultline.api.document import parse
    from faultline.kube.settings import chosen

    file: Path | None = given["file"]
    values: dict[str, Any] = dict(parse(file.read_text(), str(file))) if file else {}
    if given["profile"]:
        values["profile"] = given["profile"]
    if given["registry"] is not None:
        values["registry"] = given["registry"].rstrip("/")
    if given["image"] is not None:
        values["image"], tag = _split(given["image"])
        values |= {"tag": tag} if tag else {}
        host = str(values["image"]).partition("/")
        if host[1] and (set(".:") & set(host[0]) or host[0] == "localhost"):
            values.setdefault("registry", "")  # it names its own
    return chosen(values, given["pairs"])


def _split(image: str) -> tuple[str, str]:
    """Name and tag, or digest; a colon before a slash is that of a port."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return name, digest
    head, colon, tag = image.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (image, "")


@click.command()
@_chosen
@click.option("--no-crds", is_flag=True, help="Without the definitions of the kinds.")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml")
def manifests(namespace: str, no_crds: bool, form: str, **given: Any) -> int:
    """All that runs in a cluster, for `kubectl apply --server-side -f -`.

    Made from the same functions as the Helm chart, and from the models of the documents.
    """
    from faultline.kube.manifests import objects

    made = objects(_settings(given), namespace, kinds=not no_crds)
    if form == "json":
        output.emit({"apiVersion": "v1", "kind": "List", "items": made}, form)
        return 0
    import yaml

    click.echo(yaml.safe_dump_all(made, sort_keys=False, allow_unicode=True), nl=False)
    return 0


@click.command()
@click.option("-o", "--output", "folder", required=True, metavar="FOLDER",
              type=click.Path(file_okay=False, path_type=Path), help="Where it goes.")  # fmt: skip
def chart(folder: Path) -> int:
    """Write the Helm chart, for `helm install faultline FOLDER`."""
    from faultline.kube.chart import files

    made = files()
    for name, text in made.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    output.say(f"{len(made)} files in {folder}")
    return 0


@click.command()
@click.argument("faults", nargs=-1, metavar="[FAMILY[.FAULT]]...")
@click.option("--names", is_flag=True, help="The names alone, as a pod lists them.")
@output.format_option
def capabilities(faults: tuple[str, ...], names: bool, form: str) -> int:
    """Which capabilities an agent needs without privileged mode, and what for; of all faults, or of
    those that are named.
    """
    from faultline.errors import UnknownName, nearest
    from faultline.injection import registry
    from faultline.kube.capabilities import needed

    known = {*registry.families(), *(registry.everything() if faults else ())}
    for each in faults:
        if each not in known:
            raise UnknownName(f"there is no fault or family {each!r}", hint=nearest(each, known))
    found = needed(faults)
    if form != "table":
        output.emit([{"capability": each.name, "why": each.text} for each in found], form)
        return 0
    for each in found:
        if names:
            click.echo(each.name)
        else:
            output.field(each.name, each.text, 17)
    return 0


# ------------------------------------------------------------------ quickstart


@click.command()
@_chosen
@_reached
@click.option("--local", is_flag=True, help="Make a cluster on this machine, also if there is one.")
@click.option("--dry-run", is_flag=True, help="Look at the machine, say what would be done.")
def quickstart(
    namespace: str, kubeconfig: str | None, context: str | None, local: bool, dry_run: bool,
    **given: Any,
) -> int:  # fmt: skip
    """Look at this machine, use the current cluster or make one, install, wait, say what is next.

    Where no cluster answers, one is made with kind, minikube or k3s, whichever is installed.
    """
    from faultline.kube import local as locally
    from faultline.kube.installing import apply, ready
    from faultline.kube.manifests import objects

    settings = _settings(given)
    for check in locally.machine():
        word = output.coloured("ok") if check.good else output.coloured("no")
        click.echo(f"  {word:4} {check.what}: {check.found}")
    client = None if local else _answering(kubeconfig, context)
    made: Made | None = None
    if client is None:
        tool = locally.tool()
        if dry_run:
            click.echo(f"would make a cluster with {tool}, and install {settings.reference} there")
            return 0
        made = locally.make(tool, output.say)
        if not locally.load(made, settings.reference, output.say):
            output.say(f"{settings.reference} is not on this machine: nodes fetch it")
        client = _client(made.kubeconfig or kubeconfig, made.context)
    elif dry_run:
        click.echo(f"would install {settings.reference} at {client.rest.server}")
        return 0
    with closing(client):
        major, minor = client.version()
        output.say(f"Kubernetes {major}.{minor} at {client.rest.server}", bold=True)
        count = apply(client, objects(settings, namespace))
        output.say(f"{count} objects applied; waiting until they work")
        agents = ready(client, namespace, agents=settings.profile != "api-only",
                       say=lambda text: output.say(f"  {text}"))  # fmt: skip
    _next(namespace, agents, made)
    return 0


def _next(namespace: str, agents: int, made: Made | None) -> None:
    """What a person may do now."""
    hosts = f"{agents} hosts are ready" if agents else "faults of Kubernetes objects are ready"
    output.say(f"{hosts}. Next:", bold=True)
    access = f" --kubeconfig {made.kubeconfig}" if made and made.kubeconfig else ""
    click.echo(f"  kubectl{access} get hosts")
    click.echo(
        f"  kubectl{access} apply -f {_EXAMPLE}/show.yaml    # a page that draws its latency"
    )
    click.echo(f"  faultline plan -f {_EXAMPLE}/slow.yaml          # whom a fault would hit")
    click.echo(f"  kubectl{access} apply -f {_EXAMPLE}/slow.yaml   # and look at the page")
    click.echo(f"out again: faultline kube uninstall --namespace {namespace}")
    if made is not None:
        click.echo(f"the cluster itself: {' '.join(made.remove)}")


def _answering(kubeconfig: str | None, context: str | None) -> Client | None:
    """The cluster that is meant, if one answers; named explicitly it has to."""
    from faultline.kubeapi.model import ApiError

    try:
        client = _client(kubeconfig, context)
        client.version()
    except ApiError as error:
        if kubeconfig or context or error.status:
            raise
        output.say(f"  no cluster answers: {error.message}")
        return None
    return client


def _client(kubeconfig: str | None, context: str | None) -> Client:
    from faultline.cli.operator import connection
    from faultline.kubeapi.client import Client

    return Client(connection(kubeconfig, context))


# ------------------------------------------------------------------ uninstall


@click.command()
@click.option("--namespace", default="faultline", show_default=True, metavar="NAME",
              help="Where it runs.")  # fmt: skip
@_reached
@click.option("--only-faults", is_flag=True,
              help="Undo every fault and no more, as Helm does first.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(
    namespace: str, kubeconfig: str | None, context: str | None, only_faults: bool, yes: bool
) -> int:
    """Undo every fault of a cluster, then delete all that Faultline is made of.

    It works whatever has gone before: where no operator leads, this command is the operator until
    the last fault is undone. Runs, schedules and other documents go with their kinds.
    """
    from faultline.cli.operator import connection
    from faultline.kube.leaving import Leaving

    with closing(_client(kubeconfig, context)) as client:
        what = "undo every fault" if only_faults else "undo every fault and delete Faultline"
        if not yes:
            click.confirm(f"{what} at {client.rest.server}?", abort=True)
        stand_in = None if only_faults else partial(
            _standing_in, partial(connection, kubeconfig, context)
        )  # fmt: skip
        leaving = Leaving(client, namespace, output.say, stand_in)
        try:
            leaving.faults()
        finally:
            if only_faults:
                leaving.lift()
        if only_faults:
            return 0
        gone = leaving.objects()
    for each in gone:
        output.say(f"  deleted {each}")
    output.say("nothing of it is left in the cluster", bold=True)
    click.echo("on the nodes /var/lib/faultline holds the journal of what was done there")
    return 0


@contextmanager
def _standing_in(connect: Callable[[], Any], namespace: str) -> Generator[None]:
    """An operator for the block: it leads if nobody else does."""
    from faultline.operator.app import Operator, Settings

    made = Operator(connect, Settings(namespace, lease=5.0))
    thread = threading.Thread(target=made.run, name="operator")
    thread.start()
    try:
        yield
    finally:
        made.stop()
        thread.join(30)
