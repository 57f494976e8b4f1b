"""`agent`: the faults of one host, as its `Host` object in a Kubernetes cluster wants them."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from faultline.changes import frozen
from faultline.changes.store import default_state, make_private, open_store
from faultline.cli.session import state_folder
from faultline.errors import UsageError
from faultline.units import Duration


@click.command()
@click.option("--node", help="The name of its Host object. Default: the name of this machine.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="How the API server is reached. Default: by the service account of this pod.",
)
@click.option("--context", default="", help="Which context of that file.")
@click.option("--namespace", default="faultline", show_default=True, help="Where its Lease lies.")
@click.option(
    "--lease",
    default="40s",
    show_default=True,
    help="Everything is undone when the API server was not reached for so long, except what is to "
    "survive that.",
)
@click.option("--renew", default="10s", show_default=True, help="How often the lease is renewed.")
@click.option(
    "--no-doctor",
    is_flag=True,
    help="Do not try which faults work here, at the start and once a day.",
)
@click.option(
    "--leave",
    is_flag=True,
    help="On SIGTERM leave faults as they are: the next agent goes on with them.",
)
def agent(**given: Any) -> int:
    """Make this host suffer what its Host object says, and report what it suffers.

    Nothing listens: it asks the API server. On SIGTERM everything of it is undone first.
    """
    from faultline.agent.child import Programs
    from faultline.agent.options import Options, encoded
    from faultline.kubeapi.plain import of_pod

    holds, every = (
        Duration.parse(given["lease"], "--lease") / 1e9,
        Duration.parse(given["renew"], "--renew") / 1e9,
    )
    if not 0 < every * 2 <= holds:
        raise UsageError("the lease must hold for at least two renewals", hint="--lease 40s")
    store = open_store(state_folder() or default_state())
    root = str(Path(__file__).resolve().parents[2])
    file, namespace = given["kubeconfig"], given["namespace"]
    access = _access(file, given["context"], store.run / "agent") if file else of_pod()
    options = Options(
        node=given["node"] or platform.node(),
        access=replace(access, namespace=namespace),
        programs=Programs(root, sys.executable, str(store.state)),
        namespace=namespace,
        lease=holds,
        renew=every,
        doctor=not given["no_doctor"],
        undo=not given["leave"],
    )
    # In this very process, but with a bare interpreter: what was loaded to get here goes.
    words = frozen.command(root, "agent.main", encoded(options))
    os.environ["MALLOC_ARENA_MAX"] = "1"  # mallopt(3): threads that mostly wait share one
    os.execv(words[0], words)  # noqa: S606 (no shell is what we want)


def _access(kubeconfig: Path, context: str, folder: Path) -> Any:
    """What a kubeconfig says, with certificates and tokens as files; raises UsageError."""
    import base64

    import yaml

    from faultline.kubeapi.plain import Access

    make_private(folder)

    def file(part: dict[str, Any], name: str) -> Path | None:
        if part.get(name):
            return (kubeconfig.parent / part[name]).absolute()
        text = part.get(f"{name}-data")
        return _write(folder / name, base64.b64decode(text)) if text else None

    try:
        told = yaml.safe_load(kubeconfig.read_text())
        wanted = context or told["current-context"]
        chosen = _named(told, "contexts", wanted)["context"]
        cluster = _named(told, "clusters", chosen["cluster"])["cluster"]
        user = _named(told, "users", chosen["user"])["user"]
        token = Path(user["tokenFile"]) if user.get("tokenFile") else None
        if user.get("token"):
            token = _write(folder / "token", str(user["token"]).encode())
        certificate, key = file(user, "client-certificate"), file(user, "client-key")
        if token is None and certificate is None:
            raise UsageError(
                f"{kubeconfig} has neither a token nor a certificate for {chosen['user']!r}",
                hint="an agent runs no program for its credentials: make it a service account",
            )
        return Access(
            cluster["server"],
            file(cluster, "certificate-authority"),
            token,
            (certificate, key) if certificate and key else None,
        )
    except (OSError, yaml.YAMLError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise UsageError(f"{kubeconfig} cannot be used: {error}") from error


def _named(told: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = told[part]
    return next(each for each in listed if each["name"] == name)


def _write(file: Path, data: bytes) -> Path:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as made:
        made.write(data)
    return file
