"""The operator's webhook in a cluster: what must stand beside its Deployment, and what it may do.

The operator makes its certificates itself and puts them, and how it is reached, into the two
configurations. Until it has, what begins something is refused: so they may be applied first.
"""

from __future__ import annotations

from typing import Any, Final

from faultline.kubefaults import asking, webhooks

Object = dict[str, Any]
Rule = dict[str, list[str]]

PORT: Final = 9443
"""Where it listens in its pod."""
SERVICE: Final = "faultline-webhook"
"""Its Service; the Secret has the same name."""
ARGUMENTS: Final = (f"--webhook=0.0.0.0:{PORT}", f"--webhook-service={SERVICE}")
"""What `faultline operator` is started with."""
CONTAINER_PORT: Final[Object] = {"name": "webhook", "containerPort": PORT, "protocol": "TCP"}
_GROUP: Final = "admissionregistration.k8s.io"
_KINDS: Final = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]

OPERATOR: Final[list[Rule]] = [
    {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["subjectaccessreviews"],
        "verbs": ["create"],
    },
    {"apiGroups": [_GROUP], "resources": _KINDS, "verbs": ["get", "list", "create"]},
    {
        "apiGroups": [_GROUP],
        "resources": _KINDS,
        "resourceNames": [webhooks.NAME, *webhooks.SLOTS],
        "verbs": ["patch", "delete"],
    },
    {
        "apiGroups": ["faultline.dev"],
        "resources": ["runs", "schedules", "experiments"],
        "verbs": ["get"],
    },
    {"apiGroups": ["faultline.dev"], "resources": ["halts"], "verbs": ["create"]},
]
"""Of the operator in the whole cluster. Creating a Halt is only tried: so it learns who it is."""

FAULTS: Final[list[Rule]] = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["create"]},
]
"""Of the operator, for faults of admission: they label the namespace, and their effect is measured
by dry runs of what they hit. The second may be narrowed to what they are to hit; what cannot be
tried is measured by the requests of others.
"""

OPERATOR_AT_HOME: Final[list[Rule]] = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [SERVICE],
        "verbs": ["get", "update"],
    },
]
"""Of the operator in its own namespace: its authority."""

AGENT: Final[list[Rule]] = [
    {"apiGroups": [_GROUP], "resources": _KINDS, "verbs": ["get", "list"]},
    {
        "apiGroups": [_GROUP],
        "resources": _KINDS,
        "resourceNames": list(webhooks.SLOTS),
        "verbs": ["delete"],
    },
]
"""Of the agents in the whole cluster: they remove faults of admission that nobody else removes, and
nobody else's webhooks.
"""

AGENT_AT_HOME: Final[list[Rule]] = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["faultline-operator"],
        "verbs": ["get"],
    },
]
"""Of the agents in the namespace of the operator: whether it lives."""


def service(namespace: str, labels: dict[str, str], selector: dict[str, str]) -> Object:
    """The Service by which the API server reaches it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": selector,
            "ports": [
                {"name": "webhook", "port": 443, "targetPort": PORT, "protocol": "TCP"},
            ],
        },
    }


def configurations(namespace: str) -> list[Object]:
    """The two configurations, before an operator has put in how it is reached."""
    return asking.configurations(namespace)
