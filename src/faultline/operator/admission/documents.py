"""What is wrong with a document: the same that `faultline validate` says of it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from faultline.api import admission
from faultline.api.document import Problem, problems_of
from faultline.api.kinds import read_resource
from faultline.errors import FaultlineError, InvalidDocument
from faultline.kubeapi.model import Object, metadata
from faultline.operator import views


def problems(kind: str, each: Object) -> list[Problem]:
    """Everything that is wrong with an object of ours; its status and metadata are the server's."""
    spec: Any = each.get("spec")
    if kind == "Fault":
        return views.read(spec or {})[1]
    # A name that the server makes up is not there yet.
    data: Object = {
        "apiVersion": str(each.get("apiVersion")),
        "kind": kind,
        "metadata": {"name": str(metadata(each).get("name") or "generated")},
        "spec": {} if spec is None else spec,
    }
    if kind == "Experiment":
        from faultline.engine import wiring

        return admission.problems(data, wiring.check_fault)
    try:
        return _inside(read_resource(data))
    except InvalidDocument as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            return problems_of(cause, data)
        return [Problem("document", error.message)]
    except FaultlineError as error:
        return [Problem("spec", error.message)]


def _inside(found: object) -> list[Problem]:
    from faultline.api.run import Run
    from faultline.api.schedule import Schedule

    if isinstance(found, Schedule) and found.spec.experiment.spec is not None:
        from faultline.engine import schedules, wiring

        inner = schedules.inlined(found)
        return [
            Problem(f"spec.experiment.{one.path}", one.expected, one.given)
            for one in admission.check(inner.spec, wiring.check_fault)
        ]
    if isinstance(found, Run) and (found.spec.resolved.faults or found.spec.resolved.nodes):
        from faultline.engine import wiring

        return [
            Problem(one.path.replace("spec", "spec.resolved", 1), one.expected, one.given)
            for one in admission.check(found.spec.resolved, wiring.check_fault)
        ]
    return []
