"""Which pods and nodes fit what a selector says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from faultline.api.selector import PodSelector
from faultline.api.selector_cluster import (
    LabelExpression,
    NodeSelector,
    ObjectSelector,
    OwnerSelector,
)
from faultline.operator.cluster import Cluster, Node, Pod, Thing


def pods(asked: PodSelector, namespace: str, cluster: Cluster) -> list[Pod]:
    """The pods that fit; `namespace` is meant where none is named."""
    spaces = asked.namespaces or ([] if _spaces_named(asked) else [namespace])
    behind = None
    if asked.service:
        path = asked.service if "/" in asked.service else f"{namespace}/{asked.service}"
        behind = cluster.endpoints.get(path, frozenset())
        spaces = asked.namespaces or [path.partition("/")[0]]
    phases = asked.phases or ["Running"]
    return [
        pod
        for pod in cluster.pods.values()
        if pod.phase in phases
        and (not spaces or fits_any(spaces, pod.namespace))
        and (behind is None or pod.uid in behind)
        and _named(asked, pod)
        and _labelled(asked.labels, asked.expressions, pod.labels)
        and asked.annotations.items() <= pod.annotations.items()
        and all(_field(pod.field(name), value) for name, value in asked.fields.items())
        and _on_node(asked, pod, cluster)
        and (asked.owner is None or _owned(asked.owner, pod, cluster))
    ]


def nodes(asked: NodeSelector, cluster: Cluster) -> list[Node]:
    """The nodes that fit."""
    return [
        node
        for node in cluster.nodes.values()
        if (not asked.names or fits_any(asked.names, node.name))
        and _labelled(asked.labels, asked.expressions, node.labels)
    ]


def things(asked: ObjectSelector, namespace: str, cluster: Cluster) -> list[Thing]:
    """The objects that fit; `namespace` is meant where none is named."""
    spaces = spaces_of(asked, namespace)
    return [
        each
        for each in cluster.things
        if each.kind == asked.kind
        and (not spaces or not each.space or fits_any(spaces, each.space))
        and (not asked.name or fnmatchcase(each.name, asked.name))
        and (not asked.names or fits_any(asked.names, each.name, each.path))
        and _labelled(asked.labels, asked.expressions, each.labels)
        and asked.annotations.items() <= each.annotations.items()
    ]


def spaces_of(asked: ObjectSelector, namespace: str) -> list[str]:
    """The namespaces that are meant, or patterns of them; none means all."""
    if asked.namespaces:
        return asked.namespaces
    if asked.kind == "Namespace":
        named = asked.name or asked.names or asked.labels or asked.expressions or asked.annotations
        return [] if named else [namespace]
    return [] if asked.names and all("/" in each for each in asked.names) else [namespace]


def fits_any(patterns: Sequence[str], *names: str) -> bool:
    """Whether one of the names is one of these, or fits a pattern."""
    return any(fnmatchcase(name, each) for each in patterns for name in names if name)


def _spaces_named(asked: PodSelector) -> bool:
    """Whether each name says its own namespace."""
    return bool(asked.names) and all("/" in each for each in asked.names)


def _named(asked: PodSelector, pod: Pod) -> bool:
    if asked.name and not fnmatchcase(pod.name, asked.name):
        return False
    return not asked.names or fits_any(asked.names, pod.name, pod.path)


def _labelled(
    wanted: dict[str, str], expressions: Sequence[LabelExpression], labels: Mapping[str, str]
) -> bool:
    held = dict(labels)
    return wanted.items() <= held.items() and all(each.holds(held) for each in expressions)


def _field(given: str, wanted: str) -> bool:
    return given != wanted[1:] if wanted.startswith("!") else given == wanted


def _on_node(asked: PodSelector, pod: Pod, cluster: Cluster) -> bool:
    if asked.nodes and not fits_any(asked.nodes, pod.node):
        return False
    if not asked.node_labels:
        return True
    node = cluster.nodes.get(pod.node)
    return node is not None and asked.node_labels.items() <= node.labels.items()


def _owned(asked: OwnerSelector, pod: Pod, cluster: Cluster) -> bool:
    return any(
        asked.kind in ("", owner.kind) and (not asked.name or fnmatchcase(owner.name, asked.name))
        for owner in cluster.controllers(pod)
    )
