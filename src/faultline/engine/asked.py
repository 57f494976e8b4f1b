"""The faults of a run as they are asked of the injector, by name."""

from __future__ import annotations

from faultline.api.experiment import FaultNode
from faultline.api.graph import FaultStep, SearchStep, walk
from faultline.api.run import Run
from faultline.errors import Bug
from faultline.units import Duration


def fault_of(run: Run, name: str) -> FaultNode:
    """A fault of the experiment, or one that a node has begun: an attempt or a trial."""
    for node in run.spec.resolved.faults:
        if node.name == name:
            return as_then(run, node, name)
    begun = next((each for each in run.status.faults if each.name == name), None)
    steps = {step.name: step for _, step in walk(run.spec.resolved.nodes)}
    step = steps.get(begun.node) if begun is not None else None
    if begun is None or not isinstance(step, FaultStep | SearchStep):
        raise Bug(f"the run has no fault {name}")
    return as_then(run, of_step(step, name, begun.params), step.name)


def as_then(run: Run, node: FaultNode, named: str) -> FaultNode:
    """The same, with when it began and how long it lasted in the run that is repeated."""
    then = run.spec.repeat.timings.get(named) if run.spec.repeat is not None else None
    if then is None:
        return node
    changed = {"start": then.begin, "duration": then.length}
    return node.model_copy(update={key: at for key, at in changed.items() if at is not None})


def of_step(step: FaultStep | SearchStep, name: str, params: dict[str, object]) -> FaultNode:
    """What a node asks for. Not validated again: attempts have names that no document may use."""
    spec = step.fault if isinstance(step, SearchStep) else step
    impact = step.impact if isinstance(step, FaultStep) else None
    return FaultNode.model_construct(
        name=name, fault=spec.fault, params=params, duration=spec.duration, allow=spec.allow,
        target=spec.target, start=Duration(0), impact=impact,
    )  # fmt: skip


def first_faults(run: Run) -> list[FaultNode]:
    """Every fault of the document, for the admission check; of a search, the last value."""
    found = list(run.spec.resolved.faults)
    for _, step in walk(run.spec.resolved.nodes):
        if isinstance(step, FaultStep):
            found.append(of_step(step, step.name, step.params))
        elif isinstance(step, SearchStep):
            params = step.search.params_with(step.fault.params, step.search.high)
            found.append(of_step(step, step.name, params))
    return found
