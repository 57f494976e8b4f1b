"""What a run is to do: filled in from the experiment that it names.

Whoever makes a run by a command has the experiment at hand. A run that somebody applies in a
cluster says no more than a name and values; who takes it up fills in the rest, once, before it
begins.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from faultline.api import admission
from faultline.api.experiment import Experiment
from faultline.api.run import Failure, Phase, Point, Run, RunSpec, Verdict
from faultline.engine import seeds, stored
from faultline.engine.children import Finder, Load
from faultline.errors import FaultlineError, UnknownName
from faultline.kernel import clock
from faultline.stores.model import Stale, Store

PATIENCE = 10.0
"""Seconds after which an experiment that is not there will not come: who applies several documents
may apply the run first."""
NOWHERE = Path("/dev/null")
"""Where the files of experiments are sought that come from a store: nowhere."""


def spec_of(
    finder: Finder,
    experiment: Experiment,
    values: dict[str, Any] | None,
    base: Path | None,
    seed: int | None,
) -> RunSpec:
    """What a run of an experiment is to do; raises InvalidDocument if it cannot be right."""
    return RunSpec(
        experiment=experiment.metadata.name,
        resolved=finder.checked(experiment).spec,
        parameters=values or {},
        children=finder.children(experiment, base or Path()),
        seed=seeds.new() if seed is None else seed,
    )


def fill(store: Store, run: Run, check: admission.CheckFault, load: Load) -> Run:
    """The run with what it is to do. If that cannot be known it has ended, and why is raised."""
    finder = Finder(store, check, load)
    while not run.spec.is_resolved:
        try:
            experiment = stored.get(store, run.spec.experiment, run.spec.parameters)
            made = spec_of(finder, experiment, run.spec.parameters, NOWHERE, run.spec.seed)
        except FaultlineError as error:
            age = time.time() - run.metadata.creation_timestamp
            if not error.retry and not (isinstance(error, UnknownName) and age < PATIENCE):
                _end(store, run, error)
            raise
        fields = {"resolved": made.resolved, "children": made.children, "seed": made.seed}
        labels = {"experiment": made.experiment, **run.metadata.labels}
        meta = run.metadata.model_copy(update={"labels": labels})
        spec = run.spec.model_copy(update=fields)
        try:
            return store.update(run.model_copy(update={"metadata": meta, "spec": spec}))
        except Stale:
            run = store.get(Run, run.metadata.name)
    return run


def _end(store: Store, run: Run, error: FaultlineError) -> None:
    """A run that never began."""
    status, now = run.status.model_copy(deep=True), time.time()
    status.started = status.ended = now
    status.phase, status.verdict = Phase.ENDED, Verdict.ERROR
    status.reason = f"it cannot be carried out: {error.message}"
    status.failures = [
        Failure(code=error.code, message=error.message, hint=error.hint, exit_code=error.exit_code)
    ]
    said = f"{status.verdict}: {status.reason}"
    status.timeline = [Point(at=now, boot_ns=clock.now(), event="verdict", text=said)]
    store.write_status(run.model_copy(update={"status": status}))
