"""What faults somebody wants: documents of kind Fault, or one line each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from faultline.api.document import Problem, invalid_document, parse_all, problems_of
from faultline.api.targets import FaultSpec
from faultline.errors import UnknownName, UsageError
from faultline.kube.proxy.faults import FAULTS, Which

LISTS = frozenset({"verbs", "resources", "namespaces", "names", "agents"})
NUMBERS = frozenset({"status", "retry_after"})
OWN = ("target", "allow")


@dataclass(frozen=True, slots=True)
class Wish:
    """One fault as it was asked for."""

    name: str
    fault: str
    params: Which
    seconds: float  # from the moment at which the proxy is told of it
    seed: str


def of_line(line: str, number: int = 1) -> Wish:
    """`apiclient.error,status=409,verbs=update+patch,percent=30%,duration=2m`; raises UsageError,
    UnknownName, InvalidDocument.
    """
    fault, *rest = [each.strip() for each in line.split(",")]
    fault = fault if "." in fault else f"apiclient.{fault.replace('-', '_')}"
    given: dict[str, Any] = {}
    for each in rest:
        key, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"expected KEY=VALUE, not {each!r}", hint=f"in {line!r}")
        key = key.replace("-", "_")
        if key in LISTS:
            given[key] = value.split("+")
        else:
            given[key] = int(value) if key in NUMBERS and value.isdigit() else value
    duration, seed = given.pop("duration", "10m"), str(given.pop("seed", ""))
    name = str(given.pop("name", f"{fault.partition('.')[2]}-{number}"))
    spec: dict[str, Any] = {"fault": fault, "params": given, "duration": duration}
    return _wish(name, spec, seed, line)


def of_file(path: Path) -> list[Wish]:
    """All faults of a file; raises InvalidDocument, UsageError."""
    try:
        written = path.read_text()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    found: list[Wish] = []
    for data in parse_all(written, str(path)) if written.strip() else ():
        name = str(cast("dict[str, Any]", data.get("metadata") or {}).get("name") or "")
        if data.get("kind") != "Fault" or not name:
            raise UsageError(f"{path}: expected documents of kind Fault, each with a name")
        if name in {each.name for each in found}:
            raise UsageError(f"{path}: there are two faults of the name {name}")
        spec = dict(cast("dict[str, Any]", data.get("spec") or {}))
        found.append(_wish(name, spec, "", str(path)))
    return found


def _wish(name: str, given: dict[str, Any], seed: str, where: str) -> Wish:
    try:
        spec = FaultSpec.model_validate(given)
    except ValidationError as error:
        problems = problems_of(error, given)
        told = [Problem(f"spec.{one.path}", one.expected, one.given) for one in problems]
        raise invalid_document(where, told) from error
    if any(given.get(each) for each in OWN):
        raise UsageError(f"{name}: the proxy acts on its client: no {' and no '.join(OWN)}")
    model = FAULTS.get(spec.fault)
    if model is None:
        listed = ", ".join(sorted(FAULTS))
        raise UnknownName(f"the proxy has no fault {spec.fault!r}", hint=f"there are {listed}")
    params = dict(spec.params)
    try:
        made = model.model_validate(params)
    except ValidationError as error:
        problems = problems_of(error, params)
        told = [Problem(f"spec.params.{one.path}", one.expected, one.given) for one in problems]
        raise invalid_document(where, told) from error
    return Wish(name, spec.fault, made, spec.duration.seconds, seed or name)
