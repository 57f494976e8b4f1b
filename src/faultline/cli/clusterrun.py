"""`run` in a cluster: the run is made there, carried out by the operator, and followed from here.

Nothing of this host is used but its kubeconfig, so it works on every system.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from faultline.cli import output
from faultline.cli.session import state_folder, store_place
from faultline.errors import FaultlineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from faultline.api.experiment import Experiment, FaultNode
    from faultline.api.run import Point, Run
    from faultline.stores.kube import KubeStore

EVERY = 5.0  # seconds after which it is read again even if the server tells of no change
PATIENCE = 15.0  # seconds after which it is told that no operator has begun it
ENVIRONMENT = "FAULTLINE_STORE"


def meant(
    asked: bool | None, file: Path | None, values: dict[str, Any], resumed: str | None = None
) -> bool:
    """Whether the operator is to carry it out: as was asked for, else where nobody here could."""
    place = store_place() or os.environ.get(ENVIRONMENT) or ""
    inside = place.startswith("kube://")
    if asked and not inside:
        raise UsageError(
            "--operator needs a cluster", hint="name it: faultline --store kube://NAMESPACE run ..."
        )
    if not inside or asked is not None:
        return bool(asked)
    if sys.platform != "linux":
        return True
    if resumed:
        with opened() as store:
            return is_of_operator(store, resumed)
    if file is None or not file.is_file():
        return False
    from faultline.engine import runs

    return any(each.selector is not None for each in aims(runs.load(file, values)))


def aims(experiment: Experiment) -> list[FaultNode]:
    """All its faults, those of nodes too."""
    from faultline.api.graph import FaultStep, walk

    spec = experiment.spec
    steps = [step for _, step in (*walk(spec.nodes), *walk(spec.finally_, "spec.finally"))]
    return [*spec.faults, *cast("list[Any]", [s for s in steps if isinstance(s, FaultStep)])]


def opened() -> KubeStore:
    """The store, which is in a cluster."""
    from faultline.stores.opening import open_store

    return cast("KubeStore", open_store(store_place(), state_folder()))


def named(store: KubeStore, source: Path, values: dict[str, Any]) -> tuple[Experiment, Path]:
    """The experiment of a file, or of that name in the cluster."""
    from faultline.engine import runs, stored

    if source.is_file():
        return runs.load(source, values), source.parent
    return stored.get(store, str(source), values), Path()


def create(
    store: KubeStore, source: Path, values: dict[str, Any], creator: str, seed: int | None
) -> Run:
    """Make the run."""
    from faultline.api.run import ENGINE, OPERATOR
    from faultline.engine import runs
    from faultline.operator.running.bounds import check_fault

    experiment, base = named(store, source, values)
    return runs.create(
        store, experiment, values, creator=creator, check=check_fault, base=base, seed=seed,
        labels={ENGINE: OPERATOR},
    )  # fmt: skip


def unfinished(store: KubeStore, wanted: str) -> str:
    """The run of this name, or the latest that has not ended."""
    from faultline.stores.model import Filter

    if wanted != "latest":
        return wanted
    found = store.summaries("Run", Filter(ended=False), 1)
    if not found:
        raise UsageError("there is no run to follow", hint="list them: faultline runs")
    return found[0].name


def is_of_operator(store: KubeStore, wanted: str) -> bool:
    """Whether an operator carries it out, so that it is only followed from here."""
    from faultline.api.run import ENGINE, OPERATOR
    from faultline.stores.model import Filter

    where = Filter(ended=False) if wanted == "latest" else Filter(names=(wanted,))
    found = store.summaries("Run", where, 1)
    return bool(found) and (found[0].labels.get(ENGINE) == OPERATOR or not found[0].creator)


def follow(store: KubeStore, name: str, tell: Callable[[Run, Point], None]) -> Run:
    """Tell of the run until it has ended. Interrupted once it is aborted, twice it is left."""
    follower = _Follower(store, name, tell)
    while True:
        try:
            return follower.until_ended()
        except KeyboardInterrupt:
            if follower.aborted:
                click.echo(f"left: it goes on in the cluster; its end: faultline runs {name}",
                           err=True)  # fmt: skip
                raise
            follower.abort()


class _Follower:
    """One run that is followed."""

    def __init__(self, store: KubeStore, name: str, tell: Callable[[Run, Point], None]) -> None:
        self._store, self._name, self._tell = store, name, tell
        self._told = 0
        self._begun = time.monotonic()
        self._hinted = self._away = False
        self.aborted = False

    def until_ended(self) -> Run:
        from faultline.api.run import Phase, Run
        from faultline.kubeapi.following import follow
        from faultline.kubeapi.model import ApiError, version_of
        from faultline.stores.kube_calls import kind_of
        from faultline.stores.model import StoreFailed

        kind, store, seen = kind_of(Run), self._store, ""
        while True:
            try:
                follow(
                    store.client, kind, self._name, store.namespace,
                    lambda raw, seen=seen: version_of(raw) != seen, EVERY,
                )  # fmt: skip
                run = store.get(Run, self._name)
            except (ApiError, StoreFailed) as error:
                self._silent(error)
                continue
            self._away, seen = False, str(run.metadata.resource_version)
            for point in run.status.timeline[self._told :]:
                self._tell(run, point)
            self._told = max(self._told, len(run.status.timeline))
            if run.status.phase is Phase.ENDED:
                return run
            self._waits(run)

    def _silent(self, error: FaultlineError) -> None:
        if not self._away:
            click.echo(f"the cluster does not answer; waiting: {error.message}", err=True)
        self._away = True
        time.sleep(1.0)

    def _waits(self, run: Run) -> None:
        late = time.monotonic() - self._begun > PATIENCE
        if run.status.started is None and late and not self._hinted:
            self._hinted = True
            click.echo(
                "no operator has begun it yet: kubectl -n faultline get pods; waiting", err=True
            )

    def abort(self) -> None:
        """Ask for its end; everything is undone there."""
        from faultline.engine import runs

        self.aborted = True
        click.echo("interrupted: it is undone; once more to leave it alone", err=True)
        runs.abort(self._store, self._name, "interrupted")


def show(store: KubeStore, source: Path, values: dict[str, Any], form: str) -> int:
    """Whom the faults of an experiment would hit now; nothing is touched."""
    from faultline.api.targets import AimedFaultSpec
    from faultline.cli import clusterplan
    from faultline.operator import looking, planning, previewing, resolving

    experiment, _ = named(store, source, values)
    own = os.environ.get("FAULTLINE_NAMESPACE") or "faultline"
    told: list[dict[str, Any]] = []
    for node in aims(experiment):
        fields = {name: getattr(node, name) for name in AimedFaultSpec.model_fields}
        spec = AimedFaultSpec.model_construct(**fields)
        selector = resolving.selector_of(spec)
        seen = looking.look(store.client, own, selector, store.namespace)
        previews = previewing.Previews(store.client, spec)
        made = planning.plan(spec, store.namespace, "plan", seen, previews.of)
        told.append({"node": node.name, **made.to_json()})
        if form == "table":
            output.say(f"{node.name}:", bold=True)
            clusterplan.show(made)
    if form != "table":
        output.emit(told, form)
    return 0
