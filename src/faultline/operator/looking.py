"""One look at a cluster, without watching it: what a plan is made from."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, cast

from faultline.api.selector import Selector
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults.rights import Right
from faultline.operator import resolving
from faultline.operator.caches import NAMESPACES, NODES, PODS
from faultline.operator.cluster import Cluster, is_protected, moment, node_of, pod_of
from faultline.operator.hosts import HostObject
from faultline.operator.leading import LEASES
from faultline.operator.reading import Reader
from faultline.operator.tally import HostView
from faultline.operator.views import AGENT
from faultline.operator.writing import FAULTS, HALTS, HOSTS

LATE = 5.0  # seconds by which the clocks of two machines may differ


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen."""

    cluster: Cluster
    hosts: dict[str, HostView]
    halted: str | None
    budgets: tuple[Object, ...]  # PodDisruptionBudgets
    allowed: bool | None  # whether the caller may create Faults there; None if it was not told


def look(
    client: Client,
    own: str,
    selector: Selector,
    namespace: str,
    more: Collection[str] = (),
) -> Look:
    """Everything that matters to a selector, and what else is needed; raises ApiError."""
    hosts = _hosts(client, own)
    pods = {pod.uid: pod for pod in map(pod_of, client.every(PODS))}
    nodes = {node.name: node for node in map(node_of, client.every(NODES))}
    held = [str(metadata(each)["name"]) for each in client.every(NAMESPACES) if is_protected(each)]
    extras = Reader(client).read(
        resolving.needs(selector, namespace) | frozenset(more), pods.values()
    )
    agents = {name: host.alive for name, host in hosts.items() if name in nodes}
    halts = [str(_part(each, "spec").get("reason") or "") for each in client.every(HALTS)]
    made = Cluster(pods, nodes, agents, frozenset(held), own, extras.owners, extras.endpoints,
                   extras.leases, things=extras.things)  # fmt: skip
    components = {name: host.components for name, host in hosts.items()}
    made = replace(made, serving=extras.serving, components=components, services=extras.services)
    halted = "; ".join(halts) if halts else None
    create = Right("create", FAULTS.plural, FAULTS.group, namespace=namespace)
    return Look(made, hosts, halted, _budgets(client), may(client, create))


def _hosts(client: Client, own: str) -> dict[str, HostView]:
    renewed: dict[str, bool] = {}
    for each in client.every(LEASES, own):
        name = str(metadata(each)["name"])
        spec = _part(each, "spec")
        age = time.time() - moment(spec.get("renewTime"))
        lasts = float(spec.get("leaseDurationSeconds") or 15) + LATE
        renewed[name] = bool(spec.get("holderIdentity")) and age < lasts
    found = [made for each in client.every(HOSTS) if (made := HostObject.of(each)) is not None]
    return {
        host.name: replace(host.view, alive=renewed.get(f"{AGENT}{host.name}", False))
        for host in found
    }


def _budgets(client: Client) -> tuple[Object, ...]:
    try:
        return tuple(client.every(client.kind("PodDisruptionBudget")))
    except ApiError as error:
        if error.reason in ("Forbidden", "NotFound"):
            return ()
        raise


def may(client: Client, right: Right) -> bool | None:
    """Whether whoever asks has this right; None if it was not told. Raises ApiError."""
    where = {
        "namespace": right.namespace, "verb": right.verb, "group": right.group,
        "resource": right.resource, "subresource": right.part, "name": right.name,
    }  # fmt: skip
    asked: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in where.items() if value}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    try:
        told = client.rest.request("POST", path, None, asked).json()
    except ApiError as error:
        if error.refused:
            return None
        raise
    return bool(_part(told, "status").get("allowed"))


def covers(budget: Object, labels: Collection[tuple[str, str]]) -> bool:
    """Whether a budget is about pods with these labels. An empty selector is about all."""
    selector = _part(_part(budget, "spec"), "selector")
    held = dict(labels)
    wanted = cast("dict[str, str]", selector.get("matchLabels") or {})
    if not wanted.items() <= held.items():
        return False
    for each in cast("list[Object]", selector.get("matchExpressions") or []):
        value, values = held.get(str(each["key"])), cast("list[str]", each.get("values") or [])
        fits = {
            "In": value in values, "NotIn": value not in values,
            "Exists": value is not None, "DoesNotExist": value is None,
        }  # fmt: skip
        if not fits.get(str(each["operator"]), False):
            return False
    return True


def _part(found: Object, name: str) -> Object:
    return cast(Object, found.get(name) or {})
