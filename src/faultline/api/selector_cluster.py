"""Selectors: what only a cluster knows of its pods and nodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from faultline.api.model import Model

Glob = Annotated[str, Field(max_length=1000)]
"""A name with `*` for any letters, `?` for one and `[abc]` for one of these (fnmatch(3))."""

PodPhase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]
FIELDS = (
    "metadata.name", "metadata.namespace", "spec.nodeName", "spec.restartPolicy",
    "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase",
    "status.podIP", "status.nominatedNodeName",
)  # fmt: skip
"""The fields of a pod that a selector may compare: those of the API server (`kubectl get pods
--field-selector`)."""


class LabelExpression(Model):
    """One requirement on a label."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """What is required. As in Kubernetes, `NotIn` also holds where the label is missing."""
    values: list[str] = Field(default_factory=list[str])
    """With `In` and `NotIn`: the values."""

    @model_validator(mode="after")
    def _values(self) -> LabelExpression:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("expected values with In and NotIn, and nowhere else")
        return self

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether these labels satisfy it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class OwnerSelector(Model):
    """To whom a pod belongs: its controller, or the controller of that one."""

    kind: str = ""
    """`Deployment`, `ReplicaSet`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, or any other."""
    name: Glob = ""
    """Its name, or a pattern of it."""

    @model_validator(mode="after")
    def _any(self) -> OwnerSelector:
        if not (self.kind or self.name):
            raise ValueError("expected kind, name or both")
        return self


Component = Literal[
    "kube-apiserver", "kube-scheduler", "kube-controller-manager", "etcd", "cluster-dns",
    "kube-proxy", "kubelet",
]  # fmt: skip


class ControlPlaneSelector(Model):
    """Replicas of one component of the cluster itself, found as pods by their labels, else as
    processes by what the agents see. Hit only with `allow: [control-plane]`; all replicas at once
    only with `single-replica` too, and so many of etcd that the others have no majority only with
    `quorum`.
    """

    component: Component
    """Which one; `cluster-dns` is CoreDNS or kube-dns."""
    nodes: Annotated[list[Glob], Field(max_length=1000)] = Field(default_factory=list[str])
    """On which nodes, or patterns of them; any of these."""
    process: Annotated[str, Field(max_length=1000)] = ""
    """Where it is a plain process: a regular expression that is found in the command line of
    exactly one, if its name alone does not say which."""
    cut_from: Component | None = None
    """With a fault of the network: only what it exchanges with that component."""


class NodeSelector(Model):
    """Whole nodes of a cluster, each with its agent. Everything that is given must fit; nothing
    means all. Nodes of the control plane are hit only with `allow: [control-plane]`.
    """

    names: Annotated[list[Glob], Field(max_length=1000)] = Field(default_factory=list[str])
    """Their names, or patterns of them; any of these."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that the node has, with these values."""
    expressions: Annotated[list[LabelExpression], Field(max_length=100)] = Field(
        default_factory=list[LabelExpression]
    )
    """Requirements on its labels; all of them."""


class ObjectSelector(Model):
    """Objects of a cluster, for faults that are carried out over the API server alone
    (`faultline kube faults`). Everything that is given must fit; nothing means all. Pods and nodes
    have selectors of their own.
    """

    kind: Annotated[str, Field(pattern=r"^([A-Z][A-Za-z0-9]*)?$", max_length=63)] = ""
    """`Deployment`, `Service`, `ConfigMap`, ...; without it the one kind that the fault takes."""
    api_version: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[a-z0-9]*$", max_length=300)] = ""
    """Its group and version, `apps/v1`; without it what the server prefers."""
    namespaces: Annotated[list[Glob], Field(max_length=100)] = Field(default_factory=list[str])
    """Their namespaces, or patterns of them; any of these. Without it that of the fault itself. A
    Namespace is in itself; an object of the cluster is in none."""
    name: Glob = ""
    """The name, or a pattern of it: `web-*`."""
    names: Annotated[list[Glob], Field(max_length=1000)] = Field(default_factory=list[str])
    """Several names or patterns, as NAME or NAMESPACE/NAME; any of these."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that it has, with these values."""
    expressions: Annotated[list[LabelExpression], Field(max_length=100)] = Field(
        default_factory=list[LabelExpression]
    )
    """Requirements on its labels; all of them."""
    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    """Annotations that it has, with these values."""
