"""Requests that the API server carries out but does not keep: they meet what real ones meet.

https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, items, metadata

TRY = "faultline.dev/try"
"""The label of what is only tried: the uid of the fault that is measured."""
_CONTAINERS: list[Object] = [{"name": "try", "image": "faultline.invalid/none:none"}]
_POD: Object = {"automountServiceAccountToken": False, "containers": _CONTAINERS}
_OURS = {"faultline.dev/tried": "true"}
_TEMPLATE: Object = {"metadata": {"labels": _OURS}, "spec": _POD}
_WORKLOAD: Object = {"selector": {"matchLabels": _OURS}, "template": _TEMPLATE}
_MADE: dict[str, Object] = {
    "pods": {"spec": _POD},
    "configmaps": {},
    "secrets": {},
    "serviceaccounts": {},
    "endpoints": {},
    "services": {"spec": {"ports": [{"port": 1}]}},
    "persistentvolumeclaims": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    },
    "deployments.apps": {"spec": {**_WORKLOAD, "replicas": 0}},
    "replicasets.apps": {"spec": {**_WORKLOAD, "replicas": 0}},
    "daemonsets.apps": {"spec": _WORKLOAD},
    "statefulsets.apps": {"spec": {**_WORKLOAD, "serviceName": "try", "replicas": 0}},
    "jobs.batch": {"spec": {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}},
    "leases.coordination.k8s.io": {},
}
"""What is enough to make one of these."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request, complete."""

    words: str
    method: str
    path: str
    body: Object
    content: str = "application/json"


@dataclass(frozen=True, slots=True)
class Met:
    """What it met."""

    status: int  # of HTTP; 0 if there was no answer
    seconds: float
    message: str = ""
    object: Object = field(default_factory=dict[str, Any])


def attempt(
    client: Client, namespace: str, operations: Sequence[str], resources: Sequence[str],
    labels: dict[str, str], name: str, fault: str,
) -> Attempt | None:  # fmt: skip
    """A request that a webhook with such rules is asked about; None where none can be made."""
    for resource in resources:
        plural, _, group = resource.partition(".")
        if "*" in plural or "/" in plural:
            continue
        try:
            kind = client.kind(plural, group)
        except ApiError:
            continue
        for operation in operations:
            meta: Object = {"name": name, "labels": {**labels, TRY: fault}}
            made = _one(client, kind, namespace, operation, resource, meta)
            if made is not None:
                return made
    return None


def _one(
    client: Client, kind: Kind, namespace: str, operation: str, resource: str, meta: Object
) -> Attempt | None:
    if operation == "CREATE" and resource in _MADE:
        made = copy.deepcopy(_MADE[resource])
        made |= {
            "apiVersion": kind.version,
            "kind": kind.kind,
            "metadata": meta,
        }
        return Attempt(f"the creation of a {kind.kind}", "POST", kind.path(namespace), made)
    if operation not in ("UPDATE", "DELETE"):
        return None
    wanted = {key: value for key, value in meta["labels"].items() if key != TRY}
    there = _any(client, kind, namespace, wanted)
    if not there:
        return None
    path = kind.path(namespace, there)
    if operation == "DELETE":
        return Attempt(f"the deletion of the {kind.kind} {there}", "DELETE", path, {})
    change: Object = {"metadata": {"labels": meta["labels"]}}
    words = f"a change of the {kind.kind} {there}"
    return Attempt(words, "PATCH", path, change, "application/merge-patch+json")


def _any(client: Client, kind: Kind, namespace: str, labels: dict[str, str]) -> str:
    asked = {"limit": "1", "labelSelector": ",".join(f"{k}={v}" for k, v in labels.items())}
    query = {key: value for key, value in asked.items() if value}
    found = items(client.rest.request("GET", kind.path(namespace), query).json())
    return str(metadata(found[0])["name"]) if found else ""


def made(client: Client, what: Attempt, patience: float) -> Met:
    """Try it: nothing is kept. Never raises for what the server says."""
    begun = time.monotonic()
    try:
        answer = client.rest.request(
            what.method, what.path, {"dryRun": "All"}, what.body, what.content, patience
        )
        found = answer.json()
    except ApiError as error:
        return Met(error.status, time.monotonic() - begun, error.message)
    return Met(answer.status, time.monotonic() - begun, "", found)
