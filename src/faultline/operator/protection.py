"""What is never hit in a cluster, and what only if it is allowed by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from faultline.operator.cluster import PROTECT, Cluster, Node, Pod, Thing

SYSTEM: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
PART_OF: Final = "app.kubernetes.io/part-of"
HERE: Final = "faultline.dev"
SHARED: Final = frozenset({"network", "dns"})
"""Families that act on what the containers of a pod share, its network."""


def of_pod(
    pod: Pod, family: str, cluster: Cluster, allow: Collection[str], *, agent: bool = True
) -> str:
    """Why a pod is not hit; empty if it may be. Without `agent` it is done over the API server."""
    if pod.namespace == cluster.ours or pod.labels.get(PART_OF) == "faultline":
        return "it is part of Faultline"
    if pod.annotations.get(PROTECT) == "true" or _node_protected(pod, cluster):
        return "it is annotated as protected"
    if why := _closed(pod.namespace, cluster):
        return why
    for name, why in _guards(pod, family):
        if name not in allow:
            return f"{why}: only with allow: [{name}]"
    if pod.deleting:
        return "it is being deleted"
    if not agent:
        return ""
    if pod.waiting and not pod.containers:
        return f"its container does not run: {pod.waiting}"
    return _agent(pod.node, cluster) if pod.node else "it is on no node yet"


def of_node(node: Node, cluster: Cluster, allow: Collection[str], *, agent: bool = True) -> str:
    """Why a node is not hit; empty if it may be."""
    if node.protected:
        return "it is annotated as protected"
    if cluster.closed_nodes:
        return cluster.closed_nodes
    if node.control_plane and "control-plane" not in allow:
        return "it is one of the control plane: only with allow: [control-plane]"
    return _agent(node.name, cluster) if agent else ""


def of_thing(each: Thing, cluster: Cluster, allow: Collection[str]) -> str:
    """Why any other object is not hit; empty if it may be."""
    if each.space == cluster.ours or each.labels.get(PART_OF) == "faultline" or _ours(each):
        return "it is part of Faultline"
    if each.annotations.get(PROTECT) == "true":
        return "it is annotated as protected"
    if why := _closed(each.space, cluster):
        return why
    if each.space in SYSTEM and "kube-system" not in allow:
        return "it is part of the cluster itself: only with allow: [kube-system]"
    return "it is being deleted" if each.deleting else ""


def _closed(space: str, cluster: Cluster) -> str:
    if space in cluster.protected:
        return f"the namespace {space} is annotated as protected"
    return cluster.closed.get(space, "")


def _ours(each: Thing) -> bool:
    definition = each.kind == "CustomResourceDefinition" and each.name.endswith(f".{HERE}")
    return definition or each.version.startswith(f"{HERE}/")


def _guards(pod: Pod, family: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    system = pod.namespace in SYSTEM
    if pod.labels.get("tier") == "control-plane" or (pod.static and system):
        found.append(("control-plane", "it is part of the control plane"))
    elif system:
        found.append(("kube-system", "it is part of the cluster itself"))
    elif pod.static:
        found.append(("static-pods", "it is a static pod"))
    if pod.host_network and family in SHARED:
        found.append(("host-network", "its network is that of the node"))
    return found


def _node_protected(pod: Pod, cluster: Cluster) -> bool:
    node = cluster.nodes.get(pod.node)
    return node is not None and node.protected


def _agent(node: str, cluster: Cluster) -> str:
    if node not in cluster.agents:
        return f"there is no agent on {node}"
    return "" if cluster.agents[node] else f"the agent of {node} does not answer"
