"""What a document asks for: the faults in it, and what they would reach.

What is only named there (an experiment in the store, a kind of pods) is read from the server. What
cannot be known yet is looked at again when it is: each Fault that comes of a Run is judged anew.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from faultline.api import admission
from faultline.api.admission import depends, placeholders
from faultline.api.experiment import Experiment, ExperimentSpec
from faultline.api.graph import FaultStep, SearchStep, TaskStep, walk
from faultline.api.run import ChildSpec, RunSpec
from faultline.api.schedule import ScheduleSpec
from faultline.api.selector import Selector
from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.kubefaults.rights import Right
from faultline.operator import plugins

EXPERIMENTS = Kind("Experiment", "experiments", "faultline.dev/v1alpha1")


@dataclass(frozen=True, slots=True)
class Asked:
    """One fault of a document."""

    path: str
    spec: AimedFaultSpec


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a document."""

    faults: tuple[Asked, ...] = ()
    rights: tuple[tuple[str, Right], ...] = ()  # what else it demands, and where that stands


def of(kind: str, namespace: str, spec: Object, client: Client) -> Contents:
    """The faults of a document that is right in itself; raises ApiError."""
    match kind:
        case "Fault":
            return Contents((Asked("spec", AimedFaultSpec.model_validate(spec)),))
        case "Experiment":
            return _of_experiment("spec", spec, namespace)
        case "Schedule":
            return _of_schedule(ScheduleSpec.model_validate(spec), namespace, client)
        case "Run":
            return _of_run(spec, namespace, client)
        case _:
            return Contents()


def _of_run(spec: Object, namespace: str, client: Client) -> Contents:
    run = RunSpec.model_validate(spec)
    if spec.get("resolved"):
        found = [_of_spec("spec.resolved", run.resolved, namespace)]
    else:
        found = [_named(run.experiment, run.parameters, namespace, client)]
    found += _of_children("spec.children", run.children, namespace)
    return _joined(found)


def _of_children(path: str, children: dict[str, ChildSpec], namespace: str) -> list[Contents]:
    found: list[Contents] = []
    for name, child in children.items():
        here = f"{path}.{name}"
        found.append(_of_spec(f"{here}.resolved", child.resolved, namespace))
        found += _of_children(f"{here}.children", child.children, namespace)
    return found


def _of_schedule(spec: ScheduleSpec, namespace: str, client: Client) -> Contents:
    use = spec.experiment
    if use.spec is None:
        return _named(use.name, spec.parameters, namespace, client)
    return _of_experiment("spec.experiment.spec", use.spec, namespace, spec.parameters)


def _named(name: str, given: Object, namespace: str, client: Client) -> Contents:
    try:
        found = client.get(EXPERIMENTS, name, namespace)
    except ApiError as error:
        if error.reason == "NotFound":  # then it cannot be run either
            return Contents()
        raise
    where = f"Experiment {name}"
    return _of_experiment(where, cast(Object, found.get("spec") or {}), namespace, given)


def _of_experiment(
    path: str, spec: Object, namespace: str, given: Object | None = None
) -> Contents:
    """With the values that are given; what depends on one that is not given is left out."""
    data: Object = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment",
                    "metadata": {"name": "asked"}, "spec": spec}  # fmt: skip
    missing = {k: v for k, v in placeholders(data).items() if k not in (given or {})}
    try:
        filled = admission.filled(data, {**missing, **(given or {})})
        made = Experiment.model_validate(filled)
    except (FaultlineError, ValidationError):
        return Contents()  # it cannot be run like that
    found = _of_spec(path, made.spec, namespace)
    open_ = set(missing)
    if not open_:
        return found
    known = tuple(
        each
        for each in found.faults
        if not depends(data, each.path.replace(path, "spec", 1), open_)
    )
    return Contents(known, found.rights)


def _of_spec(path: str, spec: ExperimentSpec, namespace: str) -> Contents:
    faults = [Asked(f"{path}.faults.{n}", each) for n, each in enumerate(spec.faults)]
    rights: list[tuple[str, Right]] = []
    for part, steps in (("nodes", spec.nodes), ("finally", spec.finally_)):
        for where, step in walk(steps, f"{path}.{part}"):
            if isinstance(step, FaultStep):
                faults.append(Asked(where, step))
            elif isinstance(step, SearchStep):
                faults.append(Asked(where, AimedFaultSpec.model_construct(**dict(step.fault))))
            elif isinstance(step, TaskStep) and step.job is not None:
                meta = cast(Object, step.job.manifest.get("metadata") or {})
                space = str(meta.get("namespace") or namespace)
                rights.append((where, Right.read("create jobs.batch", space)))
    return Contents(tuple(faults), tuple(rights))


def _joined(found: Sequence[Contents]) -> Contents:
    return Contents(
        tuple(one for each in found for one in each.faults),
        tuple(one for each in found for one in each.rights),
    )


# ---------------------------------------------------------------------- what a fault reaches


@dataclass(frozen=True, slots=True)
class Reach:
    """What a selector may find: namespaces by name or pattern, or nodes."""

    spaces: tuple[str, ...] = ()
    nodes: bool = False
    criteria: Any = field(default=None, compare=False)


def reach(spec: AimedFaultSpec, namespace: str) -> Reach:
    """What a fault may reach; raises what a plug-in of selectors raises."""
    selector = spec.selector
    if selector is None:
        if spec.target.pod:
            return Reach((spec.target.pod.partition("/")[0],))
        return Reach()
    if selector.nodes is not None:
        return Reach(nodes=True, criteria=selector.nodes)
    if selector.control_plane is not None:  # in pods or as processes of any node
        return Reach(("kube-system",), nodes=True)
    if selector.objects is not None:
        return _of_criteria(selector.objects, namespace)
    if selector.pods is not None:
        return _of_criteria(selector.pods, namespace)
    return Reach(tuple(_of_plugin(selector, namespace)))


def _of_criteria(asked: Any, namespace: str) -> Reach:
    if asked.namespaces:
        return Reach(tuple(asked.namespaces), criteria=asked)
    if asked.names and all("/" in each for each in asked.names):
        return Reach(tuple(each.partition("/")[0] for each in asked.names), criteria=asked)
    service = str(getattr(asked, "service", "") or "")
    if "/" in service:
        return Reach((service.partition("/")[0],), criteria=asked)
    return Reach((namespace,), criteria=asked)


def _of_plugin(selector: Selector, namespace: str) -> Iterator[str]:
    """Where it looks, as far as it says; whom it finds is judged when it has found them."""
    if selector.plugin is None:
        return
    made = plugins.load(selector.plugin, namespace)
    criteria = made.pods()
    if criteria is not None:
        yield from _of_criteria(criteria, namespace).spaces
    for lease in made.leases():
        yield lease.partition("/")[0]


def fitting(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that fit one of the patterns, in their order."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, one) for one in patterns)]


def is_pattern(text: str) -> bool:
    return any(c in text for c in "*?[")


def names_of(criteria: Any) -> list[str]:
    """Names and patterns that criteria give; none: any name."""
    if criteria is None:
        return []
    return [each for each in (getattr(criteria, "name", ""), *criteria.names) if each]
