"""Selectors that a cluster offers beside criteria: by who leads, by age, by where others are.

A package adds its own with an entry point `faultline.cluster_selectors` that names a class like
these. It is given all that is known of the cluster, and does no I/O.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from faultline.api.params import Params, invalid
from faultline.api.selector import PluginSelector, PodSelector
from faultline.errors import InvalidParameter, TargetGone
from faultline.injection import extensions
from faultline.injection.selecting import params_of
from faultline.operator import matching
from faultline.operator.cluster import Cluster, Pod

GROUP = "faultline.cluster_selectors"
P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True)
class Found:
    """What a selector has found."""

    pods: tuple[Pod, ...]
    rest: tuple[Pod, ...] = ()
    """What of the set is not hit: the control group."""


class ClusterSelector(Generic[P]):
    """One selector."""

    summary: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset()
    """What it needs besides pods and nodes: `leases`, `owners`, `endpoints`."""

    def __init__(self, params: P, namespace: str) -> None:
        self.params = params
        self.namespace = namespace  # of the fault: what is meant where none is named

    @abstractmethod
    def select(self, cluster: Cluster) -> Found:
        """Choose; raises TargetGone if there is nothing."""

    def leases(self) -> Iterable[str]:
        """The Leases to be read, as NAMESPACE/NAME."""
        return ()

    def pods(self) -> PodSelector | None:
        """The criteria in its parameters, so that what they need is read too."""
        return getattr(self.params, "pods", None)

    @classmethod
    def params_type(cls) -> type[P]:
        """The model of its parameters, from `ClusterSelector[ITS_PARAMS]`."""
        return params_of(cls, ClusterSelector)


# ---------------------------------------------------------------------- those that are here


class LeaderParams(Params):
    """Which Lease."""

    lease: str = Field(pattern=r"^([a-z0-9.-]+/)?[a-z0-9.-]+$")
    """The Lease that its leader holds: NAME, or NAMESPACE/NAME."""


class Leader(ClusterSelector[LeaderParams]):
    """The pod that holds a Lease."""

    summary = "the pod that leads, by the Lease that it holds"
    reads = frozenset({"leases"})

    def leases(self) -> Iterable[str]:
        return [_path(self.params.lease, self.namespace)]

    def select(self, cluster: Cluster) -> Found:
        (path,) = self.leases()
        # client-go: the host name of the pod, which is its name, and something of its own.
        holder = cluster.leases.get(path, "").partition("_")[0]
        space = path.partition("/")[0]
        of = [pod for pod in cluster.pods.values() if pod.namespace == space]
        leading = tuple(pod for pod in of if holder and pod.name == holder)
        if not leading:
            raise TargetGone(f"the Lease {path} is held by no pod: {holder or 'nobody'}")
        (leader,) = leading
        rest = [
            pod
            for pod in of
            if pod.owner is not None and pod.owner == leader.owner and pod != leader
        ]
        return Found(leading, tuple(rest))


class _Pods(Params):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    pods: PodSelector = Field(default_factory=PodSelector)
    """Among which pods."""


class _Of(_Pods):
    of: str = Field(pattern=r"^([a-z0-9.-]+/)?[a-z0-9.-]+$")
    """A pod: NAME, or NAMESPACE/NAME."""


class Oldest(ClusterSelector[_Pods]):
    """The pod that has been there for the longest time."""

    summary = "the oldest of some pods"

    def select(self, cluster: Cluster) -> Found:
        found = matching.pods(self.params.pods, self.namespace, cluster)
        by_age = sorted(found, key=lambda pod: (pod.created, pod.path))
        return Found(tuple(by_age[:1]), tuple(by_age[1:]))


class SameZone(ClusterSelector[_Of]):
    """The pods in the zone of another one."""

    summary = "pods in the same zone as another one"

    def select(self, cluster: Cluster) -> Found:
        of = _pod(self.params.of, self.namespace, cluster)
        zone = cluster.zone(of.node)
        if not zone:
            raise TargetGone(f"the node {of.node} of {of.path} does not say in which zone it is")
        found = matching.pods(self.params.pods, self.namespace, cluster)
        return _parted([pod for pod in found if pod != of],
                       {pod.uid for pod in found if cluster.zone(pod.node) == zone})  # fmt: skip


class OnNodeOf(ClusterSelector[_Of]):
    """The pods on the node of another one."""

    summary = "pods on the same node as another one"

    def select(self, cluster: Cluster) -> Found:
        of = _pod(self.params.of, self.namespace, cluster)
        found = matching.pods(self.params.pods, self.namespace, cluster)
        return _parted([pod for pod in found if pod != of],
                       {pod.uid for pod in found if pod.node == of.node})  # fmt: skip


BUILT_IN: dict[str, type[ClusterSelector[Any]]] = {
    "leader": Leader,
    "oldest": Oldest,
    "same-zone": SameZone,
    "on-node-of": OnNodeOf,
}


def load(asked: PluginSelector, namespace: str) -> ClusterSelector[Any]:
    """A selector with its parameters; raises UnknownName, InvalidParameter."""
    kind = BUILT_IN.get(asked.name) or extensions.load(GROUP, asked.name)
    model: type[BaseModel] = kind.params_type()
    try:
        return kind(model.model_validate(asked.params), namespace)
    except ValidationError as error:
        raise invalid(error, "plugin.params") from error


def _parted(found: list[Pod], hit: set[str]) -> Found:
    return Found(
        tuple(pod for pod in found if pod.uid in hit),
        tuple(pod for pod in found if pod.uid not in hit),
    )


def _path(text: str, namespace: str) -> str:
    return text if "/" in text else f"{namespace}/{text}"


def _pod(text: str, namespace: str, cluster: Cluster) -> Pod:
    path = _path(text, namespace)
    found = [pod for pod in cluster.pods.values() if pod.path == path]
    if not found:
        raise TargetGone(f"there is no pod {path}")
    if not found[0].node:
        raise InvalidParameter("plugin.params.of", text, "a pod that is on a node")
    return found[0]
