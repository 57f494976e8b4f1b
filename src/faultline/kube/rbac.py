"""What the accounts of the operator and of the agents may do, and nothing more.

The pages docs/kubernetes.md and docs/agent.md list the same, which a test compares; others try the
operator and an agent with just these rights.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from faultline.api.kinds import KINDS

Rule = dict[str, list[str]]
LOOK: Final = ("get", "list", "watch")
HERE: Final = "faultline.dev"


def rule(group: str, resources: Iterable[str], verbs: Iterable[str]) -> Rule:
    """One rule: these verbs on these resources of one group (the core's is empty)."""
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


OPERATOR: Final[list[Rule]] = [
    rule(HERE, ("faults", "hosts", "halts"), (*LOOK, "patch", "update")),
    rule(HERE, ("hosts",), ("create",)),
    rule(HERE, ("faults/status", "halts/status", "hosts/status"), ("patch", "update")),
    rule(HERE, ("runs", "schedules"), ("list", "watch")),
    rule("", ("pods", "nodes", "namespaces"), ("list", "watch")),
    rule("", ("endpoints",), ("get",)),
    rule("", ("services",), ("list",)),
    rule("", ("events",), ("create",)),
    rule("apps", ("replicasets",), ("get", "list")),
    rule("batch", ("jobs",), ("get", "list")),
    rule("coordination.k8s.io", ("leases",), ("get",)),
]
"""Of the operator in the whole cluster, for faults of pods and nodes."""

OPERATOR_AT_HOME: Final[list[Rule]] = [
    rule("coordination.k8s.io", ("leases",), (*LOOK, "create", "update")),
]
"""Of the operator in its own namespace: who leads, and which agents live."""

AGENT: Final[list[Rule]] = [
    rule(HERE, ("hosts",), (*LOOK, "create")),
    rule(HERE, ("hosts/status",), ("patch",)),
]
"""Of the agents in the whole cluster: Hosts are of no namespace."""

AGENT_AT_HOME: Final[list[Rule]] = [
    rule("coordination.k8s.io", ("leases",), ("create", "patch")),
]
"""Of the agents in the namespace of their leases."""

_PATCH: Final = ("get", "list", "patch")
_WORKLOADS: Final = ("deployments", "statefulsets", "daemonsets", "replicasets")
_MADE: Final = ("get", "list", "create", "delete")

OBJECTS: Final[dict[str, list[Rule]]] = {
    "admission": [rule("", ("namespaces",), _PATCH)],
    "claim": [
        rule("", ("persistentvolumeclaims",), ("get", "list")),
        rule("", ("persistentvolumes",), ("get", "patch")),
    ],
    "config": [rule("", ("configmaps", "secrets"), _PATCH)],
    "hpa": [rule("autoscaling", ("horizontalpodautoscalers",), _PATCH)],
    "ingress": [
        rule("networking.k8s.io", ("ingresses",), _PATCH),
        rule("extensions", ("ingresses",), _PATCH),
        rule("networking.k8s.io", ("ingressclasses",), ("get",)),
        rule("traefik.io", ("middlewares",), _MADE),
        rule("traefik.containo.us", ("middlewares",), _MADE),
    ],
    "job": [rule("batch", ("jobs", "cronjobs"), _PATCH)],
    "lease": [rule("coordination.k8s.io", ("leases",), _PATCH)],
    "namespace": [
        rule("", ("resourcequotas", "limitranges", "configmaps", "pods"), (*_MADE, "patch")),
        rule("networking.k8s.io", ("networkpolicies",), (*_MADE, "patch")),
        rule("", ("services", "events"), _MADE),
        rule("", ("services", "events", "pods", "configmaps", "endpoints"), ("list", "watch")),
        rule("apps", ("deployments",), _MADE),
        rule("batch", ("jobs",), _MADE),
        rule("coordination.k8s.io", ("leases",), _MADE),
        rule("cilium.io", ("ciliumnetworkpolicies",), _MADE),
        rule("projectcalico.org", ("networkpolicies",), _MADE),
        rule("crd.projectcalico.org", ("networkpolicies",), _MADE),
    ],
    "node": [
        rule("", ("nodes",), _PATCH),
        rule("", ("nodes/status",), ("patch",)),
        rule("", ("pods/eviction",), ("create",)),
    ],
    "object": [
        rule("", ("configmaps", "services", "pods", "endpoints"), (*_PATCH, "create", "delete")),
        rule("apps", _WORKLOADS, (*_PATCH, "create", "delete")),
        rule("batch", ("jobs", "cronjobs"), (*_PATCH, "create", "delete")),
        rule("networking.k8s.io", ("ingresses", "networkpolicies"),
             (*_PATCH, "create", "delete")),
        rule("autoscaling", ("horizontalpodautoscalers",), (*_PATCH, "create", "delete")),
    ],
    "pod": [
        rule("", ("pods",), (*_PATCH, "delete")),
        rule("", ("pods/status",), ("patch",)),
        rule("", ("pods/eviction",), ("create",)),
    ],
    "route": [
        rule("gateway.networking.k8s.io",
             ("httproutes", "grpcroutes", "tcproutes", "tlsroutes"), _PATCH),
    ],
    "service": [
        rule("", ("services", "endpoints"), _PATCH),
        rule("discovery.k8s.io", ("endpointslices",), ("get", "list")),
    ],
    "volume": [rule("", ("persistentvolumes",), _PATCH)],
    "workload": [
        rule("apps", _WORKLOADS, _PATCH),
        rule("apps", tuple(f"{each}/scale" for each in _WORKLOADS[:2]), ("get", "patch")),
        rule("batch", ("jobs", "cronjobs"), _PATCH),
    ],
}  # fmt: skip
"""Of the operator, for faults of Kubernetes objects, by family: see `faultline kube faults`."""

RUNS: Final[list[Rule]] = [
    rule(HERE, sorted(model.plural for model in KINDS.values()),
         (*LOOK, "create", "patch", "update", "delete")),
    rule(HERE, sorted(f"{model.plural}/status" for model in KINDS.values()),
         ("patch", "update")),
    rule("", ("configmaps",), ("get", "list", "create", "patch", "delete")),
    rule("", ("pods", "pods/log"), ("get", "list")),
    rule("batch", ("jobs",), (*LOOK, "create", "delete")),
    rule("coordination.k8s.io", ("leases",), (*LOOK, "create", "patch", "update", "delete")),
]  # fmt: skip
"""Of the operator where it carries out Runs: what docs/stores.md lists, and Jobs for loads."""

SECRETS: Final[list[Rule]] = [rule("", ("secrets",), ("get",))]
"""And in the namespaces whose Runs name Secrets."""


ACT: Final[list[Rule]] = [
    rule(HERE, ("hosts",), ("create",)),
    rule(HERE, ("hosts/status",), ("patch",)),
]
"""Of the operator, for faults of Kubernetes objects: what became of them stands in a Host."""


def objects(families: Iterable[str]) -> list[Rule]:
    """The rights for faults of Kubernetes objects of these families."""
    found = [each for family in families for each in OBJECTS.get(family, ())]
    return merged([*ACT, *found] if found else [])


def merged(rules: Iterable[Rule]) -> list[Rule]:
    """The same rights with each resource named once."""
    verbs: dict[tuple[str, str], dict[str, None]] = {}
    for each in rules:
        for resource in each["resources"]:
            known = verbs.setdefault((each["apiGroups"][0], resource), {})
            known.update(dict.fromkeys(each["verbs"]))
    grouped: dict[tuple[str, frozenset[str]], tuple[list[str], list[str]]] = {}
    for (group, resource), allowed in verbs.items():
        same = grouped.setdefault((group, frozenset(allowed)), ([], list(allowed)))
        same[0].append(resource)
    return [rule(group, found, said) for (group, _), (found, said) in grouped.items()]


def allowed(rules: Iterable[Rule]) -> set[tuple[str, str, str]]:
    """Each right alone: group, resource, verb."""
    return {
        (group, resource, verb)
        for each in rules
        for group in each["apiGroups"]
        for resource in each["resources"]
        for verb in each["verbs"]
    }


def role(name: str, rules: list[Rule], labels: dict[str, str], namespace: Any = "") -> Any:
    """A ClusterRole, or with a namespace a Role."""
    meta: dict[str, Any] = {"name": name, "labels": labels}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": {**meta, "namespace": namespace} if namespace else meta,
        "rules": rules,
    }


def binding(name: str, account: str, home: Any, labels: dict[str, str], at: Any = "") -> Any:
    """Gives the role of the same name to an account of namespace `home`; with `at` only there."""
    meta: dict[str, Any] = {"name": name, "labels": labels}
    kind = "Role" if at else "ClusterRole"
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": {**meta, "namespace": at} if at else meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home}],
    }
