"""The faults of a run as they are asked of the injector, by name."""

from __future__ import annotations

import re

from faultline.api.experiment import FaultNode
from faultline.api.graph import FaultStep, SearchStep, walk
from faultline.api.run import FaultStatus, Run
from faultline.api.selector import Choice, Chosen
from faultline.errors import Bug
from faultline.units import Duration

_PART = re.compile(r"\.t\d+$")


def fault_of(run: Run, name: str) -> FaultNode:
    """A fault of the experiment, or one that a node has begun: an attempt or a trial."""
    begun = next((each for each in run.status.faults if each.name == name), None)
    named = begun.of or name if begun is not None else name
    for node in run.spec.resolved.faults:
        if node.name == named:
            return as_then(run, aimed(node, begun), named)
    steps = {step.name: step for _, step in walk(run.spec.resolved.nodes)}
    step = steps.get(begun.node) if begun is not None else None
    if begun is None or not isinstance(step, FaultStep | SearchStep):
        raise Bug(f"the run has no fault {name}")
    return as_then(run, of_step(step, name, begun.params, begun.aim), step.name)


def aimed(node: FaultNode, fault: FaultStatus | None) -> FaultNode:
    """What is asked for of a fault of the document, or of the part of it for one of its targets."""
    if fault is None or fault.aim is None:
        return node
    update = {"name": fault.name, "target": fault.aim.target, "selector": None}
    return node.model_copy(update=update)


def parts(name: str, choice: Choice | None) -> list[tuple[str, Chosen | None]]:
    """A fault as it is injected: once for each target that its selector found. The names of parts
    are such as no document may use.
    """
    if choice is None:
        return [(name, None)]
    if len(choice.targets) == 1:
        return [(name, choice.targets[0])]
    return [(f"{name}.t{number}", each) for number, each in enumerate(choice.targets, 1)]


def whole(name: str) -> str:
    """The fault of which this is the name of a part, or of all there is of it."""
    return _PART.sub("", name)


def as_then(run: Run, node: FaultNode, named: str) -> FaultNode:
    """The same, with when it began and how long it lasted in the run that is repeated."""
    then = run.spec.repeat.timings.get(named) if run.spec.repeat is not None else None
    if then is None:
        return node
    changed = {"start": then.begin, "duration": then.length}
    return node.model_copy(update={key: at for key, at in changed.items() if at is not None})


def of_step(
    step: FaultStep | SearchStep, name: str, params: dict[str, object], aim: Chosen | None = None
) -> FaultNode:
    """What a node asks for. Not validated again: attempts have names that no document may use."""
    spec = step.fault if isinstance(step, SearchStep) else step
    impact = step.impact if isinstance(step, FaultStep) else None
    selector = spec.selector if aim is None else None
    return FaultNode.model_construct(
        name=name, fault=spec.fault, params=params, duration=spec.duration, allow=spec.allow,
        target=aim.target if aim else spec.target, selector=selector, start=Duration(0),
        impact=impact, peer=spec.peer, flap=spec.flap,
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
