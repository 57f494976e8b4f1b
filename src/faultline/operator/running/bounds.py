"""What a run may not ask of an operator: whoever may make runs is not who may use its pod.

The operator has an account with wide rights and files of its own. So nothing of a run is carried
out there as a program, nothing reads its files or environment, and Jobs are made in the namespace
of the run alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from faultline.api.admission import PLUGIN_PROBE, PLUGIN_SELECTOR, PLUGIN_TRAFFIC
from faultline.api.document import Problem, problems_of
from faultline.api.experiment import ExperimentSpec
from faultline.api.graph import CommandTask, JobTask
from faultline.api.probe import KubernetesProbe
from faultline.api.probe_base import ProbeBase
from faultline.api.probes_data import SqlProbe
from faultline.api.secret import SecretRef
from faultline.api.selector import PluginSelector
from faultline.api.tls import TlsFields
from faultline.api.traffic import ExternalTraffic, PluginTraffic, SqlTraffic
from faultline.api.traffic_parts import Feed
from faultline.errors import InvalidParameter, UnknownName
from faultline.injection import registry
from faultline.kubefaults import registry as objects

LOCAL = frozenset({"command", "log", "file", "process", "plugin"})
"""Probes of the machine on which they are measured."""
_INSTEAD = "a Job (`job` of a task) does it in a pod of its own"
_SECRET_KINDS = frozenset({"secret", "secrets"})


def problems(spec: ExperimentSpec, namespace: str) -> list[Problem]:
    """Everything of an experiment that an operator does not do."""
    return list(_walk("spec", spec, namespace))


def _walk(path: str, value: Any, namespace: str) -> Iterator[Problem]:
    if isinstance(value, BaseModel):
        yield from _model(path, value, namespace)
        for name in type(value).model_fields:
            yield from _walk(f"{path}.{name}", getattr(value, name), namespace)
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from _walk(f"{path}.{number}", each, namespace)
    elif isinstance(value, dict):
        for name, each in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _walk(f"{path}.{name}", each, namespace)


def _model(path: str, value: BaseModel, namespace: str) -> Iterator[Problem]:
    match value:
        case SecretRef():
            yield Problem(path, f"no secret of the operator; {_INSTEAD}")
        case CommandTask():
            yield Problem(path, f"no command in the operator's pod; {_INSTEAD}")
        case JobTask():
            yield from _job(path, value, namespace)
        case ProbeBase() if getattr(value, "type", "") in LOCAL:
            yield Problem(f"{path}.type", f"no probe of the operator's own machine; {_INSTEAD}")
        case KubernetesProbe():
            yield from _kubernetes(path, value)
        case SqlProbe() | SqlTraffic() if "sqlite" in value.url:
            yield Problem(f"{path}.url", "a database that is reached over the network")
        case ExternalTraffic() | PluginTraffic():
            yield Problem(f"{path}.type", "a load of our own drivers")
        case Feed() if value.file:
            yield Problem(f"{path}.file", "rows: no file of the operator's pod")
        case _:
            pass
    if isinstance(value, TlsFields):
        for name in ("ca", "certificate", "key"):
            if getattr(value, name):
                yield Problem(f"{path}.{name}", "no file of the operator's pod")


def _job(path: str, task: JobTask, namespace: str) -> Iterator[Problem]:
    if task.context:
        yield Problem(f"{path}.context", "none: it runs in this cluster")
    given: Any = task.manifest.get("metadata")
    named = cast("dict[str, Any]", given).get("namespace") if isinstance(given, dict) else None
    if named not in (None, namespace):
        yield Problem(f"{path}.manifest.metadata.namespace", f"{namespace}, that of the run")


def _kubernetes(path: str, probe: KubernetesProbe) -> Iterator[Problem]:
    for name in ("kubeconfig", "context"):
        if getattr(probe, name):
            yield Problem(f"{path}.{name}", "none: it asks this cluster")
    if probe.kind.lower().partition(".")[0] in _SECRET_KINDS:
        yield Problem(f"{path}.kind", "another kind: Secrets are not read")


def check_fault(fault: str, params: dict[str, Any]) -> list[Problem]:
    """What is wrong with a fault of hosts or of objects, or with a plug-in, in a cluster."""
    if fault in (PLUGIN_PROBE, PLUGIN_TRAFFIC):
        return []  # `problems` says that there is none
    if fault == PLUGIN_SELECTOR:
        return _plugin(PluginSelector.model_validate(params))
    known = objects.faults().get(fault)
    try:
        model: Any = known.params_type() if known else registry.get(fault).params_type()
        model.model_validate(params)
    except UnknownName as error:
        told = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Problem("fault", told)]
    except ValidationError as error:
        return [
            Problem(f"params.{one.path}", one.expected, one.given)
            for one in problems_of(error, params)
        ]
    return []


def _plugin(selector: PluginSelector) -> list[Problem]:
    from faultline.operator import plugins

    try:
        plugins.load(selector, "")
    except (InvalidParameter, UnknownName) as error:
        return [Problem("name", f"{error.message} {error.hint}".strip(), selector.name)]
    return []
