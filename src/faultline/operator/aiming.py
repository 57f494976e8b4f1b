"""Whether a fault and its selector fit: what acts on machines, and what on objects. Pure."""

from __future__ import annotations

from faultline.api.selector import Selector
from faultline.api.target import TargetSpec
from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError, InvalidParameter
from faultline.kubefaults import registry


def is_of_objects(fault: str) -> bool:
    """Whether the operator itself carries it out, over the API server."""
    return fault in registry.faults()


def selector_of(spec: AimedFaultSpec) -> Selector:
    """What a fault aims at, also where it names one pod, or no kind; raises InvalidParameter."""
    if spec.selector is not None:
        return _with_kind(spec, spec.selector)
    if spec.target.pod:
        space, name, *inner = spec.target.pod.split("/")
        pods = {"namespaces": [space], "names": [f"{space}/{name}"], "container": "".join(inner)}
        return Selector.model_validate({"pods": pods, "mode": "all"})
    raise InvalidParameter(
        "spec.selector", None, "a selector: which pods or nodes of the cluster are meant",
        hint="nodes by name: selector: {nodes: {names: [NODE]}}",
    )  # fmt: skip


def _with_kind(spec: AimedFaultSpec, selector: Selector) -> Selector:
    """The same with the kind of objects that the fault takes, if it takes but one."""
    asked = selector.objects
    if asked is None or asked.kind or not is_of_objects(spec.fault):
        return selector
    kinds = registry.get(spec.fault).kinds
    if len(kinds) != 1:
        told = f"the kind of the objects: {', '.join(kinds) or 'any'}"
        raise InvalidParameter("spec.selector.objects.kind", None, told)
    return selector.model_copy(update={"objects": asked.model_copy(update={"kind": kinds[0]})})


def checked(spec: AimedFaultSpec, selector: Selector) -> None:
    """Whether the fault takes what the selector finds; raises InvalidParameter."""
    if not is_of_objects(spec.fault):
        if selector.objects is not None:
            raise InvalidParameter(
                "spec.selector.objects",
                None,
                f"pods, nodes or plugin: {spec.fault} acts on machines",
                hint="faultline kube faults",
            )
        if spec.flap is not None:
            raise InvalidParameter(
                "spec.flap",
                None,
                f"none: {spec.fault} acts on machines",
                hint="several faults, or a graph that repeats one: docs/graphs.md",
            )
        return
    kinds = registry.get(spec.fault).kinds
    asked = selector.objects.kind if selector.objects is not None else "Pod"
    asked = "Node" if selector.nodes is not None else asked
    if kinds and asked not in kinds:
        told = ", ".join(f"{_way(each)} ({each})" for each in kinds)
        raise InvalidParameter("spec.selector", asked, f"{told}: that is what {spec.fault} takes")
    if spec.target != TargetSpec() and not spec.target.pod:
        raise InvalidParameter("spec.target", None, f"none: {spec.fault} acts on objects")
    if selector.objects is None:
        return
    if asked in ("Pod", "Node"):
        raise InvalidParameter("spec.selector.objects.kind", asked, f"{_way(asked)} instead")
    if selector.live != "freeze":
        raise InvalidParameter("spec.selector.live", selector.live, "freeze: objects are read once")
    if selector.spread in ("zones", "nodes"):
        raise InvalidParameter("spec.selector.spread", selector.spread, "owners: they are nowhere")


def _way(kind: str) -> str:
    """What of a selector finds this kind."""
    return {"Pod": "pods", "Node": "nodes"}.get(kind, "objects")


def complaint(error: FaultlineError) -> str:
    """An error in one sentence."""
    return f"{error.message}; {error.hint}" if error.hint else error.message
