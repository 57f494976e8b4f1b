"""What a graph must satisfy beyond its fields: names, references, order, expressions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from faultline.api.document import Problem
from faultline.api.expansion import lookup, suffix_of
from faultline.api.experiment import ExperimentSpec
from faultline.api.expressions import problem_of, sample_scope
from faultline.api.graph import (
    BranchStep,
    FaultStep,
    NodeBase,
    ProbeStep,
    SearchStep,
    SerialStep,
    TrafficStep,
    WaitStep,
    children,
    walk,
)

CheckFault = Callable[[str, dict[str, Any]], list[Problem]]

_LAST = ("task", "wait", "probe", "approval", "serial", "parallel", "branch")


def check_graph(spec: ExperimentSpec, check_fault: CheckFault) -> Iterable[Problem]:
    """Everything that the models cannot see of a graph."""
    if not spec.nodes and not spec.finally_:
        return
    placed = [*walk(spec.nodes), *walk(spec.finally_, "spec.finally")]
    yield from _names(spec, placed)
    yield from _types(placed)
    yield from _references(spec, placed)
    yield from _order(spec, placed)
    yield from _expressions(spec, placed)
    for path, node in placed:
        yield from _fault(path, node, check_fault)


Placed = list[tuple[str, NodeBase]]


def _names(spec: ExperimentSpec, placed: Placed) -> Iterable[Problem]:
    count = Counter([node.name for _, node in placed] + [fault.name for fault in spec.faults])
    for path, node in placed:
        if count[node.name] > 1:
            count[node.name] = 0
            yield Problem(f"{path}.name", "a name of its own", node.name)


def _types(placed: Placed) -> Iterable[Problem]:
    for path, node in placed:
        kind = str(getattr(node, "type", ""))
        if kind in ("foreach", "repeat"):
            yield Problem(f"{path}.type", "a document that was read as a whole", kind)
        if path.startswith("spec.finally") and kind not in _LAST:
            yield Problem(f"{path}.type", f"one of {', '.join(_LAST)} among the last nodes", kind)
        if node.retry.attempts > 1 and kind in ("approval", "search", *_HOLDERS):
            yield Problem(f"{path}.retry", "nothing: this kind of node is not tried again")


_HOLDERS = ("serial", "parallel", "branch")


def _references(spec: ExperimentSpec, placed: Placed) -> Iterable[Problem]:
    probes = [probe.name for probe in spec.probes]
    loads = [load.name for load in spec.traffic]
    names = [node.name for _, node in placed]
    for path, node in placed:
        for index, needed in enumerate(node.needs):
            if needed not in names:
                yield _unknown(f"{path}.needs.{index}", "node", names, needed)
        if isinstance(node, ProbeStep) and node.probe not in probes:
            yield _unknown(f"{path}.probe", "probe", probes, node.probe)
        if isinstance(node, FaultStep) and node.impact and node.impact not in probes:
            yield _unknown(f"{path}.impact", "probe", probes, node.impact)
        if isinstance(node, TrafficStep) and node.traffic not in loads:
            yield _unknown(f"{path}.traffic", "traffic", loads, node.traffic)
        if isinstance(node, SearchStep):
            for index, name in enumerate(node.search.probes):
                if name not in probes:
                    yield _unknown(f"{path}.search.probes.{index}", "probe", probes, name)
    used = Counter(node.traffic for _, node in placed if isinstance(node, TrafficStep))
    for path, node in placed:
        if isinstance(node, TrafficStep) and used[node.traffic] > 1:
            yield Problem(f"{path}.traffic", "traffic that no other node runs", node.traffic)


def _unknown(path: str, noun: str, known: list[str], given: str) -> Problem:
    listed = ", ".join(sorted(known)[:12]) or "none is declared"
    return Problem(path, f"the name of a {noun} ({listed})", given)


def _order(spec: ExperimentSpec, placed: Placed) -> Iterable[Problem]:
    """Each node begins and ends; whatever must come before what may form no circle."""
    known = {node.name: path for path, node in placed}
    before: dict[tuple[str, str], set[tuple[str, str]]] = {}

    def after(later: tuple[str, str], earlier: tuple[str, str]) -> None:
        before.setdefault(later, set()).add(earlier)

    for _, node in placed:
        after((node.name, "end"), (node.name, "begin"))
        for needed in node.needs:
            if needed in known:
                after((node.name, "begin"), (needed, _passing(needed, placed)))
        inner = children(node)
        for index, child in enumerate(inner):
            after((child.name, "begin"), (node.name, "begin"))
            after((node.name, "end"), (child.name, "end"))
            if isinstance(node, SerialStep) and index:
                earlier = inner[index - 1].name
                after((child.name, "begin"), (earlier, _passing(earlier, placed)))
    for last in spec.finally_:
        for first in spec.nodes:
            after((last.name, "begin"), (first.name, "end"))
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle = list(dict.fromkeys(name for name, _ in error.args[1]))
        path = known[circle[0]]
        yield Problem(f"{path}.needs", f"no circle: {' needs '.join([*circle, circle[0]])}")


def _passing(name: str, placed: Placed) -> str:
    """What others wait for: the end, or of a node in the background its beginning."""
    node = next(node for _, node in placed if node.name == name)
    return "begin" if getattr(node, "background", False) else "end"


def _expressions(spec: ExperimentSpec, placed: Placed) -> Iterable[Problem]:
    names = [node.name for _, node in placed]
    for path, node in placed:
        suffix = suffix_of(node.name)
        scope = sample_scope(spec, {plain(n, suffix, names): n for n in names})
        texts = {"when": node.when}
        if isinstance(node, WaitStep):
            texts["until"] = node.until
        if isinstance(node, SerialStep) and node.nodes:
            inner = suffix_of(node.nodes[0].name)
            scope = sample_scope(spec, {plain(n, inner, names): n for n in names})
            texts["until"] = node.loop
        if isinstance(node, BranchStep):
            texts |= {f"cases.{i}.when": case.when for i, case in enumerate(node.cases)}
        for where, text in texts.items():
            problem = problem_of(text, scope) if text else ""
            if problem:
                yield Problem(f"{path}.{where}", problem)


def plain(name: str, suffix: str, names: list[str]) -> str:
    """What a node is called inside of iterations `suffix`: without the numbers that it shares."""
    base = name[: len(name) - len(suffix_of(name))]
    return base if lookup(base, suffix, names) == name else name


def _fault(path: str, node: NodeBase, check_fault: CheckFault) -> Iterable[Problem]:
    if isinstance(node, FaultStep):
        for problem in check_fault(node.fault, node.params):
            yield Problem(f"{path}.{problem.path}", problem.expected, problem.given)
    if isinstance(node, SearchStep):
        if node.fault.duration <= node.search.warmup + node.search.hold:
            yield Problem(
                f"{path}.fault.duration", "longer than warmup and hold", str(node.fault.duration)
            )
        for value in (node.search.low, node.search.high):
            for problem in check_fault(
                node.fault.fault, node.search.params_with(node.fault.params, value)
            ):
                yield Problem(f"{path}.fault.{problem.path}", problem.expected, problem.given)
