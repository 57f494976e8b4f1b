"""What a document must satisfy beyond its fields: references, durations, parameters of its faults.

Pure: what only the registry of faults knows comes in as a function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from faultline.api.document import Problem, invalid_document, problems_of
from faultline.api.expansion import source_path, written_out
from faultline.api.experiment import Experiment, ExperimentSpec, Parameter
from faultline.api.graph import FaultStep, SearchStep, walk
from faultline.api.graph_check import check_graph
from faultline.api.probe import PluginProbe, ProbeBase, TrafficProbe
from faultline.api.substitution import references, substitute, values_for
from faultline.api.targets import AimedFaultSpec
from faultline.api.traffic import PluginTraffic
from faultline.errors import UsageError
from faultline.units import Duration

CheckFault = Callable[[str, dict[str, Any]], list[Problem]]
"""Problems of a fault's id and parameters; their paths are `fault` or `params.NAME`. Of a probe of
somebody else the id is PLUGIN_PROBE, and the parameters are all that stands in the document.
"""
PLUGIN_PROBE = "probe.plugin"
PLUGIN_SELECTOR = "selector.plugin"
"""The same of a selector of somebody else: the parameters are `plugin` as it stands there."""
PLUGIN_TRAFFIC = "traffic.plugin"
"""The same of traffic of somebody else: the parameters are all that stands in the document."""


def resolve(data: dict[str, Any], given: dict[str, Any], name: str = "experiment") -> Experiment:
    """A document with its parameters filled in; raises InvalidDocument with every problem."""
    try:
        return Experiment.model_validate(filled(data, given))
    except ValidationError as error:
        raise invalid_document(name, problems_of(error, data)) from error


def filled(data: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The raw document with `${name}` replaced; raises UsageError."""
    spec: Any = data.get("spec")
    if not isinstance(spec, dict):
        return data
    entries = cast(dict[str, Any], spec)
    declared: Any = entries.get("parameters", {})
    try:
        parameters = TypeAdapter(dict[str, Parameter]).validate_python(declared)
    except ValidationError as error:
        found = [
            Problem(f"spec.parameters.{one.path}", one.expected, one.given)
            for one in problems_of(error, declared)
        ]
        raise invalid_document("experiment", found) from error
    values = values_for(parameters, given)
    rest = {key: value for key, value in entries.items() if key != "parameters"}
    rest = substitute(written_out(rest, values), values)
    return {**data, "spec": {**rest, "parameters": declared}}


def problems(data: dict[str, Any], check_fault: CheckFault) -> list[Problem]:
    """Everything that is wrong with an experiment's document, as far as its defaults tell.

    What depends on a required parameter cannot be judged before it has a value.
    """
    missing = placeholders(data)
    try:
        document = filled(data, missing)
    except UsageError as error:
        return [Problem("spec", error.message)]
    try:
        experiment = Experiment.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, document)
    else:
        found = list(check(experiment.spec, check_fault))
    placed = [Problem(source_path(one.path, data), one.expected, one.given) for one in found]
    once = {(one.path, one.expected): one for one in reversed(placed)}.values()
    return [one for one in reversed(list(once)) if not depends(data, one.path, set(missing))]


def depends(data: object, path: str, names: set[str]) -> set[str]:
    """Which of these parameters what stands at this path refers to."""
    here: Any = data
    for part in path.split("."):
        if isinstance(here, list):
            here = cast(list[Any], here)[int(part)] if part.isdigit() else None
        elif isinstance(here, dict):
            here = cast(dict[str, Any], here).get(part)
    return names & references(here)


def placeholders(data: dict[str, Any]) -> dict[str, Any]:
    """A value for each parameter without a default, so that a document can be checked."""
    try:
        declared = TypeAdapter(dict[str, Parameter]).validate_python(data["spec"]["parameters"])
    except (ValidationError, KeyError, TypeError):
        return {}  # `filled` says what is wrong
    samples = {
        "string": "text", "integer": 1, "number": 1.0, "boolean": True, "duration": "1s",
        "size": "1MiB", "rate": "1mbit", "percent": "1%",
    }  # fmt: skip
    return {
        name: parameter.choices[0] if parameter.choices else samples[parameter.type]
        for name, parameter in declared.items()
        if parameter.default is None
    }


def check(spec: ExperimentSpec, check_fault: CheckFault) -> Iterable[Problem]:
    """Everything that the models cannot see of an experiment."""
    if not spec.faults and not spec.nodes:
        yield Problem("spec.faults", "expected faults or nodes: there is nothing to do")
    yield from _names(spec)
    yield from _references(spec)
    yield from _modes(spec)
    yield from _durations(spec)
    for index, fault in enumerate(spec.faults):
        for problem in check_fault(fault.fault, fault.params):
            path = f"spec.faults.{index}.{problem.path}"
            yield Problem(path, problem.expected, problem.given)
        yield from _selector(f"spec.faults.{index}.selector", fault, check_fault)
    for path, step in (*walk(spec.nodes), *walk(spec.finally_, "spec.finally")):
        if isinstance(step, FaultStep):
            yield from _selector(f"{path}.selector", step, check_fault)
        elif isinstance(step, SearchStep):
            yield from _selector(f"{path}.fault.selector", step.fault, check_fault)
    for index, probe in enumerate(spec.probes):
        if isinstance(probe, PluginProbe):
            for problem in check_fault(PLUGIN_PROBE, probe.to_json()):
                path = f"spec.probes.{index}.{problem.path}"
                yield Problem(path, problem.expected, problem.given)
    for index, load in enumerate(spec.traffic):
        if isinstance(load, PluginTraffic):
            for problem in check_fault(PLUGIN_TRAFFIC, load.to_json()):
                path = f"spec.traffic.{index}.{problem.path}"
                yield Problem(path, problem.expected, problem.given)
    yield from check_graph(spec, check_fault)


def _selector(path: str, fault: AimedFaultSpec, check_fault: CheckFault) -> Iterable[Problem]:
    """What the plug-in of a selector says of its parameters."""
    plugin = fault.selector.plugin if fault.selector is not None else None
    for problem in check_fault(PLUGIN_SELECTOR, plugin.to_json()) if plugin is not None else ():
        yield Problem(f"{path}.plugin.{problem.path}", problem.expected, problem.given)


def _names(spec: ExperimentSpec) -> Iterable[Problem]:
    for kind, nodes in (
        ("probes", spec.probes),
        ("traffic", spec.traffic),
        ("faults", spec.faults),
    ):
        count = Counter(node.name for node in nodes)
        for index, node in enumerate(nodes):
            if count[node.name] > 1:
                count[node.name] = 0
                yield Problem(f"spec.{kind}.{index}.name", "a name of its own", node.name)


def _references(spec: ExperimentSpec) -> Iterable[Problem]:
    probes = {probe.name for probe in spec.probes}
    known = f"the name of a probe ({', '.join(sorted(probes)) or 'none is declared'})"
    lists = {
        "hypothesis.probes": spec.hypothesis.probes,
        "steadyState": spec.steady_state,
        "guards": spec.guards,
    }
    for path, names in lists.items():
        for index, name in enumerate(names):
            if name not in probes:
                yield Problem(f"spec.{path}.{index}", known, name)
    moments = {"discovery": spec.discovery, "location": spec.location, "recovery": spec.recovery}
    for path, moment in moments.items():
        if moment and moment.probe not in probes:
            yield Problem(f"spec.{path}.probe", known, moment.probe)
    yield from _budgets(spec, known)
    for index, fault in enumerate(spec.faults):
        if fault.impact and fault.impact not in probes:
            yield Problem(f"spec.faults.{index}.impact", known, fault.impact)
    traffic = {one.name for one in spec.traffic}
    for index, probe in enumerate(spec.probes):
        if isinstance(probe, TrafficProbe) and probe.traffic not in traffic:
            listed = ", ".join(sorted(traffic)) or "none is declared"
            yield Problem(
                f"spec.probes.{index}.traffic", f"the name of traffic ({listed})", probe.traffic
            )


def _budgets(spec: ExperimentSpec, known: str) -> Iterable[Problem]:
    probes = {probe.name: probe for probe in spec.probes}
    loads = sorted(one.name for one in spec.traffic)
    count = Counter(one.name for one in spec.error_budgets)
    for index, one in enumerate(spec.error_budgets):
        path = f"spec.errorBudgets.{index}"
        if count[one.name] > 1:
            count[one.name] = 0
            yield Problem(f"{path}.name", "a name of its own", one.name)
        if one.probe is not None and one.probe not in probes:
            yield Problem(f"{path}.probe", known, one.probe)
        elif one.probe is not None:
            if probes[one.probe].mode not in _THROUGHOUT:
                yield Problem(f"{path}.probe", "a probe that is continuous or during", one.probe)
            unit = probes[one.probe].value_unit()
            if one.indicator != "answers" and unit not in ("", "ratio"):
                told = f"answers: the values of {one.probe} are no shares"
                yield Problem(f"{path}.indicator", told, one.indicator)
        if one.traffic is not None and one.traffic not in loads:
            listed = ", ".join(loads) or "none is declared"
            yield Problem(f"{path}.traffic", f"the name of traffic ({listed})", one.traffic)


_THROUGHOUT = ("continuous", "during")


def _modes(spec: ExperimentSpec) -> Iterable[Problem]:
    by_name = {probe.name: (index, probe) for index, probe in enumerate(spec.probes)}
    for name in (*spec.guards, *([spec.discovery.probe] if spec.discovery else [])):
        index, probe = by_name.get(name, (0, None))
        if probe and probe.mode not in _THROUGHOUT:
            yield Problem(
                f"spec.probes.{index}.mode",
                "continuous or during, for a guard or a discovery",
                probe.mode,
            )
    for index, probe in enumerate(spec.probes):
        if probe.mode == "start" and needs_initial(probe):
            yield Problem(
                f"spec.probes.{index}.expect",
                "nothing relative: this probe only runs before the faults",
            )


def needs_initial(probe: ProbeBase) -> bool:
    """Whether the expectation refers to the value before the fault."""
    if probe.expect is None:
        return False
    return bool(probe.expect.relative) or "initial" in (probe.expect.cel or "")


def _durations(spec: ExperimentSpec) -> Iterable[Problem]:
    last = max((fault.start + fault.duration for fault in spec.faults), default=0)
    if not spec.nodes and spec.discovery and spec.discovery.within and spec.discovery.within > last:
        shown = Duration(last)
        yield Problem("spec.discovery.within", f"at most {shown}, when the last fault ends",
                      str(spec.discovery.within))  # fmt: skip
    for index, traffic in enumerate(spec.traffic):
        if traffic.duration is not None and traffic.duration <= traffic.warmup:
            yield Problem(
                f"spec.traffic.{index}.duration", "longer than its warmup", str(traffic.duration)
            )
