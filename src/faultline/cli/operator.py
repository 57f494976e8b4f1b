"""`operator`: faults of a Kubernetes cluster, asked of the agents of its nodes."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from faultline.kubeapi.model import Rest
    from faultline.operator.admission.service import Address

WRITERS = 4
_POLICY = frozenset({"opt_in", "protect"})


@click.command()
@click.option(
    "--kubeconfig", metavar="FILE", help="How the cluster is reached; in a pod not needed."
)
@click.option("--context", metavar="NAME", help="Which one of it.")
@click.option(
    "--namespace", metavar="NAME", help="Its own, and that of its agents. Default: faultline."
)
@click.option("--rate", type=click.FloatRange(1, 10000), default=100, show_default=True,
              help="Requests a second to the API server, on average.")  # fmt: skip
@click.option("--lease", type=click.FloatRange(3, 300), default=15, show_default=True,
              help="Seconds after which another operator takes over from a dead one.")  # fmt: skip
@click.option("--metrics", metavar="HOST:PORT",
              help="Where /metrics is answered, for Prometheus: in a pod 0.0.0.0:9095. Without it "
              "nothing listens.")  # fmt: skip
@click.option("--webhook", metavar="HOST:PORT",
              help="Where the API server asks whether those who ask for a fault may do what it "
              "does: in a pod 0.0.0.0:9443.")  # fmt: skip
@click.option("--webhook-service", metavar="NAME[:PORT]",
              help="By which Service of its namespace the API server reaches it. Default in a pod: "
              "faultline-webhook.")  # fmt: skip
@click.option("--webhook-url", metavar="URL",
              help="Or by which address: https://HOST:PORT. Default outside of a pod: that of "
              "--webhook.")  # fmt: skip
@click.option(
    "--trust-all",
    is_flag=True,
    help="Instead of --webhook: whoever may create a Fault may have it do anything.",
)
@click.option(
    "--opt-in",
    is_flag=True,
    help="Hit only namespaces that are annotated with faultline.dev/allow=true.",
)
@click.option(
    "--protect",
    metavar="PATTERN",
    multiple=True,
    help="Namespaces that are never hit, besides those annotated so.",
)
@click.option(
    "--runs-in",
    metavar="PATTERN",
    multiple=True,
    help="Namespaces in which it carries out Runs and Schedules. Without it: all.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but warnings.")
def operator(
    kubeconfig: str | None, context: str | None, namespace: str | None, rate: float, lease: float,
    metrics: str | None, quiet: bool, **admission: Any,
) -> int:  # fmt: skip
    """Carry out the Faults of a Kubernetes cluster through the agents of its nodes.

    Of several operators one leads; when it dies, another one goes on where it was. On SIGTERM it
    ends at once and faults go on to their deadlines.
    """
    from faultline.operator.app import Operator, Settings

    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(message)s"
    )
    runs_in = tuple(admission.pop("runs_in")) or ("*",)
    connect = partial(connection, kubeconfig, context)
    own = namespace or os.environ.get("FAULTLINE_NAMESPACE") or "faultline"
    address = _address(**{key: admission[key] for key in admission if key not in _POLICY})
    made = Operator(
        connect, Settings(own, rate, WRITERS, lease, address, admission["opt_in"],
                          tuple(admission["protect"]), runs=runs_in),
    )  # fmt: skip

    def end(_number: int, _frame: object) -> None:
        made.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if metrics is None:
        made.run()
        return 0
    from faultline.operator.exposition import serve

    unserved = serve(made, metrics)
    try:
        made.run()
    finally:
        unserved()
    return 0


def _address(
    webhook: str | None, webhook_service: str | None, webhook_url: str | None, *, trust_all: bool
) -> Address | None:
    """Where the webhook is; None if everybody is to be trusted. Raises UsageError."""
    from faultline.errors import UsageError
    from faultline.operator.admission.service import SERVICE, Address

    if webhook is None:
        if webhook_service or webhook_url:
            raise UsageError("where does the webhook listen?", hint="--webhook 0.0.0.0:9443")
        if not trust_all:
            raise UsageError(
                "nobody would look at whether those who create Faults may do what these do",
                hint="--webhook HOST:PORT (docs/admission.md), or --trust-all",
            )
        return None
    if trust_all:
        raise UsageError("either --webhook or --trust-all")
    if not webhook_service and not webhook_url and "KUBERNETES_SERVICE_HOST" in os.environ:
        webhook_service = SERVICE
    return Address.read(webhook, webhook_url or "", webhook_service or "")


def connection(kubeconfig: str | None, context: str | None) -> Rest:
    """In a pod its own account, with nothing but the standard library; else as kubectl has it."""
    if not kubeconfig and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
        from faultline.kubeapi.plain import Plain, of_pod

        return Plain(of_pod())
    from faultline.kubeapi.kubeconfig import connect

    return connect(kubeconfig or "", context or "")
