"""A run as JUnit XML, which every continuous integration reads: one suite, and one case for the
hypothesis, each fault, each probe that was judged, each judgement and each node.

`broke` is a failure: the system did not do what was believed. Everything that gives no answer (not
effective, not measured, an error of ours, an undo that is not complete) is an error with its type.
None of it is ever passed or skipped; skipped is a node whose own condition said so.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime

from faultline.api.graph_status import NodeStatus
from faultline.api.run import FaultStatus, ProbeStatus, Run

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SETTLED = ("recovered", "nothing to undo", "target gone")
_ALONE = ("fault", "serial", "parallel", "branch")  # nodes that something else speaks for


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the result; `kind` is what ended it: '' passed, failure, error, skipped."""

    name: str
    seconds: float = 0.0
    kind: str = ""
    type: str = ""
    message: str = ""
    text: str = ""


def junit(run: Run) -> str:
    """The document, in UTF-8 with its declaration."""
    found = cases(run)
    status = run.status
    length = (status.ended or 0.0) - (status.started or 0.0) if status.ended else 0.0
    suite = ET.Element("testsuite", name=_clean(run.spec.experiment))
    counted = {
        "tests": len(found),
        "failures": sum(case.kind == "failure" for case in found),
        "errors": sum(case.kind == "error" for case in found),
        "skipped": sum(case.kind == "skipped" for case in found),
        "time": f"{max(length, 0.0):.3f}",
    }
    for name, value in counted.items():
        suite.set(name, str(value))
    if status.started is not None:
        stamp = datetime.fromtimestamp(status.started, UTC)
        suite.set("timestamp", stamp.strftime("%Y-%m-%dT%H:%M:%S"))
    if status.environment is not None and status.environment.hostname:
        suite.set("hostname", _clean(status.environment.hostname))
    properties = ET.SubElement(suite, "properties")
    told = {
        "run": run.metadata.name,
        "title": run.spec.resolved.title,
        "verdict": str(status.verdict or "not finished"),
        "reason": status.reason,
    }
    for name, value in told.items():
        ET.SubElement(properties, "property", name=name, value=_clean(value))
    for case in found:
        suite.append(_element(case, run.spec.experiment))
    every = ET.Element("testsuites", name="faultline")
    for name in ("tests", "failures", "errors", "skipped", "time"):
        every.set(name, suite.get(name, ""))
    every.append(suite)
    ET.indent(every)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(every, encoding="unicode") + "\n"
    )


def _element(case: Case, experiment: str) -> ET.Element:
    element = ET.Element(
        "testcase",
        classname=_clean(f"faultline.{experiment}"),
        name=_clean(case.name),
        time=f"{max(case.seconds, 0.0):.3f}",
    )
    if case.kind:
        end = ET.SubElement(element, case.kind, message=_clean(case.message))
        if case.kind != "skipped":
            end.set("type", case.type)
            end.text = _clean(case.text or case.message)
    return element


def _clean(text: str) -> str:
    """What XML cannot hold is left out (Extensible Markup Language 1.0, section 2.2)."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


# ---------------------------------------------------------------------- cases


def cases(run: Run) -> list[Case]:
    """Everything that has an answer, the hypothesis first."""
    return [
        _hypothesis(run),
        *(_fault(fault) for fault in run.status.faults),
        *(found for probe in run.status.probes if (found := _probe(run, probe))),
        *(
            _answered(f"judgement {each.name}: {each.text}", each.ok, each.reason)
            for each in run.status.points.judged
        ),
        *(_node(node) for node in run.status.nodes if node.type not in _ALONE),
    ]


def _hypothesis(run: Run) -> Case:
    status = run.status
    length = status.ended - status.started if status.ended and status.started else 0.0
    name = f"hypothesis: {run.spec.resolved.hypothesis.text}"
    details = [f"{f.code}: {f.message}{f' ({f.hint})' if f.hint else ''}" for f in status.failures]
    details += [f"aborted: {status.aborted}"] if status.aborted else []
    return _judged(name, str(status.verdict or ""), status.reason, length, details)


def _judged(
    name: str, verdict: str, reason: str, seconds: float = 0.0, details: list[str] | None = None
) -> Case:
    """A case by one of the five verdicts; none of them is rounded into another."""
    text = "\n".join([reason, *(details or [])])
    if verdict == "held":
        return Case(name, seconds)
    if verdict == "broke":
        return Case(name, seconds, "failure", "broke", reason or "it broke", text)
    kind = verdict or "not finished"
    return Case(name, seconds, "error", kind, reason or kind, text)


def _answered(name: str, ok: bool | None, reason: str) -> Case:
    verdict = "not measured" if ok is None else "held" if ok else "broke"
    return _judged(name, verdict, reason)


def _fault(fault: FaultStatus) -> Case:
    name = f"fault {fault.name}: {fault.fault}"
    last = fault.recovered_at
    seconds = last - fault.started if last is not None and fault.started is not None else 0.0
    problems = _problems(fault)
    if not problems:
        return Case(name, seconds)
    kind, message = problems[0]
    text = "\n".join(f"{each}: {told}" for each, told in problems)
    return Case(name, seconds, "error", kind, message, text)


def _problems(fault: FaultStatus) -> list[tuple[str, str]]:
    """What keeps a fault from being a proven one, the worst first."""
    reading = fault.reading or {}
    why = fault.error or str(reading.get("reason") or "")
    found: list[tuple[str, str]] = []
    if fault.started is not None and (fault.residue or fault.end not in _SETTLED):
        left = "; ".join(fault.residue[:20]) or fault.error or fault.end or "its end is not known"
        found.append(("recovery incomplete", left))
    if fault.started is None:
        found.append(("never injected", why or "the run ended before"))
    elif fault.effect == "ineffective":
        found.append(("not effective", why or "no effect was measured"))
    elif fault.effect != "effective":
        found.append(("not measured", why or "its effect was not measured"))
    elif fault.error:
        found.append(("error", fault.error))
    return found


def _probe(run: Run, probe: ProbeStatus) -> Case | None:
    """None for a probe that nothing was expected of: it claims nothing."""
    name = f"probe {probe.name}"
    discovery = run.spec.resolved.discovery
    if discovery is not None and discovery.probe == probe.name and probe.verdict is None:
        if run.status.discovered_at is not None:
            return Case(name)
        if discovery.within is None:
            return None
        return _judged(name, "not measured", "nobody noticed, and nothing was judged")
    if probe.verdict is None and not {"hypothesis", "guard"} & set(probe.roles):
        return None
    if probe.verdict is None and "hypothesis" not in probe.roles:
        return Case(name)  # a guard that never had to act
    return _judged(name, probe.verdict or "not measured", probe.text)


def _node(node: NodeStatus) -> Case:
    name = f"{node.type} {node.name}"
    seconds = node.ended - node.started if node.ended and node.started else 0.0
    if node.outcome == "skipped":
        return Case(name, seconds, "skipped", message=node.text or "its condition was not true")
    if node.outcome == "succeeded" and node.verdict in (None, "held"):
        return Case(name, seconds)
    verdict = node.verdict if node.verdict not in (None, "held") else node.outcome or "not finished"
    return _judged(name, str(verdict), node.text, seconds)
