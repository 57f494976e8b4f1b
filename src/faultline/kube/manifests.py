"""The objects that make Faultline run in a cluster, as plain data.

The chart is made of the very same functions: there a value is not the value but the expression
that Helm puts it in place of (`faultline.kube.chart`). So functions take `Values` and never look
at what a value is; what depends on the profile is decided by whoever calls them.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from faultline.api.kinds import KINDS
from faultline.kube import monitoring, rbac, webhook
from faultline.kube.crds import crd
from faultline.kube.settings import Settings, Values

Object = dict[str, Any]

NAMESPACE: Final = "faultline"
OPERATOR: Final = "faultline-operator"
AGENT: Final = "faultline-agent"
PART_OF: Final = "app.kubernetes.io/part-of"
LABELS: Final = {"app.kubernetes.io/name": "faultline", PART_OF: "faultline"}
USER: Final = 65532
CGROUPS: Final = "/sys/fs/cgroup"
RUN: Final = "/run/faultline"
TRUSTING: Final = ("--trust-all",)
OPT_IN: Final = ("--opt-in",)
EVERYWHERE: Final = "*"


def labels(component: str) -> dict[str, str]:
    """Of everything that belongs to one of the two programs."""
    return {**LABELS, "app.kubernetes.io/component": component}


# ------------------------------------------------------------------ the namespace and the kinds


def namespace(v: Values) -> list[Object]:
    """The namespace. Agents are no pods that the stricter policies for pods would take."""
    privileged = {f"pod-security.kubernetes.io/{each}": "privileged"
                  for each in ("enforce", "audit", "warn")}  # fmt: skip
    meta: Object = {"name": v.namespace, "labels": {**LABELS, **privileged}}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": meta}]


def definitions() -> list[Object]:
    """The kinds, labelled as ours."""
    return [json.loads(_definition(kind)) for kind in sorted(KINDS)]


@cache
def _definition(kind: str) -> str:
    made = crd(kind)
    made["metadata"]["labels"] = {**made["metadata"].get("labels", {}), **LABELS}
    return json.dumps(made)


def quota(v: Values) -> list[Object]:
    """Some clusters let pods have a critical priority only where a quota speaks of it."""
    scope = {"scopeName": "PriorityClass", "operator": "In",
             "values": ["system-node-critical", "system-cluster-critical"]}  # fmt: skip
    return [
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "faultline-critical", "namespace": v.namespace, "labels": LABELS},
            "spec": {"hard": {"pods": "100000"},
                     "scopeSelector": {"matchExpressions": [scope]}},
        }
    ]  # fmt: skip


# ------------------------------------------------------------------ the operator


def _account(v: Values, name: str, component: str) -> Object:
    meta: Object = {"name": name, "namespace": v.namespace, "labels": labels(component)}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def operator_account(v: Values) -> list[Object]:
    """Its account, and what it may do for faults of pods and nodes."""
    told = labels("operator")
    return [
        _account(v, OPERATOR, "operator"),
        rbac.role(OPERATOR, rbac.OPERATOR, told),
        rbac.binding(OPERATOR, OPERATOR, v.namespace, told),
        rbac.role(OPERATOR, rbac.OPERATOR_AT_HOME, told, v.namespace),
        rbac.binding(OPERATOR, OPERATOR, v.namespace, told, v.namespace),
    ]


def object_faults(v: Values, families: list[str]) -> list[Object]:
    """What the operator may do for faults of Kubernetes objects."""
    told, name = labels("operator"), f"{OPERATOR}-objects"
    return [
        rbac.role(name, rbac.objects(families), told),
        rbac.binding(name, OPERATOR, v.namespace, told),
    ]


def runs(v: Values, at: Any = "") -> list[Object]:
    """What the operator may do in one namespace in which it carries out Runs, or in all."""
    told, name = labels("operator"), f"{OPERATOR}-runs"
    return [
        rbac.role(name, rbac.RUNS, told, at),
        rbac.binding(name, OPERATOR, v.namespace, told, at),
    ]


def secrets(v: Values, at: Any) -> list[Object]:
    """Where Runs may name Secrets."""
    told, name = labels("operator"), f"{OPERATOR}-secrets"
    return [
        rbac.role(name, rbac.SECRETS, told, at),
        rbac.binding(name, OPERATOR, v.namespace, told, at),
    ]


def _environment(**fields: str) -> list[Object]:
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()]  # fmt: skip


def operator(v: Values) -> list[Object]:
    """The Deployment of the operator: an ordinary pod that only talks to the API server."""
    told = labels("operator")
    words = ["operator", f"--rate={v.operator.rate}", f"--metrics=0.0.0.0:{monitoring.PORT}"]
    ports = [
        {"name": "metrics", "containerPort": monitoring.PORT, "protocol": "TCP"},
        webhook.CONTAINER_PORT,
    ]
    container: Object = {
        "name": "operator",
        "image": v.image,
        "imagePullPolicy": v.pull_policy,
        "args": v.joined(words, v.operator_more),
        "env": [
            *_environment(FAULTLINE_NAMESPACE="metadata.namespace"),
            {"name": "FAULTLINE_IMAGE", "value": v.image},
        ],
        "ports": ports,
        "resources": v.operator.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume
    }
    pod: Object = {
        "serviceAccountName": OPERATOR,
        "securityContext": {"fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "priorityClassName": v.operator.priority_class_name,
        "terminationGracePeriodSeconds": 30,
        "imagePullSecrets": v.pull_secrets,
        "nodeSelector": v.operator.node_selector,
        "tolerations": v.operator.tolerations,
        "affinity": v.operator.affinity,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": OPERATOR, "namespace": v.namespace, "labels": told},
            "spec": {
                "replicas": v.operator.replicas,
                "selector": {"matchLabels": told},
                "template": {"metadata": {"labels": told}, "spec": pod},
            },
        }
    ]


# ------------------------------------------------------------------ the agents


def agent_account(v: Values) -> list[Object]:
    """One account for all agents. Clusters that bind tokens to nodes can tell them apart."""
    told = labels("agent")
    return [
        _account(v, AGENT, "agent"),
        rbac.role(AGENT, rbac.AGENT, told),
        rbac.binding(AGENT, AGENT, v.namespace, told),
        rbac.role(AGENT, rbac.AGENT_AT_HOME, told, v.namespace),
        rbac.binding(AGENT, AGENT, v.namespace, told, v.namespace),
    ]


def security(settings: Settings, profile: str) -> Object:
    """The securityContext of an agent. As root, since the faults are."""
    if profile == "full":
        return {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
    return {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": settings.capabilities},
        "readOnlyRootFilesystem": True,
        "runAsUser": 0,
        "seccompProfile": {"type": settings.agent.seccomp},
        "seLinuxOptions": {"type": settings.agent.se_linux_type},
    }


def _folders(v: Values) -> tuple[list[Object], list[Object]]:
    """What of the machine is mounted, and where: its journal, its control groups, no file else."""
    kept = "DirectoryOrCreate"
    known = (
        ("state", v.agent.state_folder, v.agent.state_folder, kept),
        ("run", RUN, RUN, kept),
        ("cgroup", CGROUPS, CGROUPS, "Directory"),
    )
    volumes: list[Object] = [
        {"name": name, "hostPath": {"path": path, "type": kind}} for name, path, _, kind in known
    ]
    mounts: list[Object] = [{"name": name, "mountPath": at} for name, _, at, _ in known]
    volumes.append({"name": "tmp", "emptyDir": {}})
    mounts.append({"name": "tmp", "mountPath": "/tmp"})  # noqa: S108 - a volume
    return volumes, mounts


def agent(v: Values) -> list[Object]:
    """The DaemonSet of the agents.

    `hostPID`: targets are processes of the machine, by their pids. `hostNetwork`: faults of a node
    are faults of its network, and nothing of the network of pods stands between an agent and the
    API server.
    """
    told = labels("agent")
    volumes, mounts = _folders(v)
    words = [
        "agent", "--node=$(NODE_NAME)", "--namespace=$(FAULTLINE_NAMESPACE)",
        f"--lease={v.agent.lease}", f"--renew={v.agent.renew}",
    ]  # fmt: skip
    fields = {"NODE_NAME": "spec.nodeName", "FAULTLINE_NAMESPACE": "metadata.namespace"}
    container: Object = {
        "name": "agent",
        "image": v.image,
        "imagePullPolicy": v.pull_policy,
        "args": v.joined(words, v.agent.extra_args),
        "env": [
            {"name": "FAULTLINE_MACHINE", "value": "1"},
            {"name": "FAULTLINE_FAULTS", "value": v.faults},
            {"name": "FAULTLINE_STATE", "value": v.agent.state_folder},
            *_environment(**fields),
        ],
        "resources": v.agent.resources,
        "securityContext": v.agent_security,
        "volumeMounts": mounts,
    }
    pod: Object = {
        "serviceAccountName": AGENT,
        "hostPID": True,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "priorityClassName": v.agent.priority_class_name,
        # SIGTERM undoes everything first, for which an agent takes 25 s at most.
        "terminationGracePeriodSeconds": 40,
        "imagePullSecrets": v.pull_secrets,
        "nodeSelector": v.agent.node_selector,
        "tolerations": v.agent.tolerations,
        "containers": [container],
        "volumes": volumes,
    }
    # Elsewhere than in an annotation servers before 1.30 do not take it.
    unconfined = {"container.apparmor.security.beta.kubernetes.io/agent": "unconfined"}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": AGENT, "namespace": v.namespace, "labels": told},
            "spec": {
                "selector": {"matchLabels": told},
                "updateStrategy": {"type": "RollingUpdate",
                                   "rollingUpdate": {"maxUnavailable": "10%"}},
                "template": {"metadata": {"labels": told, "annotations": unconfined}, "spec": pod},
            },
        }
    ]  # fmt: skip


# ------------------------------------------------------------------ what other parts bring


def metrics_service(v: Values) -> list[Object]:
    """Leads to the metrics of the operator."""
    return [monitoring.service(v.namespace)]


def monitored(v: Values) -> dict[str, list[Object]]:
    """What Prometheus and Grafana are told, by the name of the setting that wants it."""
    return {
        "service_monitor": [monitoring.service_monitor(v.namespace)],
        "rules": [monitoring.prometheus_rule(v.namespace)],
        "dashboard": [monitoring.dashboard_config_map(v.namespace)],
    }


def hook(v: Values) -> list[Object]:
    """The admission webhook: how it is reached, what it may do, and what the server asks it."""
    told, name = labels("operator"), f"{OPERATOR}-webhook"
    agents, other = labels("agent"), f"{AGENT}-webhook"
    return [
        webhook.service(v.namespace, told, told),
        rbac.role(name, webhook.OPERATOR, told),
        rbac.binding(name, OPERATOR, v.namespace, told),
        rbac.role(name, webhook.OPERATOR_AT_HOME, told, v.namespace),
        rbac.binding(name, OPERATOR, v.namespace, told, v.namespace),
        rbac.role(other, webhook.AGENT, agents),
        rbac.binding(other, AGENT, v.namespace, agents),
        rbac.role(other, webhook.AGENT_AT_HOME, agents, v.namespace),
        rbac.binding(other, AGENT, v.namespace, agents, v.namespace),
        *webhook.configurations(v.namespace),
    ]


def dry_runs(v: Values) -> list[Object]:
    """What the operator may do to try faults of admission."""
    told, name = labels("operator"), f"{OPERATOR}-dry-runs"
    rules = [each for each in webhook.FAULTS if each["resources"] == ["*"]]
    return [rbac.role(name, rules, told), rbac.binding(name, OPERATOR, v.namespace, told)]


# ------------------------------------------------------------------ all of it


class Given:
    """The values that were chosen."""

    def __init__(self, settings: Settings, at: str) -> None:
        self.namespace = at
        self.image = settings.reference
        self.agent, self.operator = settings.agent, settings.operator
        self.pull_policy = settings.pull_policy
        self.pull_secrets = [{"name": each} for each in settings.pull_secrets]
        self.faults = ",".join(settings.agent.faults)
        self.agent_security = security(settings, settings.profile)
        self.operator_more = [
            *(webhook.ARGUMENTS if settings.webhook.enabled else TRUSTING),
            *(OPT_IN if settings.operator.opt_in else ()),
            *settings.operator.extra_args,
        ]

    def joined(self, first: list[Any], more: Any) -> Any:
        return [*first, *more]


def objects(settings: Settings, at: str = NAMESPACE, *, kinds: bool = True) -> list[Object]:
    """Everything, in an order in which it can be made, for the namespace `at`; the definitions of
    the kinds only with `kinds`.
    """
    v = Given(settings, at)
    made = [*namespace(v), *(definitions() if kinds else ()), *quota(v), *operator_account(v)]
    if settings.operator.object_faults:
        made += object_faults(v, settings.operator.object_faults)
    made += _where(v, settings)
    if settings.webhook.enabled:
        made += hook(v)
        made += dry_runs(v) if settings.operator.dry_runs else []
    made += [*operator(v), *metrics_service(v)]
    if settings.profile != "api-only":
        made += [*agent_account(v), *agent(v)]
    for wanted, extra in monitored(v).items():
        if getattr(settings.monitoring, wanted):
            made += extra
    return made


def _where(v: Values, settings: Settings) -> list[Object]:
    made: list[Object] = []
    spaces = settings.operator.run_namespaces
    if EVERYWHERE in spaces:
        made += runs(v)
    else:
        for each in spaces:
            made += runs(v, each)
    for each in settings.operator.secret_namespaces:
        made += secrets(v, each)
    return made
